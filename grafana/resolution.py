"""Which table a range of time is read from: rows, minutes, hours or days.

A query is a UNION ALL with a branch for each level. Each branch has the condition that the range shown is one it is
for. That the range is not too long Grafana's macros make a comparison of constants, so that nothing of a finer level is
planned; that the level still keeps so old a range is decided once, when the query begins (`One-Time Filter`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

FROM: Final = "$__timeFrom()::timestamptz"
TO: Final = "$__timeTo()::timestamptz"


SILENT: Final = "5 minutes"
"""Silence after which nothing is current any more: v_fleet_health_summary counts the GPU as silent then."""


@dataclass(frozen=True, slots=True)
class Level:
    """A table to read from, and how a metric is written over its alias `m`."""

    relation: str
    time: str
    """Its time column."""
    upto: str | None
    """The longest range that is read from it; None: any."""
    gap: str
    """Silence longer than this is drawn as a gap: `SILENT`, or two buckets where those are longer."""
    step: str = ""
    """Length of its buckets, as a unit of time; empty: rows."""
    dropped: bool = True
    """What is older than its retention is gone; a range of then is read from the next level. Of the last there is none,
    so it is read for any range."""
    whole: bool = False
    """Only buckets that are over at the end of the range. The bucket that is not has no stored row yet: putting it
    together from the level below, for 1,000 GPUs, takes longer than everything else. `read` has the hours of the day
    instead, `fleet_errors` the newest samples."""
    every: int = 1
    """Of so many buckets one is read."""
    by_usage: bool = False
    """Its buckets are of one status and tenant each."""

    @property
    def raw(self) -> bool:
        return not self.step

    def within(self) -> str:
        """The condition on the buckets that are read. `over` is of constants: of the part not stored nothing is
        planned."""
        over = f" AND m.bucket < {self.running}" if self.whole else ""
        if self.every == 1:
            return over
        length = f"INTERVAL '{self.every} {self.step}'"
        times = f"generate_series(time_bucket({length}, {FROM}), {TO}, {length})"
        # An array, not time_bucket(m.bucket) = m.bucket: the index on the bucket then finds them.
        return f"{over} AND m.bucket = ANY (ARRAY(SELECT {times}))"

    @property
    def running(self) -> str:
        """Begin of the bucket in which the range ends."""
        return f"time_bucket(INTERVAL '1 {self.step}', {TO})"

    @property
    def first(self) -> str:
        """Begin of the bucket in which the range begins: that bucket is read too, whole."""
        return f"time_bucket(INTERVAL '1 {self.step}', {FROM})"

    def during(self) -> str:
        """The condition that it lies in the range. Buckets are named by their begin: one that begins before the range
        reaches into it, and with `$__timeFilter` an hour that began a minute before would be missing."""
        if self.raw:
            return f"$__timeFilter(m.{self.time})"
        return f"m.{self.time} >= {self.first} AND m.{self.time} <= {TO}"

    def buckets(self, number: int) -> str:
        """Length of so many. Days in hours: a day of the session's time zone may have 23."""
        return f"{24 * number} hours" if self.step == "day" else f"{number} {self.step}"

    def since_before(self) -> str:
        """The condition on the bucket that it is in the range, or one of the ten before: for `increases`."""
        return f"m.bucket >= {earlier(self.first, f'10 {self.step}')}"

    def ago(self, interval: str) -> str:
        """So long before `running`."""
        return earlier(self.running, interval)

    def average(self, column: str) -> str:
        return f"m.{column}::float8" if self.raw else f"m.sum_{column} / nullif(m.count_{column}, 0)::float8"

    def lowest(self, column: str) -> str:
        return f"m.{column}" if self.raw else f"m.min_{column}"

    def highest(self, column: str) -> str:
        return f"m.{column}" if self.raw else f"m.max_{column}"

    @property
    def begin(self) -> str:
        """When what a row tells began."""
        return "m.since" if self.by_usage else f"m.{self.time}"

    @property
    def end(self) -> str:
        """Up to when, to the sample or minute, what a row tells is known to have been so."""
        return "m.until" if self.by_usage else f"m.{self.time}"

    def said(self, column: str) -> str:
        """Of status and tenant: what holds for the row, or was last in the bucket."""
        return f"m.{column}" if self.by_usage else self.last(column)

    def last(self, column: str) -> str:
        """Of codes and counters: the bucket's last."""
        return f"m.{column}" if self.raw else f"m.last_{column}"

    def bits(self, column: str) -> str:
        """Of a bitmask: every bit that was set in the bucket."""
        return f"m.{column}" if self.raw else f"m.or_{column}"

    def total(self, column: str) -> str:
        return f"m.{column}" if self.raw else f"m.sum_{column}"

    def count(self, column: str) -> str:
        return f"(m.{column} IS NOT NULL)::int" if self.raw else f"m.count_{column}"

    @property
    def samples(self) -> str:
        return "1" if self.raw else "m.samples"


_RAW: Final = Level("gpu_metrics", "time", "6 hours", SILENT)
_MINUTE: Final = Level("gpu_metrics_1min", "bucket", "2 days", SILENT, "minute")
_HOUR: Final = Level("gpu_metrics_1hour", "bucket", "60 days", "2 hours", "hour")
_DAY: Final = Level("gpu_metrics_1day", "bucket", None, "2 days", "day", dropped=False)

PER_GPU: Final = (_RAW, _MINUTE, _HOUR, _DAY)
"""For one host or one card. 6 h at 10 s are 2,160 points a GPU, 2 d of minutes 2,880, 60 d of hours 1,440: a panel is
about 1,500 pixels wide. Rows are never read for more than six hours."""
_USAGE: Final = replace(_HOUR, relation="gpu_usage_1hour", upto="365 days", gap=SILENT, by_usage=True)
USAGE: Final = (_RAW, _MINUTE, _USAGE, _DAY)
"""For what goes by status or tenant, of which the others keep the last of each bucket. 365 d of hours are what is kept
(RETENTION_1HOUR's default), and of one GPU 8,760 rows."""
_WHOLE_HOUR: Final = replace(_HOUR, whole=True)
_WHOLE_DAY: Final = replace(_DAY, whole=True)
FLEET: Final = (
    replace(_MINUTE, upto="1 hour"),
    replace(_MINUTE, upto="2 hours", every=2),
    replace(_MINUTE, upto="6 hours", every=6, gap="12 minutes"),
    replace(_WHOLE_HOUR, upto="2 days"),
    replace(_WHOLE_HOUR, upto="7 days", every=3, gap="6 hours"),
    _WHOLE_DAY,
)
"""For all GPUs at once, over time: 1,000 GPUs have 60,000 minutes in 1 h, as many second ones in 2 h and sixth ones
in 6 h, 48,000 hours in 2 d, 56,000 third hours in 7 d, which is what can be added up in about 0.1 s. Not days already:
a GPU that was away for an hour is in each of them, and day and night look alike. Up to 6 h, so, the running hour is in
it."""
RANKING: Final = (replace(_MINUTE, upto="1 hour"), replace(_HOUR, upto="2 days"), _WHOLE_DAY)
"""For figures of each GPU of the fleet, where only what comes out in the end is shown. The running hour counts up to
two days: who is hot now must be seen."""
ERRORS: Final = (replace(_MINUTE, upto="30 minutes"), replace(_HOUR, upto="1 day"), _DAY)
"""For increases of counters in the fleet: they look at the bucket before, which takes three times as long. What is not
stored yet `fleet_errors` takes from the newest samples."""


_MINUTE_OF_ROWS: Final = replace(_MINUTE, upto=_RAW.upto)


def earlier(moment: str, interval: str) -> str:
    """SQL: a moment so long before. By way of UTC, where the difference is a constant to the planner, and leaves out
    chunks: in other time zones days have different lengths."""
    return f"({moment} AT TIME ZONE 'UTC' - INTERVAL '{interval}') AT TIME ZONE 'UTC'"


LENGTH: Final = f"({TO} - {FROM} - INTERVAL '1 second')"
"""Of the range, a second short: `now` may be read twice for "now-2h to now", which then is a millisecond longer."""


def shown(levels: tuple[Level, ...], index: int) -> str:
    """The condition that the range shown is read from `levels[index]`: the first that is for its length and still kept.

    By the length alone two hours of an incident ten days ago would be read from rows that are gone: "0 samples".
    """
    finer = [f"NOT {_fits(level)}" for level in levels[:index]]
    return f"({' AND '.join([*finer, _fits(levels[index])])})"


def _fits(level: Level) -> str:
    conditions = [f"{LENGTH} <= INTERVAL '{level.upto}'"] if level.upto else []
    conditions += [f"{FROM} > {kept_since(level.relation)}"] if level.dropped else []
    return f"({' AND '.join(conditions) or 'true'})"


def kept_since(relation: str) -> str:
    """Since when, by its retention. Where none was written down, everything is kept."""
    return f"coalesce((SELECT now() - drop_after FROM retention WHERE relation = '{relation}'), '-infinity')"


def only(level: Level) -> str:
    """That the range is not too long for a level, as a condition on its time, so that it reaches its table through the
    join: the planner then looks into none of its chunks. A plain `false` above a join is noticed only after both sides
    are planned: 4 to 13 ms."""
    if level.upto is None:
        return f"m.{level.time} <= {TO}"
    return f"m.{level.time} <= CASE WHEN {LENGTH} <= INTERVAL '{level.upto}' THEN {TO} ELSE '-infinity' END"


def read(
    select: Callable[[Level], str],
    join: Callable[[Level], str],
    levels: tuple[Level, ...] = PER_GPU,
    *,
    group: str = "",
) -> str:
    """`SELECT select FROM m join` of each level, of which the one for the range shown runs.

    `join` is what follows the table: joins, then WHERE, to which the time filter is added. `group`: GROUP BY; of whole
    days, once more for the hours of the day that is not over.
    """
    return "\nUNION ALL\n".join(
        f"SELECT {select(part)}\nFROM {part.relation} m {join(part)}"
        f"\n    AND {part.during()}{part.within()}{after}"
        f"\n    AND {only(level)} AND {shown(levels, index)}{_grouped(group)}"
        for index, level in enumerate(levels)
        for part, after in _parts(level)
    )


def _parts(level: Level) -> tuple[tuple[Level, str], ...]:
    """Of whole days also the whole hours since the last: (level, condition)."""
    if level.whole and level.step == "day":
        return (level, ""), (_WHOLE_HOUR, f" AND m.bucket >= {level.running}")
    return ((level, ""),)


def _grouped(by: str) -> str:
    return f"\nGROUP BY {by}" if by else ""


def of_buckets(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """The same with minutes in place of rows."""
    return tuple(_MINUTE_OF_ROWS if level.raw else level for level in levels)


def increases(columns: Sequence[str], join: Callable[[Level], str], levels: tuple[Level, ...] = PER_GPU) -> str:
    """By how much counters grew in each bucket: columns time, gpu_id, gap, and one for each of `columns`.

    What gpu_increases_1min(), _1hour() and _1day() compute, for the columns asked for only: planning those functions,
    with all counters, takes 0.7 s. The bucket before may be ten buckets back at most (ADR 3). They have
    no level of rows: where samples are read from rows, minutes are read here.
    """
    counted = of_buckets(levels)
    return "\nUNION ALL\n".join(
        increases_of(
            columns,
            level,
            f"{level.relation} m {join(level)}\n        AND {level.since_before()} AND {only(level)}"
            f" AND {shown(counted, index)}",
        )
        for index, level in enumerate(counted)
    )


def increases_of(columns: Sequence[str], level: Level, source: str) -> str:
    """The same of one level. `source`: what follows FROM, `m` with bucket, gpu_id, and first_, last_ and resets_ of
    each of `columns`, from ten buckets before the range on. One look at the bucket before for all columns."""
    read_on = ", ".join(f"m.first_{x}, m.last_{x}, m.resets_{x}" for x in columns)
    lasts = ", ".join(f"m.last_{x}" for x in columns)
    grown = ", ".join(
        f"counter_increase(first_{x}, last_{x}, resets_{x}, before[{number}])::float8 AS {x}"
        for number, x in enumerate(columns, 1)
    )
    return f"""SELECT bucket AS time, gpu_id, INTERVAL '{level.gap}' AS gap, {grown}
FROM (
    SELECT m.bucket, m.gpu_id, {read_on}, last_value(ARRAY[{lasts}]) OVER (PARTITION BY m.gpu_id ORDER BY m.bucket
        RANGE BETWEEN INTERVAL '{level.buckets(10)}' PRECEDING AND INTERVAL '{level.buckets(1)}' PRECEDING) AS before
    FROM {source}
) counted WHERE bucket >= {level.first} AND bucket <= {TO}"""
