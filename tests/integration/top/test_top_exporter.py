"""`gpumon top --url`: the mock exporter, our own series, and exporters in trouble. And `gpumon top` in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mock_dcgm.fleet import build, spread
from services.__main__ import CLOSED_PIPE, main
from services.exporter import own_series
from services.settings import load
from services.top.exporter import ExporterView
from services.top.frame import Frame, ViewError, Xid
from tests.support.processes import free_port, wait_until

IDENTITY = 'gpu="0",UUID="GPU-0",pci_bus_id="00000000:31:00.0",device="nvidia0",modelName="Tesla P40",Hostname="box"'
LOST = 'gpu="1",UUID="GPU-1",pci_bus_id="00000000:32:00.0",modelName="Tesla P40",Hostname="box",reason="GPU is lost"'
OURS = (
    f"DCGM_FI_DEV_GPU_TEMP{{{IDENTITY}}} 71\n"
    + own_series.GPU_INFO.block([(f'{IDENTITY},driver_version="535"', "1")])
    + own_series.GPU_LOST.block([(LOST, "1")])
    + own_series.XID_LAST.block([(f'{IDENTITY},xid="43"', "100.0"), (f'{IDENTITY},xid="79"', "200.0")])
    + own_series.PROCESS_MEMORY.block([(f'{IDENTITY},pid="7",user="me",command="py \\"x\\"",type="C"', "536870912")])
    + own_series.AGE.block([("", "2.5")])
).encode()


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """An exporter that always says the same; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_our_exporter_says_of_its_gpus(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"tag": "bench", "memo": "gpu-burn"}')
    with serving(200, OURS) as address:
        view = ExporterView(address, load(status_file=tmp_path / "status.json"))
        busy, lost = view.read().rows
        view.close()
    assert (busy.host, busy.index, busy.driver, dict(busy.values)) == ("box", 0, "535", {"gpu_temp": 71})
    assert (busy.age, busy.xid) == (2.5, Xid(79, 200.0))
    assert busy.status is not None
    assert busy.status.tag == "bench"
    assert busy.processes is not None
    (process,) = busy.processes
    assert (process.pid, process.user, process.command, process.used_memory) == (7, "me", 'py "x"', 512)
    assert (lost.index, lost.uuid, lost.lost, dict(lost.values)) == (1, "GPU-1", "GPU is lost", {})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"no", "HTTP 503"),
        (200, b"", "the body is empty"),
        (200, b"<html>hello</html>\n", "line 1"),
        (200, b"up 1\n", "no DCGM_"),
        (200, own_series.AGE.block([("", "45.0")]).encode(), "no fresh reading of the GPUs: its last one is 45 s old"),
        (200, b"x" * 5000, "larger than MAX_SCRAPE_BYTES=4096"),
    ],
)
def test_an_exporter_in_trouble_is_a_clear_line(status: int, body: bytes, said: str) -> None:
    with serving(status, body) as address:
        view = ExporterView(address, load(max_scrape_bytes=4096))
        with pytest.raises(ViewError, match=said) as error:
            view.read()
        view.close()
    assert str(error.value).startswith(address)


def test_only_lost_gpus_are_shown_too() -> None:
    with serving(200, own_series.GPU_LOST.block([(LOST, "1")]).encode()) as address:
        view = ExporterView(address, load())
        assert [row.lost for row in view.read().rows] == ["GPU is lost"]
        view.close()


# --- what our series should not say ---------------------------------------------------------------------------------

FINE = f"DCGM_FI_DEV_GPU_TEMP{{{IDENTITY}}} 71\n"


def read(body: str) -> Frame:
    with serving(200, body.encode()) as address:
        view = ExporterView(address, load())
        try:
            return view.read()
        finally:
            view.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('gpumon_xid_last_timestamp_seconds{UUID="GPU-0",xid="foo"} 1.7e9', None),
        ('gpumon_xid_last_timestamp_seconds{UUID="GPU-0",xid="\u00b2"} 1.7e9', None),
        ('gpumon_xid_last_timestamp_seconds{UUID="GPU-0",xid="79"} NaN', Xid(79, None)),
        ('gpumon_xid_last_timestamp_seconds{UUID="GPU-0",xid="79"} 1e300', Xid(79, None)),
    ],
)
def test_an_odd_xid_is_left_out_or_has_no_time(line: str, expected: Xid | None) -> None:
    (row,) = read(f"{FINE}{line}\n").rows
    assert row.xid == expected


@pytest.mark.parametrize("said", ['pid="x"} 5', 'pid="\u00b2"} 5', "} 5", f'pid="{"9" * 5000}"}} 5'])
def test_a_process_without_a_number_is_none(said: str) -> None:
    (row,) = read(f'{FINE}gpumon_process_used_memory_bytes{{UUID="GPU-0",{said}\n').rows
    assert row.processes == ()


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-5", "1e300"])
def test_a_process_of_absurd_memory_has_none_that_is_known(value: str) -> None:
    (row,) = read(f'{FINE}gpumon_process_used_memory_bytes{{UUID="GPU-0",pid="5",command="a"}} {value}\n').rows
    assert row.processes is not None
    assert [(p.pid, p.used_memory) for p in row.processes] == [(5, None)]


def test_a_gpu_of_odd_number_is_lost_all_the_same() -> None:
    lost = [row for row in read(FINE + 'gpumon_gpu_lost{gpu="\u00b2",UUID="GPU-2",reason="x"} 1\n').rows if row.lost]
    assert [(row.uuid, row.index) for row in lost] == [("GPU-2", None)]


@pytest.mark.parametrize("value", ["0", "-1", "NaN"])
def test_what_is_not_said_to_be_lost_is_not(value: str) -> None:
    assert [row.lost for row in read(f'{FINE}gpumon_gpu_lost{{gpu="1",UUID="GPU-2",reason="x"}} {value}\n').rows] == [
        None
    ]


@pytest.mark.parametrize(
    ("value", "age"), [("NaN", None), ("-5000", None), ("2.5", 2.5), ("+Inf", float("inf")), ("1e300", 1e300)]
)
def test_the_age_is_known_or_not(value: str, age: float | None) -> None:
    assert [row.age for row in read(f"{FINE}gpumon_exporter_reading_age_seconds {value}\n").rows] == [age]


@pytest.mark.parametrize("line", ['gpumon_gpu_lost{gpu="1"', "gpumon_gpu_info{{{}}} x", "gpumon_gpu_lost{a=b} 1"])
def test_a_malformed_line_of_ours_is_a_clear_line(line: str) -> None:
    lost = own_series.GPU_LOST.block([(LOST, "1")])
    with pytest.raises(ViewError, match="line 5 is neither a comment nor a sample"):
        read(f"{FINE}{lost}{line}\n")


def test_hostile_text_is_shown_without_its_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    body = FINE.replace("Tesla P40", "ev\x1b[2Jil [red]") + own_series.GPU_LOST.block(
        [('gpu="1",UUID="GPU-1",Hostname="box",reason="a\\nb \x1b[31m [/foo]"', "1")]
    )
    with serving(200, body.encode()) as address:
        assert main(["top", "--once", "--url", address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "[red]" in lines[1]
    assert lines[2].endswith("[/foo]")


def test_credentials_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://me:secret@127.0.0.1:{free_port()}/metrics"
    assert main(["top", "--once", "--url", url]) == 1
    assert main(["top", "--once", "--json", "--url", url]) == 1
    told = capsys.readouterr()
    assert "Connection refused" in told.err
    assert "secret" not in told.err + told.out


# --- processes ------------------------------------------------------------------------------------------------------


@contextmanager
def mock(port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "services", "mock", "--port", str(port), "--gpus", "2", "--model", "P40",
               "--interval", "0.5"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1):
            return True
        return False

    try:
        wait_until(answers, within=30, what="an answer of the mock")
        yield process
    finally:
        process.kill()
        process.wait()


class Terminal:
    """`gpumon top` in a pseudo-terminal."""

    def __init__(self, columns: int, rows: int, *flags: str) -> None:
        self.screen = b""
        master, slave = pty.openpty()
        self._master = master
        self.resize(columns, rows)
        self._slave = slave
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}  # noqa: TID251
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services", "top", *flags], stdin=slave, stdout=slave, stderr=subprocess.PIPE,
            env=environment, start_new_session=True,
        )  # fmt: skip

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def until(self, said: str, *, within: float = 30.0) -> str:
        """Reads on until `said` is shown; gives what came up to there, and forgets it."""
        deadline = time.monotonic() + within
        while said.encode() not in self.screen:
            assert time.monotonic() < deadline, (said, self.screen[-3000:].decode(errors="replace"))
            if select.select([self._master], [], [], 0.2)[0]:
                self.screen += os.read(self._master, 65_536)
        end = self.screen.index(said.encode()) + len(said.encode())
        shown, self.screen = self.screen[:end], self.screen[end:]
        return shown.decode(errors="replace")

    def settings_now(self) -> list[object]:
        return list(termios.tcgetattr(self._slave))

    def close(self) -> str:
        """Ends it if it has not; what it said on stderr."""
        if self.process.poll() is None:
            self.process.kill()
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
        return said


@pytest.fixture
def port() -> int:
    return free_port()


def test_the_screen_stays_through_resizes_and_outages_and_leaves_the_terminal_as_it_was(port: int) -> None:
    served = free_port()
    terminal = Terminal(
        120, 40, "--url", f"127.0.0.1:{port}", "--interval", "0.2", "--prometheus", "--port", str(served)
    )
    try:
        shown = terminal.until("Connection refused")
        assert "\x1b[?1049h" in shown  # the alternate screen
        with mock(port):
            terminal.until("● 2 ok")
            assert "╭" in terminal.until("Tesla P40")
            terminal.until("q quit")
            with urllib.request.urlopen(f"http://127.0.0.1:{served}/metrics", timeout=5) as answer:
                assert b'gpumon_gpu_temperature_celsius{device="0"}' in answer.read()
            terminal.resize(60, 12)
            os.kill(terminal.process.pid, signal.SIGWINCH)
            terminal.until("STATE")
            terminal.type(b"s")
            terminal.until("s sort: \x1b[0mtemp")
        terminal.until("trying again")
        terminal.type(b"q")
        assert terminal.process.wait(10) == 0
        assert terminal.settings_now() == list(terminal.before)
        terminal.until("\x1b[?1049l")
    finally:
        assert terminal.close() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(port: int, number: signal.Signals) -> None:
    terminal = Terminal(80, 24, "--url", f"127.0.0.1:{port}", "--interval", "0.2")
    try:
        terminal.until("trying again")
        terminal.process.send_signal(number)
        assert terminal.process.wait(10) == 0
        assert terminal.settings_now() == list(terminal.before)
    finally:
        assert terminal.close() == ""


def test_without_a_terminal_it_prints_tables_until_it_is_told_to_stop(port: int) -> None:
    with mock(port):
        command = [sys.executable, "-m", "services", "top", "--url", f"127.0.0.1:{port}", "--interval", "0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            heads = 0
            while heads < 2:
                line = process.stdout.readline()
                assert "\x1b" not in line
                heads += line.startswith("HOST")
            process.terminate()
            process.communicate(timeout=10)
            assert process.returncode == 0


def test_json_is_a_document_a_line_and_a_reader_may_go_away(port: int) -> None:
    with mock(port):
        command = [sys.executable, "-m", "services", "top", "--url", f"127.0.0.1:{port}", "--interval", "0.1", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            gpus = json.loads(process.stdout.readline())["gpus"]
            process.stdout.close()
            assert process.wait(10) == CLOSED_PIPE
            assert process.stderr.read() == ""
    boards = build(spread(2, 1, [("P40", 1)], "cycle", 0)).gpus
    assert [gpu["uuid"] for gpu in gpus] == [board.uuid for board in boards]
    assert all("memory_temp" not in gpu["values"] for gpu in gpus)
    assert all(gpu["processes"] is None for gpu in gpus)
