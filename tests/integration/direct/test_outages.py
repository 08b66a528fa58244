"""The database refusing, killed, frozen and locked in the middle: everything ends up in the table, once."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from tests.integration.direct.harness import Box
from tests.support import plain_schema
from tests.support.native_postgres import NativePostgres

pytestmark = pytest.mark.native


def test_killed_in_the_middle(native: NativePostgres, native_box: Box) -> None:
    box = native_box
    box.offer(*range(10))
    box.until_home()
    native.kill()
    try:
        box.offer(*range(10, 20))
        box.until(lambda: box.spool.records == 80, "the spool")
        assert b"database_unreachable" in next(box.spool_dir.glob("*.spool")).read_bytes()
        box.offer(20)
    finally:
        native.start()
    box.until_home()
    assert box.numbers() == box.expected(*range(21))
    assert box.deliverer.counts.accepted == 8 * 21


def test_connections_terminated_while_rows_flow(native: NativePostgres, native_box: Box) -> None:
    box = native_box
    with psycopg.connect(native.dsn, autocommit=True) as other:
        for number in range(60):
            box.offer(number)
            box.deliverer.step()
            if number % 10 == 5:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gpumon-collector'"
                )
    box.until_home()
    assert box.numbers() == box.expected(*range(60))


def test_frozen_it_delays_no_scrape(native: NativePostgres, native_box: Box) -> None:
    box = native_box
    box.offer(0)
    box.until_home()
    with psycopg.connect(native.dsn, autocommit=True) as other:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'gpumon-collector'"
        processes = [native.pid, *(int(row[0]) for row in other.execute(query))]
    longest = 0.0
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        for number in range(1, 10):
            box.offer(number)
            began = time.monotonic()
            box.deliverer.step()
            longest = max(longest, time.monotonic() - began)
        box.until(lambda: box.spool.records == 72, "the spool")
        assert b"database_hangs" in next(box.spool_dir.glob("*.spool")).read_bytes()
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert longest < 0.5, "a turn does not wait for the database"
    box.until_home()
    assert box.numbers() == box.expected(*range(10)), "what was in flight may be written and sent again: once there"


def test_locked_it_is_not_besieged(native: NativePostgres, native_box: Box) -> None:
    """Each attempt that was given up is ended by the server too: none of them waits for the lock for ever."""
    box = native_box
    box.offer(0)
    box.until_home()
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gpumon-collector'"
    with psycopg.connect(native.dsn) as other:
        other.execute("LOCK TABLE gpu_metrics IN ACCESS EXCLUSIVE MODE")
        box.offer(1, 2)
        box.until(lambda: box.bus.errors.total() > 60, "several attempts that failed")
        assert box.rows(ours)[0][0] <= 2
    box.until_home()
    assert box.numbers() == box.expected(0, 1, 2)


def test_a_database_made_anew_gets_the_gpus_anew(native: NativePostgres, native_box: Box) -> None:
    """Ids that were remembered mean nothing there: rows must not go to another GPU."""
    box = native_box
    box.offer(0)
    box.until_home()
    native.restart()
    plain_schema.fresh(native.dsn).close()
    box.gpus.reverse()
    box.offer(1)
    box.until_home()
    assert box.numbers() == box.expected(1)
