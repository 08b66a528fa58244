"""Rows of a simulated fleet into an empty database, for the pictures."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from mock_dcgm.exposition import OPT_IN
from mock_dcgm.layout import Entity
from mock_dcgm.simulator import Simulator
from services.contract.catalogue import METRICS, SAMPLED
from services.contract.xid import lookup
from services.store.connect import Connection
from tests.support.database import insert, refresh, register

Row = dict[str, Any]
Place = Callable[[Entity], dict[str, str]]
"""Cluster, datacenter, rack of a GPU."""
More = Callable[[Entity, dt.datetime], dict[str, Any] | None]
"""What a row has besides the metrics (tags); None: no row, the exporter was away."""
State = tuple[bool, float]
"""Whether the GPU is there; its last XID."""


class Filler:
    """Runs a simulator up to `end` and writes what a collector would have stored."""

    def __init__(self, connection: Connection, simulator: Simulator, end: dt.datetime, span: float) -> None:
        """`span`: seconds before `end`, where `simulator` begins."""
        self._connection, self._simulator, self._end, self._span = connection, simulator, end, span
        self._entities = list(simulator.layout.entities)

    def fill(self, step: float, place: Place, more: More) -> None:
        """`step`: seconds between two scrapes."""
        ids = [self._register(number, entity, place(entity)) for number, entity in enumerate(self._entities)]
        insert(self._connection, self._rows(step, ids, more))
        self._connection.execute("SELECT refresh_gpu_latest()")
        refresh(self._connection)
        self._connection.execute("ANALYZE")

    def tell(
        self, time: dt.datetime, kind: str, host: str, detail: Row, *, gpu: tuple[int, str] | None = None, code: int = 0
    ) -> None:
        """An event. `gpu`: its gpu_id and UUID."""
        self._connection.execute(
            "INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source, code, detail) "
            "VALUES (%s, %s, %s, %s, %s, 'mock', %s, %s::jsonb)",
            (time, kind, *(gpu or (None, None)), host, code, json.dumps(detail)),
        )

    def _register(self, number: int, entity: Entity, place: dict[str, str]) -> int:
        columns, present = self._simulator.snapshot.columns, self._simulator.present
        names = [m.column for m in METRICS if m not in SAMPLED and m.column in columns]
        return register(
            self._connection, self._end - dt.timedelta(seconds=self._span), uuid=entity.gpu.uuid,
            hostname=entity.host.name, index=entity.gpu.index, device=f"nvidia{entity.gpu.index}",
            model=entity.gpu.model.name, pci_bus_id=entity.gpu.pci_bus_id, driver_version=entity.host.driver,
            missing={m.column: "unsupported" for m in SAMPLED if not self._has(number, m.column)},
            properties={name: columns[name][number].item() for name in names if present[name][number]}, **place,
        )  # fmt: skip

    def _has(self, number: int, column: str) -> bool:
        there = column in self._simulator.snapshot.columns and column not in OPT_IN
        return there and bool(self._simulator.present[column][number])

    def _rows(self, step: float, ids: list[int], more: More) -> list[Row]:
        has = [[m.column for m in SAMPLED if self._has(n, m.column)] for n in range(len(ids))]
        rows: list[Row] = []
        before: dict[int, State] = {}
        for number, snapshot in enumerate(self._simulator.run(self._span, step), 1):
            time = self._end - dt.timedelta(seconds=self._span - number * step)
            columns = {name: values.tolist() for name, values in snapshot.columns.items()}
            for n, entity in enumerate(self._entities):
                state = (bool(snapshot.alive[n]), float(columns["xid_errors"][n]))
                self._compare(time, entity, ids[n], before.get(n, state), state)
                before[n] = state
                extra = more(entity, time)
                if state[0] and extra is not None:
                    rows.append({"time": time, "gpu_id": ids[n], **{c: columns[c][n] for c in has[n]}, **extra})
        return rows

    def _compare(self, time: dt.datetime, entity: Entity, gpu_id: int, before: State, now: State) -> None:
        """XIDs and lost GPUs as events, as the collector finds them."""
        gpu = (gpu_id, entity.gpu.uuid)
        if now[1] and now[1] != before[1]:
            code = int(now[1])
            info = lookup(code)
            detail = {"meaning": info.meaning, "severity": info.severity, "immediate_action": info.immediate_action}
            self.tell(time, "xid", entity.host.name, detail, gpu=gpu, code=code)
        if before[0] and not now[0]:
            self.tell(time, "gpu_lost", entity.host.name, {"reason": "gone"}, gpu=gpu)
