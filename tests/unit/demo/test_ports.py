"""Which ports a demo takes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.demo import ports, process
from services.demo.ports import Ports
from services.demo.process import free_port
from tests.support.processes import free_port as a_port


@pytest.fixture(autouse=True)
def _own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that runs on this machine is not our affair."""
    monkeypatch.setattr(ports, "_CLAIM", f"\0gpumon-test-{a_port()}")


@pytest.fixture
def two() -> Iterator[tuple[Ports, Ports]]:
    first, second = Ports(), Ports()
    yield first, second
    first.close()
    second.close()


def test_free_ports_are_below_those_of_outgoing_connections() -> None:
    begin = process._ephemeral_begin()
    assert all(process.FIRST_PORT <= free_port() < begin for _ in range(50))


def test_also_where_the_preferred_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", a_port())) as holder:
        taken = holder.getsockname()[1]
        found = {free_port(taken) for _ in range(20)}
    assert taken not in found
    assert max(found) < process._ephemeral_begin()


@pytest.mark.parametrize(("text", "begin"), [("32768\t60999\n", 32768), ("20000 60999", 20000), ("", 32768)])
def test_where_outgoing_connections_begin(tmp_path: Path, text: str, begin: int) -> None:
    source = tmp_path / "range"
    source.write_text(text)
    assert process._ephemeral_begin(source) == begin
    assert process._ephemeral_begin(tmp_path / "nothing") == 32768


def test_a_machine_whose_range_begins_at_the_bottom_gets_a_port_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ephemeral_begin", lambda: 1024)
    assert free_port() > 1023


@pytest.mark.skipif(sys.platform != "linux", reason="abstract Unix sockets")
def test_only_the_first_demo_has_the_usual_ports(two: tuple[Ports, Ports]) -> None:
    first, second = two
    usual = a_port()
    assert (first.first, second.first) == (True, False)
    assert first.usual(usual) == usual
    assert second.usual(usual) != usual
    first.close()
    third = Ports()
    assert third.first
    third.close()


def test_the_usual_ports_differ_and_are_below_the_range() -> None:
    usual = [ports.DATABASE, *ports.METRICS.values(), 9400]
    assert len(set(usual)) == len(usual)
    assert max(usual) < 32768
