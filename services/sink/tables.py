"""A batch into the tables: rows, GPU events, gpu_latest, inside the caller's transaction, whoever brought the batch.

Two do: the sink, whose transactions carry Kafka's offsets as well, and the collector that writes without a broker.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from services.sink import happenings, ladder
from services.sink.batch import Refused, Sealed, newest
from services.sink.ladder import GpuMetricsTable, Observe, Outcome, Rung
from services.sink.latest import Latest
from services.sink.pgtime import Micros
from services.sink.validate import Invalid, Reason


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction holds, to be committed."""

    outcome: Outcome
    refused: list[Refused]
    """All of the batch: what was no event, and what the database will never take."""
    gpu_events: int
    """Rows that were new."""
    latest: dict[int, Micros]
    """gpu_id -> newest time of the rows that are in the table now."""
    wrote_latest: bool


class Tables:
    """Used in one thread, one transaction after the other."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._latest = Latest()

    def put(self, connection: psycopg.Connection, sealed: Sealed, rung: Rung, now: float) -> Written:
        """Write on one rung of the ladder; `now` in monotonic seconds. Raises psycopg.Error where the rung does not
        deal with it; after the commit call `committed`."""
        table = GpuMetricsTable(connection)
        outcome = ladder.insert(table, rung, sealed.rows, sealed.copy, self._observe)
        new_events, bad_events = self._insert_events(connection, table, sealed, rung)
        latest = _latest_written(sealed, outcome)
        wrote_latest = self._latest.due(now, latest)
        if wrote_latest:
            self._latest.write(connection, latest)
        refused = sealed.batch.refused + _refused_rows(sealed, outcome) + bad_events
        return Written(outcome, refused, new_events, latest, wrote_latest)

    def committed(self, written: Written, now: float) -> None:
        """`now` in monotonic seconds."""
        self._latest.committed(written.latest, now if written.wrote_latest else None)

    def look_after(self, connection: psycopg.Connection, now: float) -> None:
        """Write what gpu_latest does not know yet; else only ask whether the server is there. Raises psycopg.Error."""
        if not self._latest.pending:
            connection.execute("SELECT 1")
            return
        with connection.transaction():
            self._latest.write(connection, {})
        self._latest.committed({}, now)

    @property
    def behind(self) -> bool:
        """There are rows whose times gpu_latest does not know yet."""
        return self._latest.pending

    def _insert_events(
        self, connection: psycopg.Connection, table: GpuMetricsTable, sealed: Sealed, rung: Rung
    ) -> tuple[int, list[Refused]]:
        """GPU events of the batch; on the last rung the bad ones are found and returned."""
        batch = sealed.batch
        if not batch.events:
            return 0, []
        if rung is not Rung.BISECTED:
            return happenings.insert(connection, batch.events), []
        results = ladder.isolate(
            table, batch.events, lambda part: happenings.insert(connection, list(part)), self._observe
        )
        bad = [(position, error) for position, error in results if isinstance(error, psycopg.Error)]
        new = sum(count for _, count in results if isinstance(count, int))
        return new, [Refused(batch.event_sources[position], _verdict(error)) for position, error in bad]


def _refused_rows(sealed: Sealed, outcome: Outcome) -> list[Refused]:
    return [Refused(sealed.batch.sources[position], _verdict(error)) for position, error in outcome.bad]


def _verdict(error: psycopg.Error) -> Invalid:
    text = str(error).strip().partition("\n")[0]
    return Invalid(Reason.DATABASE, text, cause=type(error).__name__, sqlstate=error.sqlstate or "")


def _latest_written(sealed: Sealed, outcome: Outcome) -> dict[int, Micros]:
    if not outcome.bad:
        return sealed.latest
    bad = {position for position, _ in outcome.bad}
    return newest([row for position, row in enumerate(sealed.rows) if position not in bad])
