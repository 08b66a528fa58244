"""What the dashboards do in their own quicker way gives the same as the schema's functions and views."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from grafana.resolution import ERRORS, PER_GPU, Level, increases
from services.contract.catalogue import COUNTERS
from services.store.connect import Connection
from tests.integration.dashboards.dataset import DAY, HOUR, MINUTE, Dataset, begin_of
from tests.integration.dashboards.story import Story
from tests.support.grafana_dashboards import committed
from tests.support.grafana_sql import Context, TimeRange, expand

COLUMNS = [metric.column for metric in COUNTERS]
Row = tuple[Any, ...]
TICK = dt.timedelta(microseconds=1)
"""The functions leave out a bucket that begins at their end, panels show it: at whole minutes there is one."""
LADDERS = {"PER_GPU": PER_GPU, "ERRORS": ERRORS}

pytestmark = pytest.mark.timescale


@pytest.fixture(scope="module")
def data(story: Story) -> Dataset:
    return story.data


WIDTHS = {"1min": MINUTE, "1hour": HOUR, "1day": DAY}


def _everything(_: Level) -> str:
    return "WHERE true"


@pytest.mark.parametrize(
    ("ladder", "length", "function"),
    [
        ("PER_GPU", 3 * HOUR, "gpu_increases_1min"),
        ("PER_GPU", 30 * HOUR, "gpu_increases_1min"),
        ("PER_GPU", 20 * DAY, "gpu_increases_1hour"),
        ("PER_GPU", 90 * DAY, "gpu_increases_1day"),
        ("ERRORS", 20 * MINUTE, "gpu_increases_1min"),
        ("ERRORS", 6 * HOUR, "gpu_increases_1hour"),
        ("ERRORS", 7 * DAY, "gpu_increases_1day"),
    ],
)
def test_increases_are_those_of_the_functions(
    connection: Connection, data: Dataset, ladder: str, length: dt.timedelta, function: str
) -> None:
    shown = TimeRange(data.end - length, data.end)
    sql = expand(increases(COLUMNS, "m.gpu_id", _everything, LADDERS[ladder]), Context(shown, {}))
    found = sorted((r[0], r[1], *r[3:]) for r in connection.execute(sql.encode()).fetchall())
    columns = ", ".join(f"{column}_increase::float8" for column in COLUMNS)
    call = f"SELECT bucket, gpu_id, {columns} FROM {function}(%s, %s)"
    start = begin_of(shown.start, WIDTHS[function.rpartition("_")[2]])
    expected = sorted(connection.execute(call.encode(), (start, shown.end + TICK)).fetchall())
    assert expected
    assert any(any(row[2:]) for row in expected), "nothing grew: the test would say nothing"
    assert found == [row for row in expected if row[0] <= shown.end]


def test_hosts_are_those_of_the_host_kits_view(connection: Connection, data: Dataset) -> None:
    (host,) = (q for d in committed() for q in d.queries() if (d.uid, q.title) == ("gpu-telemetry", "host"))
    found = connection.execute(host.sql.encode()).fetchall()
    of_view = connection.execute("SELECT DISTINCT host FROM telemetry.gpu_telemetry ORDER BY 1").fetchall()
    assert found == of_view
    assert found
