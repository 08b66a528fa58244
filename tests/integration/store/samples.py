"""Random samples: counters that grow and restart, values that are missing. And what their aggregates must be."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from services.contract.catalogue import SAMPLED, Kind, Metric, SqlType, Unit

Sample = dict[str, Any]
START = dt.datetime(2026, 3, 1, 22, 30, tzinfo=dt.UTC)
"""Far from any hour, and so that a few hours touch two days."""


class Gpu:
    """Makes the samples of one GPU and remembers how much each counter really grew."""

    def __init__(self, gpu_id: int, source: random.Random, *, missing: float = 0.1, restart: float = 0.02) -> None:
        self._gpu_id = gpu_id
        self._source = source
        self._missing = missing
        self._restart = restart
        self._counters: dict[str, int] = {}
        self.grown: defaultdict[str, int] = defaultdict(int)

    def sample(self, time: dt.datetime) -> Sample:
        row: Sample = {"time": time, "gpu_id": self._gpu_id}
        resets: dict[str, int] = {}
        for metric in SAMPLED:
            if metric.kind is Kind.COUNTER:
                row[metric.column] = self._count(metric.column, resets)
            elif self._source.random() >= self._missing:
                row[metric.column] = self._gauge(metric)
        return {**row, "counter_resets": resets} if resets else row

    def _count(self, name: str, resets: dict[str, int]) -> int:
        before = self._counters.get(name)
        if before is not None and before > 0 and self._source.random() < self._restart:
            resets[name] = before
            self._counters[name] = self._source.randrange(min(before, 5))
            self.grown[name] += self._counters[name]
        else:
            step = self._source.choice((0, 0, 1, 7, 1000))
            self._counters[name] = (self._source.randrange(10**6) if before is None else before) + step
            self.grown[name] += step if before is not None else 0
        return self._counters[name]

    def _gauge(self, metric: Metric) -> float:
        high = int(min(metric.high, 1000))
        if metric.sql.is_integer:
            return self._source.randint(int(metric.low), high)
        return round(self._source.uniform(metric.low, high), 3)


def aggregates(metric: Metric) -> dict[str, Callable[[list[Sample]], Any]]:
    """Column of an aggregate -> what it must be for the samples of a bucket, which are in order and not empty.

    Plain Python on plain rows, written from the documentation of the aggregates, not from their SQL.
    """

    def values(rows: list[Sample]) -> list[Any]:
        return [row[metric.column] for row in rows if row.get(metric.column) is not None]

    def of_values(compute: Callable[[list[Any]], Any]) -> Callable[[list[Sample]], Any]:
        return lambda rows: compute(values(rows)) if values(rows) else None

    def resets(rows: list[Sample]) -> int | None:
        found = [row["counter_resets"][metric.column] for row in rows if metric.column in row.get("counter_resets", {})]
        return sum(found) if found else None

    def first(rows: list[Sample]) -> int | None:
        row = next((row for row in rows if row.get(metric.column) is not None), None)
        return None if row is None else row[metric.column] + row.get("counter_resets", {}).get(metric.column, 0)

    def any_bit(found: list[int]) -> int:
        bits = 0
        for value in found:
            bits |= value
        return bits

    last = of_values(lambda found: found[-1])
    if metric.kind is Kind.COUNTER:
        return {"first": first, "last": last, "resets": resets}
    if metric.unit is Unit.BITMASK:
        return {"or": of_values(any_bit)}
    if metric.unit is Unit.FLAG:
        return {"max": of_values(max)}
    if metric.unit is Unit.CODE:
        return {"max": of_values(max), "last": last}
    return {
        "sum": of_values(sum),
        "count": lambda rows: len(values(rows)),
        "min": of_values(min),
        "max": of_values(max),
    }


def is_exact(metric: Metric, name: str) -> bool:
    """Everything but sums of what is summed in floating point."""
    return name != "sum" or metric.sql in (SqlType.SMALLINT, SqlType.INTEGER)


def buckets(rows: Iterable[Sample], width: dt.timedelta) -> dict[tuple[dt.datetime, int], list[Sample]]:
    """(start of bucket, gpu_id) -> its samples by time."""
    found: defaultdict[tuple[dt.datetime, int], list[Sample]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["time"]):
        epoch = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        found[epoch + (row["time"] - epoch) // width * width, row["gpu_id"]].append(row)
    return dict(found)
