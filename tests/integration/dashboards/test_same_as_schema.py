"""What the dashboards do in their own quicker way gives the same as the schema's functions and views."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from grafana.fleet_errors import fleet_increases
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
    sql = expand(increases(COLUMNS, _everything, LADDERS[ladder]), Context(shown, {}))
    found = sorted((r[0], r[1], *r[3:]) for r in connection.execute(sql.encode()).fetchall())
    columns = ", ".join(f"{column}_increase::float8" for column in COLUMNS)
    call = f"SELECT bucket, gpu_id, {columns} FROM {function}(%s, %s)"
    start = begin_of(shown.start, WIDTHS[function.rpartition("_")[2]])
    expected = sorted(connection.execute(call.encode(), (start, shown.end + TICK)).fetchall())
    assert expected
    assert any(any(row[2:]) for row in expected), "nothing grew: the test would say nothing"
    assert found == [row for row in expected if row[0] <= shown.end]


# --- the fleet's, of which the newest two buckets are not put together from samples ----------------------------------

A100, INSTANCE = 4, 8
"""gpu_id of a GPU that reports and of which no counter restarted today, and of a MIG instance."""
UNUSUAL = {
    "as it is": (),
    "a restart was written down": (
        f"""INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source)
        SELECT now() - INTERVAL '1 minute', 'counter_reset', gpu_id, gpu_uuid, hostname, 'test' FROM gpus
        WHERE gpu_id = {A100}""",
        f"""UPDATE gpu_metrics SET pcie_replay_counter = 0, counter_resets = '{{"pcie_replay_counter": 1000000}}'
        WHERE gpu_id = {A100} AND time = (SELECT time FROM gpu_latest WHERE gpu_id = {A100})""",
    ),
    "a restart nobody saw": (
        f"UPDATE gpu_metrics SET ecc_sbe_vol_total = 0 WHERE gpu_id = {A100} AND time > now() - INTERVAL '3 minutes'",
    ),
    "unknown of late": (
        f"""UPDATE gpu_metrics SET pcie_replay_counter = NULL
        WHERE gpu_id = {A100} AND time > now() - INTERVAL '3 minutes'""",
    ),
    "it grew": (
        f"""UPDATE gpu_metrics SET pcie_replay_counter = pcie_replay_counter + 7
        WHERE gpu_id = {A100} AND time > now() - INTERVAL '1 minute'""",
    ),
    "dated ahead": (
        f"""INSERT INTO gpu_metrics SELECT ahead.* FROM gpu_latest l JOIN gpu_metrics m USING (gpu_id, time),
        jsonb_populate_record(m, jsonb_build_object('time', m.time + INTERVAL '70 minutes')) ahead
        WHERE l.gpu_id = {INSTANCE}""",
        f"UPDATE gpu_latest SET time = time + INTERVAL '70 minutes' WHERE gpu_id = {INSTANCE}",
    ),
    "silent for three buckets of four": (
        f"""DO $$ DECLARE stored text; seconds int; BEGIN
            FOR stored, seconds IN SELECT format('%I.%I', a.materialization_hypertable_schema,
                    a.materialization_hypertable_name), w.seconds
                FROM timescaledb_information.continuous_aggregates a JOIN (VALUES ('gpu_metrics_1min', 60),
                    ('gpu_metrics_1hour', 3600), ('gpu_metrics_1day', 86400)) w (name, seconds) ON w.name = a.view_name
            LOOP EXECUTE format('DELETE FROM %s WHERE gpu_id = {A100}
                AND extract(epoch FROM bucket)::bigint / %s %% 4 <> 0', stored, seconds);
            END LOOP;
        END $$""",
    ),
}
"""What may have happened since the aggregates were stored -> statements that make it so."""


@pytest.mark.parametrize("unusual", UNUSUAL)
@pytest.mark.parametrize(
    ("length", "function"),
    [
        (20 * MINUTE, "gpu_increases_1min"), (2 * HOUR, "gpu_increases_1hour"), (DAY, "gpu_increases_1hour"),
        (7 * DAY, "gpu_increases_1day"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "before", [dt.timedelta(), 2 * HOUR, 26 * HOUR, -3 * HOUR], ids=["now", "2 h ago", "26 h ago", "in the future"]
)
def test_increases_of_the_fleet_are_those_of_the_functions(
    story: Story, before: dt.timedelta, length: dt.timedelta, function: str, unusual: str
) -> None:
    end = story.data.end - before
    shown = TimeRange(end - length, end)
    ctes, query = fleet_increases(COLUMNS, _everything)
    sql = expand(f"WITH {ctes} {query}", Context(shown, {}))
    start = begin_of(shown.start, WIDTHS[function.rpartition("_")[2]])
    columns = ", ".join(f"{column}_increase::float8" for column in COLUMNS)
    call = f"SELECT bucket, gpu_id, {columns} FROM {function}(%s, %s)"
    with story.connection.transaction(force_rollback=True):
        _as_policies_leave_it(story)
        for statement in UNUSUAL[unusual]:
            story.connection.execute(statement.encode())
        found = sorted((r[0], r[1], *r[3:]) for r in story.connection.execute(sql.encode()).fetchall())
        expected = story.connection.execute(call.encode(), (start, end + TICK)).fetchall()
    assert set(found) ^ set(expected) == set()
    assert found == sorted(expected)
    assert expected or end > story.data.end


def _as_policies_leave_it(story: Story) -> None:
    """The newest minutes, the running hour and the one before, and today (just after midnight yesterday) are not."""
    end = story.data.end
    for level, upto in (
        ("1min", begin_of(end - 5 * MINUTE, MINUTE)),
        ("1hour", begin_of(end - HOUR, HOUR)),
        ("1day", begin_of(end - 30 * MINUTE, DAY)),
    ):
        story.connection.execute(
            """UPDATE _timescaledb_catalog.continuous_aggs_watermark w SET watermark = %s
            FROM _timescaledb_catalog.continuous_agg a
            WHERE a.mat_hypertable_id = w.mat_hypertable_id AND a.user_view_name = %s""",
            (int(upto.timestamp()) * 1_000_000, f"gpu_metrics_{level}"),
        )


def test_ends_of_buckets_are_enough_for_most(story: Story) -> None:
    """Else the test above would compare the long way with itself."""
    restarted_or_gone = 3
    for level, length in (("hour", DAY), ("day", 7 * DAY)):
        ctes, _ = fleet_increases(COLUMNS, _everything)
        sql = f"WITH {ctes} SELECT count(*) FILTER (WHERE plain), count(*) FROM {level}_newest"
        shown = TimeRange(story.data.end - length, story.data.end)
        ((plain, known),) = story.connection.execute(expand(sql, Context(shown, {})).encode()).fetchall()
        assert plain >= known - restarted_or_gone
        assert plain > restarted_or_gone


def test_hosts_are_those_of_the_host_kits_view(connection: Connection, data: Dataset) -> None:
    (host,) = (q for d in committed() for q in d.queries() if (d.uid, q.title) == ("gpu-telemetry", "host"))
    found = connection.execute(host.sql.encode()).fetchall()
    of_view = connection.execute("SELECT DISTINCT host FROM telemetry.gpu_telemetry ORDER BY 1").fetchall()
    assert found == of_view
    assert found
