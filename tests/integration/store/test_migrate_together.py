"""Several `gpumon migrate` at once, on a native TimescaleDB: sessions and locks are real there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from services.settings import load
from services.store.migrate import Outcome, migrate
from services.store.migrations import read
from tests.support.database import settings_for, value_of

pytestmark = [pytest.mark.timescale, pytest.mark.native]


def test_one_applies_and_the_others_find_it_done(request: pytest.FixtureRequest) -> None:
    if load().timescale_dsn is None:
        pytest.skip(
            "needs a native TimescaleDB: TIMESCALE_DSN is not set, and the embedded one has one session for all"
        )
    dsn = request.getfixturevalue("timescale")
    start = threading.Barrier(4)

    def run(_number: int) -> Outcome:
        with psycopg.connect(dsn, autocommit=True) as connection:
            start.wait()
            return migrate(connection, settings_for(dsn))

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run, range(4)))
    assert sorted(len(outcome.applied) for outcome in outcomes) == [0, 0, 0, len(read())]
    assert sorted(len(outcome.policies) for outcome in outcomes) == [0, 0, 0, 15]
    with psycopg.connect(dsn) as connection:
        assert value_of(connection, "SELECT count(*) FROM schema_migrations WHERE applied_at IS NULL") == 0
