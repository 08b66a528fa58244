"""TimescaleDB's background policies as data: from the settings, compared with the database, set where different.

Refresh windows cannot erase history: a window starts later than the oldest rows its source still has, because
refreshing a bucket whose rows were dropped empties it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from psycopg import sql

from services.settings import Settings, seconds
from services.store.connect import Connection, StoreError

log = logging.getLogger("store")

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

COMPRESSION: Final = "policy_compression"
RETENTION: Final = "policy_retention"
REFRESH: Final = "policy_refresh_continuous_aggregate"


@dataclass(frozen=True, slots=True)
class Policy:
    """One background job. Lengths are in seconds."""

    kind: str
    """TimescaleDB's name of the procedure."""
    relation: str
    config: MappingProxyType[str, float]
    """Argument of the policy -> seconds; the names are those of the job's configuration too."""
    schedule: float
    delay: float
    """Until its first start. All differ, so that no two policies on one table start at once: compression and retention
    that did have been seen in a deadlock."""

    def __str__(self) -> str:
        return f"{self.kind} on {self.relation}"


_ADD: Final = {
    COMPRESSION: "add_compression_policy",
    RETENTION: "add_retention_policy",
    REFRESH: "add_continuous_aggregate_policy",
}
_REMOVE: Final = {
    COMPRESSION: "remove_compression_policy",
    RETENTION: "remove_retention_policy",
    REFRESH: "remove_continuous_aggregate_policy",
}

COMPRESS_SCHEDULE = 10 * MINUTE
"""Rows wait for COMPRESS_AFTER + CHUNK_INTERVAL + this at most: 1 h 40 min by default, under the two hours promised."""
AGGREGATE_COMPRESS_AFTER: Final = MappingProxyType(
    {
        "gpu_metrics_1min": 6 * HOUR,
        "gpu_metrics_1hour": 10 * DAY,
        "gpu_metrics_1day": 90 * DAY,
        "gpu_usage_1hour": 10 * DAY,
    }
)
"""One chunk length each: late rows usually come within hours and then find their buckets not yet compressed."""
HEALTH_COMPRESS_AFTER = 7 * DAY
LEVELS: Final = (
    ("gpu_metrics_1min", MINUTE, 1 * MINUTE),
    ("gpu_metrics_1hour", HOUR, 5 * MINUTE),
    ("gpu_metrics_1day", DAY, 15 * MINUTE),
)
"""Aggregate, bucket, seconds between refreshes. One that finds nothing to do takes 1 to 4 ms."""
SETTLED: Final = MappingProxyType({
    "gpu_metrics_1min": MINUTE,
    "gpu_metrics_1hour": 5 * MINUTE,
    "gpu_usage_1hour": 5 * MINUTE,
    "gpu_metrics_1day": 30 * MINUTE,
})  # fmt: skip
"""Seconds from the end of a bucket until it is stored, at the next refresh. Before, it is put together when asked for:
an hour of 1,000 GPUs from 60,000 minutes, 0.1 s, which is longer than all else in the fleet's dashboards. So hours are
stored 5 to 10 minutes after they are over; with the bucket's length here it would be up to 2 h 15 min of minutes. Not
sooner, since rows come seconds late, and one that comes after has the next refresh store its bucket again (0.6 s an
hour of 1,000 GPUs, 1.1 s a day). A day waits until its last hour is stored."""

USAGE: Final = ("gpu_usage_1hour", HOUR, 5 * MINUTE)
"""As `LEVELS`; also made of minutes, and kept as long as hours."""


def desired(settings: Settings) -> tuple[Policy, ...]:
    """All policies. Raises StoreError where the retentions leave a level no room."""
    raw = seconds(settings.retention)
    kept = (seconds(settings.retention_1min), seconds(settings.retention_1hour), seconds(settings.retention_1day))
    found = [
        _policy(COMPRESSION, "gpu_metrics", COMPRESS_SCHEDULE, compress_after=seconds(settings.compress_after)),
        _policy(RETENTION, "gpu_metrics", HOUR, drop_after=raw),
    ]
    starts = refresh_starts(raw, kept)
    # All minutes that are kept: what was stored before there was this aggregate gets into it.
    usage = (USAGE, oldest_safe(kept[0]), kept[1])
    for (name, _, schedule), start, keep in (*zip(LEVELS, starts, kept, strict=True), usage):
        found.append(_policy(REFRESH, name, schedule, start_offset=start, end_offset=SETTLED[name]))
        found.append(_policy(COMPRESSION, name, HOUR, compress_after=AGGREGATE_COMPRESS_AFTER[name]))
        found.append(_policy(RETENTION, name, DAY, drop_after=keep))
    for name, keep in (("gpu_health_scores", kept[1]), ("gpu_failure_predictions", kept[2])):
        found.append(_policy(COMPRESSION, name, DAY, compress_after=HEALTH_COMPRESS_AFTER))
        found.append(_policy(RETENTION, name, DAY, drop_after=keep))
    return tuple(_staggered(found))


def refresh_starts(raw: float, kept: tuple[float, float, float]) -> tuple[float, ...]:
    """How far back each level is refreshed, in seconds; `raw` and `kept` are the retentions of rows and levels.

    Each level reaches two buckets further back than the one below, so that what changed there is seen; none reaches
    what its source may have dropped. Raises StoreError where less than four buckets remain (TimescaleDB asks for two).
    """
    starts: list[float] = []
    sources = (raw, *kept[:2])
    settings = ("RETENTION", "RETENTION_1MIN", "RETENTION_1HOUR")
    for (name, bucket, _), source, setting in zip(LEVELS, sources, settings, strict=True):
        wanted = oldest_safe(source) if not starts else max(starts[-1] + 2 * bucket, 4 * bucket)
        start = min(wanted, oldest_safe(source))
        if start < 4 * bucket:
            raise StoreError(
                f"{setting} of {source:g} s is too short to build {name} from: at least {5 * bucket:g} s are needed"
            )
        starts.append(start)
    return tuple(starts)


def oldest_safe(kept: float) -> float:
    """How far back a source that is kept so long may be read, in seconds. A refresh that began before a chunk is
    dropped may still be running: it gets an hour (a tenth of short ones)."""
    return kept - min(HOUR, kept / 10)


def _policy(kind: str, relation: str, schedule: float, **config: float) -> Policy:
    return Policy(kind, relation, MappingProxyType(config), schedule, 0.0)


def _staggered(policies: list[Policy]) -> list[Policy]:
    """37 s apart: no multiple of it is a multiple of a schedule, so starts do not fall together later either."""
    return [
        Policy(policy.kind, policy.relation, policy.config, policy.schedule, 5.0 + 37.0 * number)
        for number, policy in enumerate(policies)
    ]


def apply(connection: Connection, settings: Settings) -> tuple[str, ...]:
    """Bring chunk length and policies in line with the settings, in one transaction. What was changed, in words."""
    policies = desired(settings)
    changed = []
    with connection.transaction():
        if _set_chunk_interval(connection, seconds(settings.chunk_interval)):
            changed.append(f"chunk interval of gpu_metrics is {settings.chunk_interval}")
        for policy in policies:
            if not _in_place(connection, policy):
                _replace(connection, policy)
                changed.append(str(policy))
        _write_retentions(connection, policies)
    return tuple(changed)


def _write_retentions(connection: Connection, policies: tuple[Policy, ...]) -> None:
    """The table `retention`, by which dashboards choose what to read."""
    kept = {policy.relation: policy.config["drop_after"] for policy in policies if policy.kind == RETENTION}
    connection.execute(
        """
        INSERT INTO retention SELECT relation, make_interval(secs => drop_after)
        FROM unnest(%s::name[], %s::float8[]) kept (relation, drop_after)
        ON CONFLICT (relation) DO UPDATE SET drop_after = EXCLUDED.drop_after
        WHERE retention.drop_after <> EXCLUDED.drop_after
        """,
        (list(kept), list(kept.values())),
    )


def _set_chunk_interval(connection: Connection, length: float) -> bool:
    row = connection.execute(
        "SELECT extract(epoch FROM time_interval) FROM timescaledb_information.dimensions "
        "WHERE hypertable_name = 'gpu_metrics' AND hypertable_schema = current_schema()"
    ).fetchone()
    if row is not None and float(row[0]) == length:
        return False
    connection.execute("SELECT set_chunk_time_interval('gpu_metrics', make_interval(secs => %s))", (length,))
    return True


def _in_place(connection: Connection, policy: Policy) -> bool:
    row = connection.execute(
        """
        SELECT extract(epoch FROM schedule_interval)::float8,
            (SELECT jsonb_object_agg(key, extract(epoch FROM value::interval))
             FROM jsonb_each_text(config) WHERE key = ANY(%s))
        FROM timescaledb_information.jobs
        WHERE proc_name = %s AND hypertable_schema = current_schema() AND hypertable_name = %s AND scheduled
        """,
        (list(policy.config), policy.kind, policy.relation),
    ).fetchone()
    return row is not None and row[0] == policy.schedule and row[1] == dict(policy.config)


def _replace(connection: Connection, policy: Policy) -> None:
    remove = sql.SQL("SELECT {}(%s::regclass, if_exists => true)").format(sql.Identifier(_REMOVE[policy.kind]))
    connection.execute(remove, (policy.relation,))
    arguments = {**policy.config, "schedule_interval": policy.schedule}
    add = sql.SQL(
        "SELECT {function}(%(relation)s::regclass, {arguments}, "
        "initial_start => now() + make_interval(secs => %(delay)s))"
    ).format(
        function=sql.Identifier(_ADD[policy.kind]),
        arguments=sql.SQL(", ").join(
            sql.SQL("{} => make_interval(secs => {})").format(sql.Identifier(name), sql.Placeholder(name))
            for name in arguments
        ),
    )
    connection.execute(add, {**arguments, "relation": policy.relation, "delay": policy.delay})
    log.info("policy set", extra={"policy": str(policy), **{name: f"{value:g} s" for name, value in arguments.items()}})
