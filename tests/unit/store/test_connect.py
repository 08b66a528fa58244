"""Connection strings and what is said when there is no database."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from services.ops.clock import SystemClock
from services.settings import load
from services.store import connect as module
from services.store.connect import StoreError, connect, connection_string


class Clock(SystemClock):
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_connection_string_names_the_role_and_bounds_the_wait() -> None:
    parts = conninfo_to_dict(connection_string("postgresql://u:p@h:1/d?application_name=other", "sink"))
    assert parts["application_name"] == "gpumon-sink"
    assert parts["connect_timeout"] == "5"
    assert (parts["user"], parts["password"], parts["host"], parts["port"], parts["dbname"]) == (
        "u",
        "p",
        "h",
        "1",
        "d",
    )


def test_a_connect_timeout_that_is_given_stays() -> None:
    assert conninfo_to_dict(connection_string("host=h connect_timeout=30", "sink"))["connect_timeout"] == "30"


def test_a_dsn_that_is_none_is_refused() -> None:
    with pytest.raises(StoreError, match="TIMESCALE_DSN is not a PostgreSQL connection string"):
        connection_string("host", "sink")


def refuse(attempts: list[str], succeed_at: int | None = None) -> object:
    def attempt(conninfo: str, **_options: object) -> object:
        attempts.append(conninfo)
        if succeed_at is not None and len(attempts) >= succeed_at:
            return "a connection"
        raise psycopg.OperationalError("connection failed:\n\tConnection refused")

    return attempt


def test_unreachable_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg, "connect", refuse([]))
    with pytest.raises(StoreError) as caught:
        connect(load(timescale_dsn="postgresql://someone:secret@db.example:5433/gpu"), "sink")
    message = str(caught.value)
    assert "someone@db.example:5433/gpu: connection failed: Connection refused" in message
    assert "PGHOST" in message
    assert "secret" not in message
    assert "\n" not in message


def test_it_waits_as_long_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []
    clock = Clock()
    monkeypatch.setattr(psycopg, "connect", refuse(attempts))
    with pytest.raises(StoreError):
        connect(load(timescale_dsn="host=h"), "sink", wait=10, clock=clock)
    assert clock.now == pytest.approx(10, abs=module.RETRY_SECONDS)
    assert len(attempts) == 1 + 10 / module.RETRY_SECONDS


def test_it_connects_once_the_server_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []
    monkeypatch.setattr(psycopg, "connect", refuse(attempts, succeed_at=3))
    assert str(connect(load(timescale_dsn="host=h"), "sink", wait=10, clock=Clock())) == "a connection"
    assert len(attempts) == 3
