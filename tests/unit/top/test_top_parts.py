"""History, keys, JSON, Prometheus, the thread, and `--once` with sources that are doubles."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from services.__main__ import build_parser
from services.exporter.reading import Device, Lost, Process, Reading, SourceError, Sweep, Trouble
from services.settings import load
from services.top import local, run
from services.top.document import document
from services.top.frame import Frame, View, ViewError, Xid
from services.top.history import History
from services.top.keys import Bell, split
from services.top.serve import render
from services.top.watch import Watcher
from tests.unit.top.rows import BENCH, BUSY, NOW, frame, row, state


class Double(View):
    """Gives what it was told to, in turn; the last one for ever."""

    def __init__(self, *answers: Frame | Exception) -> None:
        self.answers = list(answers)
        self.closed = False

    @property
    def name(self) -> str:
        return "double"

    def read(self) -> Frame:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


# --- history, keys --------------------------------------------------------------------------------------------------


def test_history_is_bounded_and_keeps_gaps() -> None:
    history = History(length=3)
    for temp in (1, 2, None, 4):
        history.add(frame(row(values={} if temp is None else {"gpu_temp": temp})))
    assert history.last(row().key, "gpu_temp", 10) == [2, None, 4]
    assert history.last(row().key, "gpu_temp", 1) == [4]
    assert history.last("nobody", "gpu_temp", 5) == []
    history.add(None)
    assert history.last(row().key, "gpu_temp", 3) == [None, 4, None]


def test_history_forgets_gpus_that_are_gone() -> None:
    history = History(length=3)
    history.add(frame(row(0)))
    for _ in range(601):
        history.add(frame(row(1)))
    assert history.last(row(0).key, "gpu_temp", 3) == []
    assert len(history.last(row(1).key, "gpu_temp", 3)) == 3


def test_keys() -> None:
    assert list(split("\x1b[Bq\x1b[5~s")) == ["down", "q", "pgup", "s"]
    assert list(split("\x1b[99;99x")) == []


def test_the_bell_wakes() -> None:
    bell = Bell()
    for _ in range(100_000):
        bell.ring()  # never blocks, however often
    assert bell.wait(60.0, None) == []
    bell.close()


# --- JSON, Prometheus -----------------------------------------------------------------------------------------------


def test_the_document_says_what_is_known_and_only_that() -> None:
    of = state(
        row(0, values={**BUSY, "clocks_event_reasons": 0x24}, status=BENCH, xid=Xid(79, NOW), age=1.0,
            processes=(Process(7, "me", "python3", 512),)),
        row(1, lost="GPU is lost", values={}, age=None),
    )  # fmt: skip
    said = json.loads(json.dumps(document(of, NOW + 2)))
    busy, lost = said["gpus"]
    assert (said["source"], said["error"], said["total"]) == ("nvml", None, 2)
    assert busy["values"]["gpu_temp"] == 71
    assert "fan_speed" not in busy["values"]
    assert (busy["memory_percent"], busy["power_percent"], busy["age_seconds"]) == (35.56, 72.2, 3.0)
    assert busy["throttled"] == ["power_cap", "sw_thermal"]
    assert busy["status"] == {"tag": "bench", "memo": "gpu-burn"}
    assert busy["xid"]["code"] == 79
    assert busy["processes"][0]["pid"] == 7
    assert (lost["state"], lost["lost"], lost["values"], lost["processes"]) == ("lost", "GPU is lost", {}, None)


def test_the_document_of_a_failure_shows_no_old_values() -> None:
    of = state(row())
    of.failed("refused")
    assert document(of, NOW)["gpus"] == []
    assert document(of, NOW)["error"] == "refused"


def test_prometheus_has_the_prefix_and_the_device_and_no_unknown_value() -> None:
    status, body = render(frame(row(3, values={"gpu_temp": 71}), row(4, lost="x", values={})), "entrenar")
    assert status == 200
    assert 'entrenar_gpu_temperature_celsius{device="3"} 71' in body
    assert "utilization" not in body
    assert 'device="4"' not in body


def test_prometheus_refuses_what_it_cannot_say() -> None:
    assert render(None, "x")[0] == 503
    status, body = render(frame(row(0, host="a"), row(0, host="b")), "x")
    assert status == 503
    assert "--host" in body


# --- the thread -----------------------------------------------------------------------------------------------------


def _until(bell: threading.Event, found: Callable[[], bool]) -> None:
    while not found():
        assert bell.wait(10.0)
        bell.clear()


def test_the_watcher_goes_on_after_a_failure_and_closes_its_view() -> None:
    view, bell = Double(ViewError("a\nb"), frame(row())), threading.Event()
    told: list[object] = []

    def both() -> bool:
        told.extend(watcher.take())
        return len(told) >= 2

    with Watcher(view, 0.001, bell.set) as watcher:
        _until(bell, both)
    assert told[0] == "a b"
    assert isinstance(told[1], Frame)
    assert view.closed


def test_a_bug_in_a_view_is_raised_where_it_is_seen() -> None:
    bell = threading.Event()
    with Watcher(Double(KeyError("bug")), 60.0, bell.set) as watcher:
        assert bell.wait(10.0)
        with pytest.raises(KeyError):
            watcher.take()


# --- the command ----------------------------------------------------------------------------------------------------


def once(view: View, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(run, "open_view", lambda *_: view)
    args = build_parser("top").parse_args(["top", "--once", *flags])
    return run.run(args, load())


def test_once_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(Double(frame(row(), total=5)), monkeypatch) == 0
    head, line, more = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["HOST", "GPU", "NAME", "STATE"]
    assert line.split()[:4] == ["box", "0", "Tesla", "P40"]
    assert more == "4 more: --limit"


def test_once_fails_with_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(Double(ViewError("host:9400: refused")), monkeypatch) == 1
    assert capsys.readouterr() == ("", "gpumon top: host:9400: refused\n")


def test_once_as_json_fails_with_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert once(Double(ViewError("refused")), monkeypatch, "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"] == "refused"


@pytest.mark.parametrize("flags", [("--interval", "0"), ("--limit", "0"), ("--url", "no port")])
def test_wrong_arguments(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    args = build_parser("top").parse_args(["top", "--once", *flags])
    assert run.run(args, load()) == 2
    assert capsys.readouterr().err.startswith("gpumon top: ")


def test_only_the_hosts_asked_for() -> None:
    view = Double(frame(row(0, host="a"), row(0, host="b")))
    assert [r.host for r in run.OfHosts(view, ("b",)).read().rows] == ["b"]
    with pytest.raises(ViewError, match="shows no GPU of c, but of a, b"):
        run.OfHosts(view, ("c",)).read()


# --- GPUs of this host ----------------------------------------------------------------------------------------------


class FakeSource:
    """Reads what it is given."""

    name = "nvml"

    def __init__(self, *answers: Sweep | SourceError) -> None:
        self.answers = list(answers)

    def read(self) -> Sweep:
        answer = self.answers.pop(0)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    def close(self) -> None: ...


def sweep() -> Sweep:
    device = Device("GPU-1", 1, "00000000:31:00.0", "Tesla P40", labels={"DCGM_FI_DRIVER_VERSION": "535"})
    values = {"gpu_temp": 71, "xid_errors": 79}
    return Sweep(
        "nvml", NOW, (Reading(device, values, {}, (Process(7, "me", "x", 5),)),), (Lost("GPU is lost", index=0),)
    )


def test_a_sweep_becomes_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "open_source", lambda *_, **__: FakeSource(sweep()))
    found = local.LocalView(load(node_name="box")).read()
    lost, busy = found.rows
    assert (lost.index, lost.lost, dict(lost.values)) == (0, "GPU is lost", {})
    assert (busy.host, busy.driver, busy.values["gpu_temp"], busy.xid) == ("box", "535", 71, Xid(79))
    assert busy.processes == (Process(7, "me", "x", 5),)


def test_a_source_that_failed_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [FakeSource(SourceError(Trouble.HUNG, "hangs")), FakeSource(sweep())]
    monkeypatch.setattr(local, "open_source", lambda *_, **__: sources.pop(0))
    view = local.LocalView(load())
    with pytest.raises(ViewError, match="hangs"):
        view.read()
    assert len(view.read().rows) == 2
