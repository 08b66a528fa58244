"""A target's reader: one scrape's body -> events and happenings. No I/O."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.collector import checkpoint
from services.collector.assemble import Identities, Sheet, Table, assemble
from services.collector.detect import Resets, advance
from services.collector.enrich import Place, derive, understand
from services.collector.lines import ScrapeRefused, not_a_sample
from services.collector.own import Own, read_own
from services.collector.parse import Exposition
from services.collector.past import Moment, Past, forget
from services.collector.series import Run
from services.collector.values import NotANumberError, Sort, check_numbers, read_unknown, read_values, topic
from services.collector.xids import counted
from services.contract.event import SCHEMA_VERSION, Event, GpuEvent, Status

__all__ = ["Reading", "ScrapeRefused", "TargetReader"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scrape said."""

    events: list[Event]
    """One per GPU or MIG instance."""
    happenings: list[GpuEvent]
    """xid, status, gpu_lost, gpu_returned, counter_reset"""
    samples: int
    """Exposition samples understood: lines with a value."""
    non_gpu: int
    """Those of them that belong to no GPU (NvSwitch, CPU, `process_*`, ...)."""
    snapshot: float | None = None
    """Changes whenever a document of the exporter's `/snapshot` does; None: it has none."""
    cut: int = 0
    """Series beyond the bound (`services.collector.own.MOST`), which were left out."""


class TargetReader:
    """One per target: remembers its label parts, last counters and known GPUs between scrapes. Not thread-safe."""

    def __init__(self, source: str, labels: Mapping[str, str]) -> None:
        """`source` is the target's address; `labels` its configuration: cluster, datacenter, rack, anything else."""
        self._source = source
        self._place = Place.of(source, labels)
        self._exposition: Exposition = Exposition(understand)
        self._past = Past()
        self._identities = Identities()

    @property
    def hostname(self) -> str | None:
        """The host of its GPUs, lost ones too, as they said last; before the first scrape the configured one. None:
        several hosts."""
        spots = [*self._past.spots.values(), *(lost.spot for lost in self._past.lost.values())]
        hosts = {spot.hostname for spot in spots} or {self._place.hostname}
        return hosts.pop() if len(hosts) == 1 else None

    def read(self, body: bytes, time: dt.datetime, status: Status | None = None) -> Reading:
        """A scrape made at `time` (aware). Raises ScrapeRefused, and then remembers nothing of it but its
        `happenings`."""
        sheet, samples, non_gpu = self._collect(body)
        own = read_own(sheet.own)
        table = assemble(sheet, self._place, self._past.roster)
        moment = Moment(time, self._source, self._place.hostname, status)
        self._check(own, moment, empty=not table.roster.keys, samples=samples if body else None)
        resets, happenings = advance(self._past, table, own, moment)
        forget(self._past, time)
        return Reading(self._events(table, resets, time, status), happenings, samples, non_gpu, own.snapshot, own.cut)

    def checkpoint(self) -> dict[str, Any]:
        """What `restore` needs after a restart: last counters, XIDs, known and lost GPUs. Of JSON's types."""
        return checkpoint.dump(self._past)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up where `checkpoint` left off. Raises ValueError for a state that is none."""
        self._past = checkpoint.load(state)

    def _collect(self, body: bytes) -> tuple[Sheet, int, int]:
        """All runs of a body, and how many samples they are: in all, and those of no GPU."""
        sheet, samples, non_gpu = Sheet(), 0, 0
        for run in self._exposition.runs(body):
            samples += run.group.count
            try:
                non_gpu += self._take(sheet, run)
            except NotANumberError as wrong:
                raise self._not_a_value(body, run, wrong.index) from None
        return sheet, samples, non_gpu

    def _take(self, sheet: Sheet, run: Run) -> int:
        """Adds a run to the sheet; returns how many of its samples belong to no GPU."""
        about = topic(run.name)
        if about.sort is Sort.METRIC:
            values, odd = read_values(about, run.texts, run.joined)
            sheet.columns.setdefault(about.column, []).append((run.name, run.group, values))
            sheet.odd += [(about, run.group.owners[o.index], o) for o in odd]
        elif about.sort is Sort.UNKNOWN:
            sheet.unknown.append((run.name, run.group, read_unknown(run.texts, run.joined)))
        elif about.sort is Sort.OWN:
            sheet.own.append((run.name, run.group, read_unknown(run.texts, run.joined)))
        else:
            check_numbers(run.texts, run.joined)
        if about.sort is Sort.FOREIGN:
            return run.group.count
        return run.group.strangers

    def _check(self, own: Own, moment: Moment, *, empty: bool, samples: int | None) -> None:
        """A body without a GPU is right where our exporter says so: the last one may have been lost or unplugged. And
        what our exporter calls stale is not taken, whatever it gives beside."""
        if own.up is None and empty:
            what = "is empty" if samples is None else f"has {samples} samples, but no DCGM_* one with a UUID label"
            raise ScrapeRefused("no_gpu_metrics", f"the body {what}")
        if own.up is False:
            told = "the exporter's last reading of the GPUs is too old to be served: see its /health"
            refused = ScrapeRefused("stale", told)
            refused.happenings = tuple(counted(self._past, own, moment))
            raise refused

    def _not_a_value(self, body: bytes, run: Run, index: int) -> ScrapeRefused:
        pos = run.start
        for _ in range(index):
            pos = body.index(b"\n", pos) + 1
        return not_a_sample(body, pos)

    def _events(self, table: Table, resets: Resets, time: dt.datetime, status: Status | None) -> list[Event]:
        gpus = self._identities.of(table)
        return [
            Event(
                schema_version=SCHEMA_VERSION,
                time=time,
                gpu=gpu,
                metrics=metrics,
                derived=derived,
                tenant=tenant,
                status=status,
                resets=resets.get(row) if resets else None,
                extra=extra,
                source=self._source,
            )
            for row, (gpu, metrics, derived, tenant, extra) in enumerate(
                zip(
                    gpus,
                    table.metrics(),
                    derive(table.columns, len(gpus)),
                    table.roster.tenants,
                    table.extras(),
                    strict=True,
                )
            )
        ]
