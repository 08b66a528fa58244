"""`gpumon top --database` on a real TimescaleDB."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from services.__main__ import main
from services.store.connect import Connection
from services.top.database import DatabaseView
from services.top.frame import ViewError, Xid
from tests.support.database import empty, insert, migrated, register, settings_for, value_of

pytestmark = pytest.mark.timescale

SECOND = dt.timedelta(seconds=1)
Look = Callable[..., DatabaseView]


@pytest.fixture(scope="module")
def shared(timescale: str) -> Iterator[tuple[Connection, str]]:
    with pytest.raises(ViewError, match="run `gpumon migrate`"):
        DatabaseView(settings_for(timescale), (), 10).read()
    with migrated(timescale) as connection:
        yield connection, timescale


@pytest.fixture
def connection(shared: tuple[Connection, str]) -> Connection:
    empty(shared[0])
    return shared[0]


@pytest.fixture
def look(dsn: str) -> Iterator[Look]:
    """Makes views, and closes them."""
    with ExitStack() as stack:
        yield lambda *hosts, limit=10: stack.enter_context(closing(DatabaseView(settings_for(dsn), hosts, limit)))


@pytest.fixture
def dsn(shared: tuple[Connection, str]) -> str:
    return shared[1]


def fill(connection: Connection, count: int = 4) -> list[int]:
    """GPUs of two hosts, each 10 C hotter than the one before, measured n seconds ago."""
    now = value_of(connection, "SELECT now()")
    gpus = [
        register(connection, now - 60 * SECOND, uuid=f"GPU-{n}", hostname=f"host-{n % 2}", index=n, model="Tesla P40",
                 driver_version="535", properties={"fb_total": 23_040})
        for n in range(count)
    ]  # fmt: skip
    insert(connection, [
        {"time": now - n * SECOND, "gpu_id": gpu, "gpu_temp": 30 + 10 * n, "fb_used": 1024, "status_tag": "bench",
         "status_memo": "m"}
        for n, gpu in enumerate(gpus)
    ])  # fmt: skip
    connection.execute("SELECT refresh_gpu_latest()")
    return gpus


def test_the_hottest_come_first_up_to_the_limit(connection: Connection, look: Look) -> None:
    fill(connection)
    view = look(limit=3)
    frame = view.read()
    assert [row.values["gpu_temp"] for row in frame.rows] == [60, 50, 40]
    assert frame.total == 4
    hot = frame.rows[0]
    assert (hot.host, hot.index, hot.model, hot.driver, hot.uuid) == ("host-1", 3, "Tesla P40", "535", "GPU-3")
    assert dict(hot.values) == {"gpu_temp": 60, "fb_used": 1024, "fb_total": 23_040}
    assert hot.status is not None
    assert (hot.status.tag, hot.status.memo) == ("bench", "m")
    assert hot.age == pytest.approx(3.0, abs=30.0)
    assert (hot.lost, hot.xid, hot.processes) == (None, None, None)


def test_only_the_hosts_asked_for(connection: Connection, look: Look) -> None:
    fill(connection)
    assert {row.host for row in look("host-1").read().rows} == {"host-1"}
    with pytest.raises(ViewError, match="knows no GPU of nowhere"):
        look("nowhere").read()


def test_lost_gpus_and_xids_come_from_the_events(connection: Connection, look: Look) -> None:
    gpus = fill(connection)
    connection.execute(
        """
        INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, code, detail) VALUES
            (now() + interval '1 s', 'gpu_lost', %(a)s, 'GPU-0', 0, '{"reason": "GPU is lost"}'),
            (now() + interval '1 s', 'gpu_lost', %(b)s, 'GPU-1', 0, NULL),
            (now() + interval '2 s', 'gpu_returned', %(b)s, 'GPU-1', 0, NULL),
            (now() - interval '90 s', 'gpu_lost', %(c)s, 'GPU-2', 0, NULL),
            (now() - interval '3 min', 'xid', %(b)s, 'GPU-1', 43, NULL),
            (now() - interval '2 min', 'xid', %(b)s, 'GPU-1', 79, NULL),
            (now() - interval '2 d', 'xid', %(c)s, 'GPU-2', 79, NULL)
        """,
        {"a": gpus[0], "b": gpus[1], "c": gpus[2]},
    )
    rows = {row.uuid: row for row in look().read().rows}
    assert next(iter(rows)) == "GPU-0"
    assert (rows["GPU-0"].lost, dict(rows["GPU-0"].values)) == ("GPU is lost", {})
    assert rows["GPU-1"].lost is None  # it came back
    assert rows["GPU-2"].lost is None  # it has been measured since
    found = rows["GPU-1"].xid
    assert isinstance(found, Xid)
    assert found.code == 79
    assert rows["GPU-2"].xid is None


def test_an_empty_database_is_an_empty_table(connection: Connection, look: Look) -> None:
    frame = look().read()
    assert (frame.rows, frame.total) == ((), 0)


def test_a_connection_that_was_cut_is_made_anew(connection: Connection, look: Look) -> None:
    fill(connection)
    view = look()
    view.read()
    assert view._connection is not None
    view._connection.close()
    with pytest.raises(ViewError, match="connection is closed"):
        view.read()
    assert len(view.read().rows) == 4


def test_the_command(connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    fill(connection)
    monkeypatch.setenv("TIMESCALE_DSN", dsn)
    assert main(["top", "--database", "--once", "--json", "--limit", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [gpu["gpu"] for gpu in said["gpus"]] == [3, 2]
    assert said["total"] == 4
    assert "gpu_monitor:" not in said["source"]
    monkeypatch.setenv("TIMESCALE_DSN", "postgresql://u:secret@127.0.0.1:1/x")
    assert main(["top", "--database", "--once"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot connect" in told.err
    assert "secret" not in told.err
