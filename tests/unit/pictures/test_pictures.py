"""The pictures of the dashboards: what is drawn can be drawn, in Grafana's words, and says what it is."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.pictures.__main__ import IMAGES, MOST, PICTURES
from tests.pictures.fields import Field, config_of, fields_of, number
from tests.pictures.kinds import KINDS
from tests.pictures.page import NOTE
from tests.support.grafana_dashboards import committed

STEPS = {"steps": [{"value": None, "color": "green"}, {"value": 75, "color": "orange"}, {"value": 85, "color": "red"}]}
NOON = dt.datetime(2026, 1, 4, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (64.27, "celsius", None, "64.3 °C"),
        (64.27, "celsius", 0, "64 °C"),
        (1234, "watt", None, "1.23 kW"),
        (98.0, "watt", None, "98 W"),
        (0.5, "percentunit", None, "50%"),
        (2160, "short", None, "2.16 K"),
        (0, "short", None, "0"),
        (3600, "s", None, "1 hour"),
        (90, "s", None, "1.5 mins"),
        (0, "s", None, "0 s"),
        (6e12, "ns", None, "1.67 hours"),
        (2048, "mbytes", None, "2 GiB"),
        (1410, "rotmhz", None, "1.41 GHz"),
    ],
)
def test_numbers_with_units(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert number(value, unit, decimals) == text


def test_an_unknown_unit_is_an_error() -> None:
    with pytest.raises(KeyError):
        number(1, "furlongs")


def test_thresholds_and_mappings() -> None:
    field = Field("t", [], {"thresholds": STEPS, "noValue": "No value"})
    assert [field.colour(v) for v in (74, 75, 85)] == ["#56a64b", "#ff780a", "#e02f44"]
    assert (field.colour(None), field.text(None)) == ("#56a64b", "No value"), "as Grafana, whatever one thinks of it"
    grey = {"type": "special", "options": {"match": "null+nan", "result": {"text": "", "color": "#8e8e8e"}}}
    mapped = Field("t", [], {"thresholds": STEPS, "mappings": [grey]})
    assert (mapped.colour(None), mapped.text(None)) == ("#8e8e8e", "")
    assert mapped.colour(90) == "#e02f44"


def override(expression: str, name: str, value: Any) -> dict[str, Any]:
    return {"matcher": {"id": "byRegexp", "options": expression}, "properties": [{"id": name, "value": value}]}


def test_overrides_hold_for_the_fields_they_name() -> None:
    panel: dict[str, Any] = {
        "title": "p",
        "fieldConfig": {
            "defaults": {"unit": "short", "custom": {"hidden": False}},
            "overrides": [override("/^Idle\\b/i", "unit", "s"), override("/_id$/", "custom.hidden", value=True)],
        },
    }
    assert config_of(panel, "idle GPU 0")["unit"] == "s"
    assert config_of(panel, "other")["unit"] == "short"
    fields = fields_of(panel, [("table", ["gpu_id", "n"], [(1, 2)])])
    assert [(f.name, f.values) for f in fields] == [("n", [2])]


def test_series_are_told_apart_by_their_text_column() -> None:
    panel: dict[str, Any] = {"title": "p", "fieldConfig": {"defaults": {}, "overrides": []}}
    rows = [(NOON, "a", 1), (NOON, "b", 2), (NOON + dt.timedelta(minutes=1), "a", None)]
    found = fields_of(panel, [("time_series", ["time", "metric", "value"], rows)])
    assert [(f.name, f.values) for f in found] == [("a", [1, None]), ("b", [2])]


@pytest.mark.parametrize("name", PICTURES)
def test_every_panel_of_a_picture_can_be_drawn(name: str) -> None:
    picture = PICTURES[name]
    (board,) = (b for b in committed() if b.uid == picture.uid)
    panels = list(board.panels())
    assert {p["type"] for p in panels} <= KINDS.keys()
    for panel in panels:
        number(1, panel["fieldConfig"]["defaults"].get("unit", "none"))
    assert picture.upto in [p["title"] for p in board.document["panels"] if p["type"] == "row"]


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_there_and_small(name: str) -> None:
    data = (IMAGES / f"dashboard-{name}.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) <= MOST


def test_pages_that_show_them_say_what_they_are() -> None:
    assert "not a Grafana screenshot" in NOTE
    root = IMAGES.parents[1]
    for page in (*root.glob("*.md"), *(root / "docs").glob("*.md")):
        text = page.read_text()
        if "images/dashboard-" in text:
            assert "not a Grafana" in text.replace("\n", " "), f"{page.name} shows a drawn dashboard without saying so"
