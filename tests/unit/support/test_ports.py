"""Ports of servers under test: the workers of one run, and the servers of one worker, are never given the same."""

from __future__ import annotations

import socket

import pytest

from tests.support import processes


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_workers_share_no_port(workers: int) -> None:
    ports = [port for worker in range(workers) for port in processes.ports_of(f"gw{worker}", workers)]
    assert len(ports) == len(set(ports))
    assert processes.FIRST_PORT <= min(ports) <= max(ports) <= processes.LAST_PORT < 32768


def test_a_port_is_given_once_and_is_free() -> None:
    share = range(processes.LAST_PORT + 1, processes.LAST_PORT + 21)  # nobody's
    ports = processes.Ports(share)
    with socket.create_server(("127.0.0.1", share[0])):
        given = [ports.free() for _ in share[1:]]
    assert sorted(given) == list(share[1:])


def test_this_run_gives_every_worker_its_own(request: pytest.FixtureRequest) -> None:
    worker = getattr(request.config, "workerinput", {"workerid": "gw0", "workercount": 1})
    assert processes.free_port() in processes.ports_of(worker["workerid"], worker["workercount"])
