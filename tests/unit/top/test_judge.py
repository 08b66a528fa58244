"""Lights: what makes a GPU green, yellow, red or unknown, and the words for it."""

from __future__ import annotations

from typing import Any

import pytest

from services.andon import AndonSystem, Severity
from services.top.frame import Row, Xid
from services.top.judge import Light, Verdict, duration, judge
from tests.unit.top.rows import BUSY, HandClock, row


def judged(of: Row, age: float | None = 0.0) -> Verdict:
    return judge(of, AndonSystem(clock=HandClock()), age, 10.0)


def with_values(**values: Any) -> Row:
    return row(values={**BUSY, **values})


def test_a_working_gpu_is_green() -> None:
    assert judged(row()) == Verdict(Light.GREEN, "ok")


@pytest.mark.parametrize(
    ("of", "light", "word", "note"),
    [
        (row(lost="GPU is lost", values={}), Light.RED, "LOST", "GPU is lost"),
        (row(values={}), Light.GREY, "?", "no values"),
        (with_values(gpu_temp=80), Light.YELLOW, "HOT", None),
        (with_values(gpu_temp=90), Light.RED, "HOT", None),
        (with_values(fb_used=21000), Light.GREEN, "ok", "memory 91 %"),
        (with_values(fb_used=23000), Light.RED, "MEM", "memory 100 %"),
        (with_values(clocks_event_reasons=0x20), Light.YELLOW, "SLOW", "throttled: sw_thermal"),
        (with_values(clocks_event_reasons=0x48), Light.RED, "SLOW", "throttled: hw_slowdown, hw_thermal"),
        (with_values(clocks_event_reasons=0x4), Light.GREEN, "ok", "throttled: power_cap"),
        (with_values(clocks_event_reasons=0x1), Light.GREEN, "ok", None),
        (with_values(ecc_dbe_vol_total=2), Light.RED, "ECC", "2 uncorrectable ECC errors"),
        (with_values(ecc_sbe_vol_total=7), Light.GREEN, "ok", "7 corrected ECC errors"),
        (with_values(row_remap_failure=1), Light.RED, "ECC", "row remapping failed"),
        (with_values(row_remap_pending=1), Light.YELLOW, "ECC", "row remap pending: reset the GPU"),
        (with_values(ecc_dbe_vol_total=0, row_remap_failure=0, retired_pending=0), Light.GREEN, "ok", None),
    ],
)
def test_lights(of: Row, light: Light, word: str, note: str | None) -> None:
    verdict = judged(of)
    assert (verdict.light, verdict.word) == (light, word)
    assert verdict.notes == (() if note is None else (note,))


def test_old_values_are_stale_whatever_they_say() -> None:
    verdict = judged(with_values(gpu_temp=99), age=11.0)
    assert (verdict.light, verdict.word, verdict.notes) == (Light.YELLOW, "STALE", ("last seen 11 s ago",))
    assert judged(row(), age=10.0).word == "ok"


@pytest.mark.parametrize("age", [1e300, float("inf")])
def test_an_absurd_age_is_stale_in_few_words(age: float) -> None:
    assert judged(row(), age=age).notes == ("last seen over 1000 d ago",)


def test_an_xid_has_the_light_of_its_meaning() -> None:
    verdict = judged(row(xid=Xid(79)))
    assert (verdict.light, verdict.word) == (Light.RED, "XID")
    assert verdict.notes[0].startswith("XID 79: ")
    assert judged(row(xid=Xid(0))).word == "ok"


def test_the_worst_note_comes_first() -> None:
    verdict = judged(with_values(clocks_event_reasons=0x4, ecc_dbe_vol_total=1, row_remap_pending=1))
    assert verdict.notes == (
        "1 uncorrectable ECC errors", "row remap pending: reset the GPU", "throttled: power_cap",
    )  # fmt: skip


def test_at_the_power_limit_the_figure_is_yellow_and_the_gpu_is_well() -> None:
    verdict = judged(with_values(power_usage=249.0))
    assert (verdict.light, verdict.colours) == (Light.GREEN, {"power_usage": Light.YELLOW})
    assert [alert.kind for alert in verdict.alerts] == ["PowerLimit"]


def test_much_memory_is_a_note_and_a_coloured_figure_and_still_an_alert() -> None:
    """A card that serves a language model holds 90 % from morning to night."""
    verdict = judged(with_values(fb_used=21000))
    assert verdict.colours == {"fb_used": Light.YELLOW}
    assert [(alert.kind, alert.severity) for alert in verdict.alerts] == [("MemoryPressure", Severity.WARNING)]


@pytest.mark.parametrize(("used", "word", "note"), [(8192, "IDLE", "idle 5 min, memory held"), (0, "ok", "idle 5 min")])
def test_a_gpu_that_idles_is_in_trouble_only_while_somebody_holds_its_memory(used: int, word: str, note: str) -> None:
    clock = HandClock()
    andon = AndonSystem(clock=clock)
    idle = with_values(gpu_util=0, fb_used=used)
    assert judge(idle, andon, 0.0, 10.0).word == "ok"
    clock.sleep(300)
    verdict = judge(idle, andon, 0.0, 10.0)
    assert (verdict.word, verdict.notes) == (word, (note,))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (200_000, "2 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
