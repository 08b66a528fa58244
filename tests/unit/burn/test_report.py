"""What is told of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.burn import report as reporting
from services.burn.drive import Now, Outcome, Result
from services.burn.gpu_burn import Findings
from services.burn.journal import Journal
from services.burn.plan import Phase
from services.burn.screen import clock_text, plain_line, trouble
from services.contract.event import Status
from services.host.live import Look, State
from services.host.series import Sample
from services.host.telemetry import Gpu, Telemetry
from services.settings import Settings, load
from tests.support.clock import HandClock

BEGIN = 1_760_000_000.0


def live(until: float = 400.0) -> Telemetry:
    series = [Sample(BEGIN + t, 60.0, 240.0, 0x4, None, 1303) for t in range(-60, int(until))]
    return Telemetry("live readings", {"GPU-1": Gpu("GPU-1", 0, "Tesla P40")}, {"GPU-1": series})


def settings(tmp_path: Path) -> Settings:
    return load(spool_dir=tmp_path / "spool", pghost="127.0.0.1", pgport=1, node_name="box", collection_interval=1)


def test_without_database_and_spool_the_live_readings_tell(tmp_path: Path) -> None:
    outcome = Outcome(begin=BEGIN, end=BEGIN + 300)
    report = reporting.report_of(settings(tmp_path), outcome, live(), HandClock(1_760_000_000.0), None)
    assert report.origin == "live readings"
    assert len(report.notes) == 2
    [(gpu, summary)] = report.gpus
    assert (gpu.model, summary.steady, summary.throttled.power) == ("Tesla P40", 60, 300)
    text = reporting.text(outcome, report)
    assert "60 C  60 C  60.0 C        0 s  300 s (power 300)  240.0 W  20.00 Wh  0.000" in text
    document = reporting.as_dict(outcome, report, {}, "x.log")
    assert json.loads(json.dumps(document))["gpus"][0]["energy"]["method"] == "power"


def test_a_narrow_terminal_gets_a_block_per_gpu_with_the_same_values(tmp_path: Path) -> None:
    outcome = Outcome(begin=BEGIN, end=BEGIN + 300)
    report = reporting.report_of(settings(tmp_path), outcome, live(), HandClock(1_760_000_000.0), None)
    lines = reporting.text(outcome, report, 80).splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80, "a path is not cut"
    assert lines[lines.index("  GPU 0 Tesla P40, under load") + 1 :][:3] == [
        "    start 60 C, peak 60 C, steady 60.0 C, to steady 0 s",
        "    throttled 300 s (power 300), mean 240.0 W, energy 20.00 Wh, C/W 0.000",
        "    samples 301, gaps 0",
    ]
    wide = reporting.text(outcome, report)
    assert reporting.text(outcome, report, 300) == wide
    assert max(map(len, wide.splitlines())) > 80


def test_a_load_that_was_not_started_has_no_summary(tmp_path: Path) -> None:
    outcome = Outcome(Result.INTERRUPTED, "SIGINT received")
    report = reporting.report_of(settings(tmp_path), outcome, live(), HandClock(1_760_000_000.0), None)
    assert reporting.text(outcome, report).splitlines() == [
        "result: interrupted: SIGINT received",
        "  the load was not started",
        "  no samples: nothing can be said of temperatures and watts",
    ]


def test_a_reason_is_told_once_for_all_gpus(tmp_path: Path) -> None:
    gpus = {f"GPU-{n}": Gpu(f"GPU-{n}", n, "T4") for n in range(3)}
    short = [Sample(BEGIN + t, 60.0, 70.0) for t in range(60)]
    cold = [Sample(BEGIN + t, 60.0) for t in range(60)]
    both = Telemetry("live readings", gpus, {"GPU-0": short, "GPU-1": short, "GPU-2": cold})
    outcome = Outcome(begin=BEGIN, end=BEGIN + 50, findings=Findings(verdicts={0: "OK"}))
    text = reporting.text(
        outcome, reporting.report_of(settings(tmp_path), outcome, both, HandClock(1_760_000_000.0), None)
    )
    assert text.count("steady unknown: the load ran for less than 120 s") == 1
    assert "mean_watts unknown of GPU 2: no power readings under load" in text
    assert "gpu_burn GPU 0: OK" in text


def now(state: State | None, elapsed: float = 61) -> Now:
    phase = Phase("burn", Status(tag="bench"), 900)
    return Now(phase, 2, 4, elapsed, 1439, state, "")


def test_a_plain_line() -> None:
    look = Look(Gpu("GPU-1", 0, "P40"), Sample(1, 71, 248.4, 0x4 | 0x1, None, 1303))
    line = plain_line(now(State((look,), 0.5, None, 9)))
    assert line == "burn 61 of 900 s, 23:59 left: GPU 0 71 C 248 W 1303 MHz power_cap"
    bare = Look(Gpu("GPU-1", 0, "P40"), Sample(1))
    assert plain_line(now(State((bare,), 0.5, None, 9))).endswith(": GPU 0 ? C")


def test_trouble_is_told() -> None:
    assert trouble(State((), None, "no driver", 0)) == "no temperature: no driver"
    assert trouble(State((), None, None, 0)) == "no temperature: waiting for the driver"
    assert trouble(State((), 35.2, None, 3)) == "last reading 35 s ago"
    assert trouble(State((), 1.0, None, 3)) == ""
    assert plain_line(now(None)) == "burn 61 of 900 s, 23:59 left"


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3600, "1:00:00"), (3725.4, "1:02:05")])
def test_times(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_of_the_loads_progress_the_log_keeps_one_line_in_ten_seconds(tmp_path: Path) -> None:
    clock = HandClock(1_760_000_000.0)
    journal = Journal(tmp_path, "burn-1", clock)
    for n in range(100):
        clock.now = BEGIN + n / 4
        journal.load_said(f"{n}.0%  proc'd: {n} (1 Gflop/s)   errors: 0 ")
    journal.load_said("99.0%  proc'd: 99 (1 Gflop/s)   errors: 1  (WARNING!)")
    journal.load_said("\tGPU 0: FAULTY")
    journal.close()
    lines = journal.path.read_text().splitlines()
    assert len(lines) == 3 + 2
    assert lines[-1].endswith("| \tGPU 0: FAULTY")
    assert journal.progress == "99.0% proc'd: 99 (1 Gflop/s) errors: 1 (WARNING!)"


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "burn-1", HandClock(1_760_000_000.0))
    shown: list[str] = []
    journal.show_on(shown.append)
    journal.close()
    journal._file = full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - the journal's from now on
    journal.tell("one")
    journal.tell("two")
    assert len(shown) == 3
    assert "cannot be written any more (No space left on device)" in shown[0]
    assert shown[1:] == ["one", "two"]
    full.close()
