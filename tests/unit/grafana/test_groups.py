"""The GPU's dashboard shows every metric of the catalogue, with its unit."""

from __future__ import annotations

import re

from grafana import style
from grafana.groups import groups
from services.contract.catalogue import METRICS, SAMPLED, Kind, Unit
from services.contract.clocks_event import REASONS, THERMAL, THROTTLING
from tests.support.grafana_dashboards import committed

(CARD,) = [dashboard for dashboard in committed() if dashboard.uid == "gpu-detail"]


def test_every_sampled_metric_is_in_one_group() -> None:
    grouped = [metric.column for group in groups() for metric in group.metrics]
    assert sorted(grouped) == sorted(m.column for m in SAMPLED if m.unit is not Unit.BITMASK)


def test_a_group_has_one_unit_and_one_kind() -> None:
    for group in groups():
        assert len({(m.unit, m.kind) for m in group.metrics}) == 1, group.title


def test_no_metric_is_without_a_group_of_its_own_yet() -> None:
    """A new metric shows up under "More"; give it a place in grafana/groups.py."""
    assert [group.title for group in groups() if group.title.startswith("More")] == []


def test_every_metric_is_shown_with_the_unit_of_the_catalogue() -> None:
    panels = {panel["title"]: panel for panel in CARD.panels()}
    for group in groups():
        panel = panels[group.title]
        column = group.metrics[0].column
        unit = style.grown(column)[1] if group.metrics[0].kind is Kind.COUNTER else style.unit(column)
        assert panel["fieldConfig"]["defaults"]["unit"] == unit
        assert all(metric.column in panel["targets"][0]["rawSql"] for metric in group.metrics)
    assert "clocks_event_reasons" in panels["Throttling"]["targets"][0]["rawSql"]


def test_every_unit_of_the_catalogue_has_one_of_grafana() -> None:
    assert set(style.GRAFANA_UNITS) == set(Unit)
    assert style.unit("total_energy_consumption") == "joule"
    assert all(style.unit(metric.column) for metric in METRICS)


def test_what_counters_grew_by_has_a_unit_people_count_in() -> None:
    assert style.grown("total_energy_consumption") == (3.6e9, "kwatth")  # mJ in a kWh
    assert style.grown("power_violation") == (60e9, "m")  # ns in a minute
    assert style.grown("ecc_sbe_vol_total") == (1, style.COUNT)


def test_errors_counted_twice_are_not_stacked() -> None:
    """The same error is in the count since the driver's start and in that of the board's life."""
    for group in groups():
        kinds = {ending for m in group.metrics for ending in ("_vol_", "_agg_") if ending in m.column}
        assert len(kinds) <= 1, group.title


def test_figures_of_the_legend_say_what_they_are() -> None:
    """Lines are averages over long ranges: their highest is no maximum. A mean of codes or flags is nothing."""
    panels = {panel["title"]: panel for panel in CARD.panels()}
    for group in (g for g in groups() if g.metrics[0].kind is Kind.GAUGE):
        calcs = panels[group.title]["options"]["legend"]["calcs"]
        coded = group.metrics[0].unit in (Unit.CODE, Unit.FLAG)
        assert calcs == (["lastNotNull"] if coded else ["mean", "lastNotNull"])


def test_a_band_has_the_colour_of_its_line() -> None:
    panels = {panel["title"]: panel for panel in CARD.panels()}
    for group in (g for g in groups() if g.metrics[0].kind is Kind.GAUGE):
        colours = {
            name: [
                p["value"]["fixedColor"]
                for o in panels[group.title]["fieldConfig"]["overrides"]
                if re.search(o["matcher"]["options"].strip("/"), name)
                for p in o["properties"]
                if p["id"] == "color"
            ]
            for m in group.metrics
            for name in (m.column, f"{m.column} min", f"{m.column} max")
        }
        for m in (m for m in group.metrics if m.unit not in (Unit.CODE, Unit.FLAG)):
            assert len(colours[m.column]) == 1, m.column
            assert colours[m.column] == colours[f"{m.column} min"] == colours[f"{m.column} max"]


def test_every_combination_of_reasons_is_decoded() -> None:
    states = style.throttle_states()
    bits = {bits for bits in range(THROTTLING + 1) if bits & ~THROTTLING == 0}
    assert set(states) == bits | {one | style.AT_TIMES for one in bits if one}
    assert style.AT_TIMES & sum(REASONS) == 0
    assert states[0] == ("not throttled", style.GREEN)
    assert all((colour == style.RED) == bool(one & THERMAL) for one, (_, colour) in states.items() if one in bits)
    assert len({text for text, _ in states.values()}) == len(states), "two states read alike"


def test_heat_comes_first_where_a_label_is_cut() -> None:
    states = style.throttle_states()
    assert states[0x24] == ("heat + power", style.RED)
    assert states[0x24 | style.AT_TIMES][0] == "heat + power, at times"
    for bits, (text, _) in states.items():
        assert text.startswith("heat") == bool(bits & THERMAL)


def test_the_words_for_reasons_are_explained() -> None:
    for title in ("GPU detail", "GPU telemetry (host)"):
        (dashboard,) = [d for d in committed() if d.title == title]
        (panel,) = [p for p in dashboard.panels() if p["title"] == "Throttling"]
        for bit, word in style.THROTTLE_WORDS.items():
            assert REASONS[bit] in panel["description"]
            assert word.split(" (")[0] in panel["description"]
