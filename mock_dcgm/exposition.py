"""Snapshot -> dcgm-exporter's text: its metric order, HELP and TYPE, label order and number formats.

Two steps, so that ten thousand GPUs stay cheap: values become text once per update (a column that did not change keeps
its text), then blocks of lines are joined for the whole fleet or for one host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from mock_dcgm.columns import Column
from mock_dcgm.layout import Entity, Layout
from mock_dcgm.simulator import Snapshot
from services.contract.catalogue import METRICS, Metric
from services.contract.label import escape

Bools = npt.NDArray[np.bool_]
Body = tuple[bytes, ...]
"""The exposition in blocks, one per metric: sent one after the other, never copied together."""

CONTENT_TYPE: Final = "text/plain; charset=utf-8"
"""What Go's server makes of dcgm-exporter's answer."""

OPT_IN: Final = frozenset(
    {"fp64_active", "fp32_active", "fp16_active", "sm_occupancy", "nvlink_tx_bytes", "nvlink_rx_bytes"}
)
"""Left out of the default selection: costly to sample on real GPUs, and no health rule needs them."""
DEFAULT: Final = tuple(m for m in METRICS if m.column not in OPT_IN)

_SMALL: Final = np.array([f"{number}\n" for number in range(5_000)], dtype=object)
"""Text of small whole numbers (clocks, degrees, percentages, flags): looking up is six times faster than formatting."""


def exposition_order(metrics: Sequence[Metric]) -> list[Metric]:
    """dcgm-exporter's default counters first, then those one opts in to."""
    return sorted(metrics, key=lambda m: not m.default)


def labels(entity: Entity) -> str:
    """The label part of every line of an entity, the blank before the value included."""
    host, gpu, instance = entity.host, entity.gpu, entity.instance
    pairs = [
        ("gpu", str(gpu.index)),
        ("UUID", gpu.uuid),
        ("pci_bus_id", gpu.pci_bus_id),
        ("device", f"nvidia{gpu.index}"),
        ("modelName", gpu.model.name),
    ]
    if instance is not None:
        pairs += [("GPU_I_PROFILE", instance.profile), ("GPU_I_ID", str(instance.id))]
    pairs += [("Hostname", host.name), ("DCGM_FI_DRIVER_VERSION", host.driver)]
    tenant = (("container", gpu.container), ("namespace", gpu.namespace), ("pod", gpu.pod))
    pairs += [(name, value) for name, value in tenant if value is not None]
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in pairs) + "} "


def format_values(values: Column) -> list[str]:
    """Whole numbers `%d`, others `%f` with six decimals; each with its line end."""
    if values.dtype.kind == "f":
        return [f"{value:f}\n" for value in values.tolist()]
    if len(values) and values.min() >= 0 and values.max() < len(_SMALL):
        return _SMALL[values].tolist()  # type: ignore[no-any-return]  # an object array is a list of what went in
    return [f"{value}\n" for value in values.tolist()]


@dataclass(slots=True)
class _Block:
    """One metric: who has it, and the text it had last."""

    metric: Metric
    rows: npt.NDArray[np.intp]
    labels: list[str]
    header: str
    values: Column | None = None
    texts: list[str] = field(default_factory=list)
    rendered: tuple[list[str], Bools, bytes] | None = None
    """(texts, alive, block of the whole fleet) as last rendered."""

    def update(self, column: Column) -> None:
        values = column[self.rows]
        if self.values is None or not np.array_equal(values, self.values):
            self.values, self.texts = values, format_values(values)

    def render(self, start: int, stop: int, alive: Bools) -> bytes:
        """Lines of the block's rows from `start` to `stop`, without those that are lost."""
        names, texts = self.labels[start:stop], self.texts[start:stop]
        here = alive[self.rows[start:stop]]
        if not here.all():
            names = [name for name, is_here in zip(names, here, strict=True) if is_here]
            texts = [text for text, is_here in zip(texts, here, strict=True) if is_here]
        if not names:
            return b""
        pieces = [""] * (3 * len(names))
        pieces[0::3] = repeat(self.metric.dcgm, len(names))
        pieces[1::3] = names
        pieces[2::3] = texts
        return (self.header + "".join(pieces)).encode()

    def render_all(self, alive: Bools) -> bytes:
        """The block of the whole fleet; the very bytes of last time where nothing changed."""
        last = self.rendered
        if last is None or last[0] is not self.texts or not np.array_equal(last[1], alive):
            last = self.rendered = (self.texts, alive, self.render(0, len(self.rows), alive))
        return last[2]


class Exposition:
    """`update` with a snapshot, then `fleet` and `host` give its text."""

    def __init__(self, layout: Layout, present: Mapping[str, Bools], metrics: Sequence[Metric] = DEFAULT) -> None:
        self._hosts = layout.hosts
        names = [labels(entity) for entity in layout.entities]
        rows = {m.column: np.flatnonzero(present[m.column]) for m in metrics}
        self._blocks = [_block(m, rows[m.column], names) for m in exposition_order(metrics) if len(rows[m.column])]
        self._alive = np.ones(len(names), dtype=bool)

    def update(self, snapshot: Snapshot) -> None:
        self._alive = snapshot.alive
        for block in self._blocks:
            block.update(snapshot.columns[block.metric.column])

    def fleet(self) -> Body:
        """Everything: what one exporter for the whole fleet would answer."""
        return tuple(filter(None, (block.render_all(self._alive) for block in self._blocks)))

    def host(self, name: str) -> Body:
        """What the exporter of host `name` answers. Raises KeyError."""
        rows = self._hosts[name]
        text = []
        for block in self._blocks:
            start, stop = np.searchsorted(block.rows, (rows.start, rows.stop)).tolist()
            text.append(block.render(start, stop, self._alive))
        return (b"".join(text),)


def _block(metric: Metric, rows: npt.NDArray[np.intp], names: list[str]) -> _Block:
    header = f"# HELP {metric.dcgm} {metric.help}\n# TYPE {metric.dcgm} {metric.exposition_type}\n"
    return _Block(metric, rows, [names[i] for i in rows], header)
