"""A look as JSON: one document, the same for every source."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from services.contract.derived import percent
from services.top.frame import Frame, Row
from services.top.judge import Verdict
from services.top.screen import State
from services.top.table import Line


def document(state: State, now: float) -> dict[str, Any]:
    """`error` and no `gpus` where the look failed; otherwise every GPU with what is known of it."""
    frame = state.frame if state.error is None else None
    lines: Sequence[Line] = state.judged(now) if frame is not None else ()
    return {
        "time": _iso(now if frame is None else frame.time),
        "source": state.source,
        "error": state.error,
        "total": 0 if frame is None else frame.total,
        "gpus": [_gpu(line.row, line.verdict, frame, now) for line in lines if frame is not None],
    }


def _gpu(row: Row, verdict: Verdict, frame: Frame, now: float) -> dict[str, Any]:
    """Units are the catalogue's. A metric that is not in `values` has no value."""
    metrics = row.metrics()
    age = None if row.age is None or not math.isfinite(row.age) else round(row.age + max(now - frame.time, 0.0), 3)
    return {
        "host": row.host,
        "gpu": row.index,
        "uuid": row.uuid,
        "instance_id": row.instance_id,
        "instance_profile": row.instance_profile,
        "model": row.model,
        "pci_bus_id": row.pci_bus_id,
        "driver_version": row.driver,
        "state": verdict.word.lower(),
        "light": "grey" if verdict.light.name == "GREY" else verdict.light.value,
        "notes": list(verdict.notes),
        "lost": row.lost,
        "age_seconds": age,
        "values": dict(row.values),
        "memory_percent": metrics.memory_percent(),
        "power_percent": percent(row.values.get("power_usage"), row.values.get("power_limit")),
        "throttled": list(verdict.throttled),
        "alerts": [{"kind": a.kind, "severity": a.severity.name.lower(), "message": a.message} for a in verdict.alerts],
        "status": None if row.status is None else {"tag": row.status.tag, "memo": row.status.memo},
        "xid": None if row.xid is None else {"code": row.xid.code, "time": _maybe(row.xid.seconds)},
        "processes": None if row.processes is None else [asdict(p) for p in row.processes],
    }


def _maybe(seconds: float | None) -> str | None:
    return None if seconds is None else _iso(seconds)


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")
