"""What the exporter says of itself and of what outlives a reading: lost GPUs. Rendered for each scrape."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.exporter import labels, own_series
from services.exporter.own_series import Family
from services.exporter.sampler import Status

_VERSION: Final = version("gpu-health-monitor")
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = resource.getpagesize()


def render(status: Status, hostname: str | None) -> str:
    """The exporter's own series, and those of lost GPUs."""
    lost = [
        (labels.text([*labels.lost_identity(item, hostname), ("reason", item.reason)]), "1") for item in status.lost
    ]
    return "".join((own_series.GPU_LOST.block(lost), _reading(status), _process()))


def _reading(status: Status) -> str:
    sweep = status.sweep
    fresh = sweep if status.fresh else None
    failures = [(f'trouble="{trouble}"', str(count)) for trouble, count in status.failures.items()]
    info = [("version", _VERSION), ("source", sweep.source if sweep else status.source or "")]
    return "".join((
        _one(own_series.UP, int(status.fresh)),
        own_series.INFO.block([(labels.text(info), "1")]),
        _one(own_series.AGE, status.age, "{:.3f}".format),
        _one(own_series.TIMESTAMP, None if sweep is None else sweep.time, "{:.3f}".format),
        _one(own_series.DURATION, status.duration, "{:.6f}".format),
        _one(own_series.READS, status.reads),
        own_series.FAILURES.block(failures),
        _one(own_series.GPUS, None if fresh is None else len({r.device.uuid for r in fresh.readings})),
        _one(own_series.GPUS_LOST, len(status.lost)),
    ))  # fmt: skip


def attribution(failures: Mapping[str, int]) -> str:
    """Failed polls by who was asked; nothing where nobody is asked."""
    samples = [(labels.text([("source", name)]), str(count)) for name, count in failures.items()]
    return own_series.ATTRIBUTION_FAILURES.block(samples)


def snapshot(time: float | None) -> str:
    """When a document last changed; nothing without documents."""
    return _one(own_series.SNAPSHOT, time, "{:.3f}".format)


def _one(family: Family, value: float | None, form: Callable[[float], str] = str) -> str:
    """A family of one series without labels; nothing where there is no value."""
    return "" if value is None else family.block([("", form(value))])


def _process() -> str:
    return _one(own_series.CPU, time.process_time(), "{:.3f}".format) + _one(own_series.MEMORY, resident())


def resident() -> int | None:
    """Resident memory of this process in bytes; None where the system has no /proc."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
