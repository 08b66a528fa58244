"""What is to be shown: metrics, time range, filters; and from which level of the data. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.contract.catalogue import BY_COLUMN, SAMPLED, Kind, Metric, Unit

SHORT_NAMES: Final = MappingProxyType(
    {
        "temp": "gpu_temp",
        "temperature": "gpu_temp",
        "power": "power_usage",
        "limit": "power_limit",
        "util": "gpu_util",
        "memory": "fb_used",
        "mem-util": "mem_copy_util",
        "mem-temp": "memory_temp",
        "clock": "sm_clock",
        "mem-clock": "mem_clock",
        "fan": "fan_speed",
        "throttle": "clocks_event_reasons",
        "xid": "xid_errors",
        "energy": "total_energy_consumption",
        "pcie-gen": "pcie_link_gen",
        "pcie-width": "pcie_link_width",
    }
)
"""Names for people -> columns of the catalogue."""


DEFAULT_HOURS: Final = 6.0
"""The runbook's first example."""
YEARS: Final = range(1970, 2101)
"""Years a range may lie in: clocks count from 1970, and far from it an offset would leave the range of dates."""
_MOST_HOURS: Final = len(YEARS) * 366 * 24


class SelectionError(ValueError):
    """Not a thing that can be shown; the message says what can."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show. Times are aware; `start` inclusive, `end` exclusive."""

    start: dt.datetime
    end: dt.datetime
    metrics: tuple[Metric, ...]
    hosts: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    """Index on its host, or (the beginning of) a UUID."""
    tags: tuple[str, ...] = ()
    exclude_prod: bool = False
    memos: tuple[str, ...] = ()

    @property
    def zone(self) -> dt.tzinfo:
        """The offset in which the range was asked for; of one without, the local one of its begin."""
        return self.start.tzinfo or dt.UTC

    @property
    def by_status(self) -> bool:
        """Whether rows are chosen by what the host was doing."""
        return bool(self.tags or self.memos or self.exclude_prod)

    def filters(self) -> list[str]:
        """As one would say them, for messages and the foot of a picture."""
        said = [f"host {' or '.join(self.hosts)}"] if self.hosts else []
        said += [f"GPU {' or '.join(self.gpus)}"] if self.gpus else []
        said += [f"tag {' or '.join(self.tags)}"] if self.tags else []
        said += ["without prod"] if self.exclude_prod else []
        return said + ([f"memo {' or '.join(map(repr, self.memos))}"] if self.memos else [])


def metric(name: str) -> Metric:
    """By short name or column. Raises SelectionError."""
    column = SHORT_NAMES.get(name.lower(), name.lower())
    found = BY_COLUMN.get(column)
    if found is None:
        raise SelectionError(
            f"--metric {name}: unknown; short names are {', '.join(SHORT_NAMES)}; "
            f"columns are {', '.join(m.column for m in SAMPLED)}"
        )
    if found.kind is Kind.PROPERTY:
        raise SelectionError(f"--metric {name}: a fixed property of the device, not something that changes over time")
    return found


def parse_time(text: str, zone: dt.tzinfo | None = None) -> dt.datetime:
    """ISO 8601. Without an offset: local time (`zone`, by default the machine's). Raises SelectionError."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise SelectionError(
            f"{text!r} is not a time in ISO 8601; for example 2026-01-04T00:00:00+09:00, or 2026-01-04T00:00 (local)"
        ) from None
    _check_year(time)
    if time.tzinfo is None:
        return time.replace(tzinfo=zone) if zone else time.astimezone()
    return time


def _check_year(time: dt.datetime) -> None:
    if time.year not in YEARS:
        raise SelectionError(
            f"the year {time.year} is out of range: telemetry is of the years {YEARS[0]} to {YEARS[-1]}"
        )


def time_range(
    hours: float | None, start: dt.datetime | None, end: dt.datetime | None, now: dt.datetime
) -> tuple[dt.datetime, dt.datetime]:
    """`hours` counts back from `end` (default now), or on from `start` where only that is given; default six hours."""
    hours_back = DEFAULT_HOURS if hours is None else hours
    if not 0 < hours_back <= _MOST_HOURS:
        raise SelectionError(f"--hours {hours_back:g}: more than nothing, please, and at most {_MOST_HOURS}")
    span = dt.timedelta(hours=hours_back)
    if start and end and hours is not None:
        raise SelectionError("--hours, --start and --end: two of them say it all")
    if start is None:
        start, end = (end or now) - span, end or now
    elif end is None:
        end = now if hours is None else start + span
    _check_year(start)
    _check_year(end)
    if start >= end:
        raise SelectionError(f"the range ends ({end.isoformat()}) before it begins ({start.isoformat()})")
    return start, end


@dataclass(frozen=True, slots=True)
class Level:
    """One table with the data, from the rows to the days."""

    relation: str
    time: str
    """Name of its time column: begin of a bucket, or time of a row."""
    seconds: float
    """Length of a bucket; 0: rows."""
    prefix: str = ""
    """In front of the name of a column that holds the last value of a bucket."""


ROWS: Final = Level("gpu_metrics", "time", 0)
MINUTES: Final = Level("gpu_metrics_1min", "bucket", 60, "last_")
HOURS: Final = Level("gpu_metrics_1hour", "bucket", 3600, "last_")
DAYS: Final = Level("gpu_metrics_1day", "bucket", 86_400, "last_")
LEVELS: Final = (ROWS, MINUTES, HOURS, DAYS)
"""From fine to coarse; each kept longer than the one before."""

POINTS: Final = 1500
"""Points per line aimed at: a picture is about 1,300 pixels wide."""
DENSE: Final = 4000
"""Rows of a GPU up to which they are drawn as they are, without buckets."""
_NICE: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


def bucket_seconds(span: float) -> float:
    """Length of a bucket so that `span` seconds make about POINTS points."""
    return next((float(n) for n in _NICE if n * POINTS >= span), 86_400.0)


def choose(span: float, rows: float, finest: Level, *, by_status: bool) -> tuple[Level, float]:
    """From which level, and in buckets of how many seconds (0: as the rows are).

    span: seconds that hold data; rows: of the GPU that has most; finest: the finest level that reaches back so far.
    The rows themselves where they are few; else the coarsest level whose buckets are not longer than what a point of
    the picture stands for. Rows chosen by status need the finest level there is: a bucket knows only the status of its
    last sample.
    """
    if finest is ROWS and rows <= DENSE:
        return ROWS, 0.0
    bucket = max(bucket_seconds(span), finest.seconds)
    return (finest if by_status else coarsest(bucket, finest)), bucket


def coarsest(bucket: float, finest: Level) -> Level:
    """The coarsest level whose buckets are not longer than `bucket` seconds, and not finer than `finest`."""
    return max((lv for lv in LEVELS if lv.seconds <= max(bucket, finest.seconds)), key=lambda lv: lv.seconds)


def finest(reach: Mapping[str, dt.datetime | None], start: dt.datetime) -> Level:
    """The finest level that reaches back to `start`, or as far back as any does. reach: relation -> its oldest time."""
    for level in LEVELS:
        time = reach.get(level.relation)
        if time is None:
            continue
        others = [(lv, reach.get(lv.relation)) for lv in LEVELS if lv.seconds > level.seconds]
        # A coarse bucket begins before the first row in it: it tells of older data only if it also ends before.
        ends = [t + dt.timedelta(seconds=lv.seconds) for lv, t in others if t is not None]
        if time <= start or all(time < end for end in ends):
            return level
    return ROWS


@dataclass(frozen=True, slots=True)
class Shown:
    """How values are shown: multiplied, with this unit."""

    factor: float
    unit: str


_SHOWN: Final = MappingProxyType(
    {
        Unit.MEBIBYTE: Shown(1 / 1024, "GiB"),
        Unit.MILLIJOULE: Shown(1 / 3.6e9, "kWh"),
        Unit.BYTES_PER_SECOND: Shown(1e-9, "GB/s"),
        Unit.RATIO: Shown(100, "%"),
        Unit.NANOSECOND: Shown(1e-9, "s"),
        Unit.CELSIUS: Shown(1, "°C"),
    }
)


def shown(metric: Metric) -> Shown:
    return _SHOWN.get(metric.unit) or Shown(1, metric.unit.value)


def names(metrics: Sequence[Metric]) -> str:
    return ", ".join(m.column for m in metrics)
