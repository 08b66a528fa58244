"""History, keys, JSON, Prometheus, the thread, and `--once` with sources that are doubles."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from services.__main__ import build_parser
from services.andon import AndonSystem
from services.contract.event import Status
from services.exporter.reading import Device, Lost, Process, Reading, SourceError, Sweep, Trouble
from services.settings import load
from services.top import local, run
from services.top.document import document
from services.top.frame import Frame, View, ViewError, Xid
from services.top.history import History
from services.top.keys import Bell, split
from services.top.screen import State
from services.top.serve import render
from services.top.stream import Printer, plain, show
from services.top.watch import Watcher
from tests.unit.top.rows import BENCH, BUSY, NOW, HandClock, frame, row, state
from tests.unit.top.test_screen import text_of


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
    status, body = render(state(row(3, values={"gpu_temp": 71}), row(4, lost="x", values={})), "entrenar", NOW)
    assert status == 200
    assert 'entrenar_gpu_temperature_celsius{device="3"} 71' in body
    assert "utilization" not in body
    assert 'device="4"' not in body


def test_prometheus_refuses_what_it_cannot_say() -> None:
    assert render(state(), "x", NOW)[0] == 503
    status, body = render(state(row(0, host="a"), row(0, host="b")), "x", NOW)
    assert status == 503
    assert "--host" in body
    failed = state(row())
    failed.failed("no driver")
    assert render(failed, "x", NOW) == (503, "the GPUs cannot be read at the moment: no driver\n")


@pytest.mark.parametrize("age", [0.0, None])
def test_prometheus_serves_no_stale_value_while_the_source_hangs(age: float | None) -> None:
    of = state(row(age=age))
    assert render(of, "x", NOW + 10)[0] == 200
    status, body = render(of, "x", NOW + 11)
    assert (status, body) == (503, "nvml: the newest values are 11 s old, which is not the present\n")


def test_prometheus_leaves_out_the_gpus_whose_values_are_stale() -> None:
    status, body = render(state(row(0, age=1.0), row(1, age=60.0)), "x", NOW)
    assert status == 200
    assert 'device="0"' in body
    assert 'device="1"' not in body


# --- the stream -----------------------------------------------------------------------------------------------------


def test_a_stream_says_stale_while_the_source_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    clock = HandClock()
    printer = Printer(state(), clock, as_json=False)
    printer.step([frame(row())])
    assert "ok" in capsys.readouterr().out
    for _ in range(20):
        clock.sleep(0.5)
        printer.step([])
    assert capsys.readouterr().out == "", "not before it is stale"
    clock.sleep(0.5)
    printer.step([])
    said = capsys.readouterr().out
    assert "STALE" in said
    assert "last seen 10 s ago" in said
    printer.step([])
    assert capsys.readouterr().out == ""
    clock.sleep(11)
    printer.step([])
    assert "last seen 22 s ago" in capsys.readouterr().out
    printer.step([frame(row(), time=NOW + clock.now)])
    assert "STALE" not in capsys.readouterr().out


def test_a_stream_says_that_nothing_ever_came(capsys: pytest.CaptureFixture[str]) -> None:
    clock, of = HandClock(), state()
    printer = Printer(of, clock, as_json=False)
    for seconds in (11, 22):
        clock.sleep(11)
        printer.step([])
        assert f"gpumon top: nvml has not answered for {seconds} s\n" in capsys.readouterr().err
    printer.step([frame(row(), time=NOW + clock.now)])
    assert of.error is None
    assert "ok" in capsys.readouterr().out


def test_a_stream_of_documents_says_stale_too(capsys: pytest.CaptureFixture[str]) -> None:
    clock = HandClock()
    printer = Printer(state(), clock, as_json=True)
    printer.step([frame(row())])
    clock.sleep(11)
    printer.step([])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["gpus"][0]["state"], second["gpus"][0]["state"]) == ("ok", "stale")
    assert second["gpus"][0]["age_seconds"] == 11


# --- text from elsewhere --------------------------------------------------------------------------------------------

EVIL = "a\x1b[2J\nb\x9b31m\u202ec\x07\r"


def evil() -> State:
    processes = (Process(7, EVIL, EVIL, 5, EVIL),)
    status = Status(tag=EVIL, memo=EVIL)
    return state(
        row(0, model=EVIL, pci_bus_id=EVIL, driver=EVIL, status=status, processes=processes, host=EVIL),
        row(1, lost=EVIL, values={}, host=EVIL, instance_profile=EVIL, instance_id=1),
    )


@pytest.mark.parametrize(("width", "height"), [(120, 40), (60, 8)])
def test_no_control_character_reaches_the_screen(width: int, height: int) -> None:
    for of in (evil(), evil()):
        of.source = EVIL
        lines = text_of(of, width, height)
        assert len(lines) == height
        assert not [c for line in lines for c in line if not c.isprintable()]
        of.failed(EVIL)
        assert not [c for line in text_of(of, width, height) for c in line if not c.isprintable()]
    of = State(EVIL, 2.0, 10.0, AndonSystem(clock=HandClock()))
    assert all(line.isprintable() for line in text_of(of))


def test_no_control_character_reaches_the_plain_table_and_a_gpu_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = plain(evil(), NOW)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    of = state()
    of.failed(EVIL)
    show(of, NOW, as_json=False)
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_json_keeps_what_was_said_and_escapes_it(capsys: pytest.CaptureFixture[str]) -> None:
    show(evil(), NOW, as_json=True)
    said = capsys.readouterr().out
    assert said.removesuffix("\n").isprintable()
    assert json.loads(said)["gpus"][0]["model"] == EVIL


def test_the_document_is_json_whatever_the_age() -> None:
    of = state(row(age=float("inf")))
    said = json.loads(json.dumps(document(of, NOW), allow_nan=False))
    assert (said["gpus"][0]["state"], said["gpus"][0]["age_seconds"]) == ("stale", None)


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


@pytest.mark.parametrize(
    "flags",
    [("--interval", "0"), ("--interval", "inf"), ("--interval", "nan"), ("--interval", "1e300"), ("--limit", "0"),
     ("--port", "70000"), ("--port", "-1"), ("--url", "no port")],
)  # fmt: skip
def test_wrong_arguments(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    args = build_parser("top").parse_args(["top", "--once", *flags])
    assert run.run(args, load()) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpumon top: ")
    assert said.count("\n") == 1


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
