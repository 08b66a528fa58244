"""The fleet as arrays: which row of a column is whose, and which rows a column has at all.

An entity is a line of the exposition per metric: a GPU, or a MIG instance (its lines follow its GPU's). A unit is what
runs a workload: a GPU without MIG, or an instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mock_dcgm.fleet import Fleet, Gpu, Host, Instance
from mock_dcgm.models import mig_memory, mig_slices
from services.contract.catalogue import METRICS, Metric, Unit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PER_INSTANCE = frozenset(
    {m.column for m in METRICS if m.prof and m.unit is Unit.RATIO} | {"xid_errors", "fb_total", "fb_free", "fb_used"}
)
"""What DCGM gives for a GPU instance."""
_NOT_UNDER_MIG = frozenset({"gpu_util", "mem_copy_util", "enc_util", "dec_util"})
"""What DCGM does not give for a board that is cut into instances."""


@dataclass(frozen=True, slots=True)
class Entity:
    host: Host
    gpu: Gpu
    instance: Instance | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes: E entities, G GPUs, I instances, U units."""

    entities: tuple[Entity, ...]
    entity_gpus: Ints
    """E: GPU of each entity."""
    instance_rows: Ints
    """I: entity of each instance."""
    instance_units: Ints
    """I: unit of each instance."""
    gpu_hosts: Ints
    """G: number of each GPU's host."""
    unit_gpus: Ints
    """U: GPU of each unit."""
    unit_share: Floats
    """U: share of its GPU's compute, 1 without MIG."""
    unit_memory: Floats
    """U: share of its GPU's framebuffer, 1 without MIG."""
    unit_profiles: tuple[str, ...]
    hosts: Mapping[str, slice]
    """The entities of each host: they stand together."""

    @property
    def whole(self) -> bool:
        """No MIG: entities, GPUs and units are the same."""
        return not len(self.instance_rows)


def lay_out(fleet: Fleet) -> Layout:
    """Number everything, host by host, GPU by GPU, each GPU before its instances."""
    entities: list[Entity] = []
    gpus = fleet.gpus
    entity_gpus: list[int] = []
    gpu_hosts: list[int] = []
    units: list[tuple[int, float, float]] = []  # GPU, share of compute, share of memory
    instances: list[tuple[int, int]] = []  # entity, unit
    hosts = {}
    for host_number, host in enumerate(fleet.hosts):
        first = len(entities)
        for gpu in host.gpus:
            here = len(gpu_hosts)
            gpu_hosts.append(host_number)
            for instance in (None, *gpu.instances):
                if instance is not None:
                    instances.append((len(entities), len(units)))
                    memory = mig_memory(gpu.model, instance.profile) / gpu.model.memory_total
                    units.append((here, mig_slices(instance.profile) / 7, memory))
                entities.append(Entity(host, gpu, instance))
                entity_gpus.append(here)
            if not gpu.instances:
                units.append((here, 1.0, 1.0))
        hosts[host.name] = slice(first, len(entities))
    rows = np.array(instances, dtype=np.int64).reshape(-1, 2)
    return Layout(
        entities=tuple(entities),
        entity_gpus=np.array(entity_gpus, dtype=np.int64),
        instance_rows=rows[:, 0],
        instance_units=rows[:, 1],
        gpu_hosts=np.array(gpu_hosts, dtype=np.int64),
        unit_gpus=np.array([gpu for gpu, _, _ in units], dtype=np.int64),
        unit_share=np.array([share for _, share, _ in units]),
        unit_memory=np.array([memory for _, _, memory in units]),
        unit_profiles=tuple(gpus[gpu].profile for gpu, _, _ in units),
        hosts=MappingProxyType(hosts),
    )


def present(layout: Layout, metric: Metric) -> Bools:
    """E: who reports `metric`: the board has it, and MIG leaves it."""

    def has(entity: Entity) -> bool:
        if metric.column in entity.gpu.model.lacks:
            return False
        if entity.instance is not None:
            return metric.column in _PER_INSTANCE
        return not (entity.gpu.instances and metric.column in _NOT_UNDER_MIG)

    return np.array([has(entity) for entity in layout.entities])
