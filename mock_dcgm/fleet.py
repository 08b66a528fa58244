"""Which GPUs there are: hosts, boards, MIG instances, tenants, workloads. Read from YAML or made from flags.

A fleet file:

    seed: 7                      # UUIDs and all randomness follow from it
    hosts:
      - name: node-{index:02}    # {index} counts up over the whole file's copies of this entry
        count: 2
        driver: 580.105.08       # optional; default is the first board's
        gpus:
          - {model: A100, count: 7, profile: training, namespace: research, pod: "llm-{host}-{gpu}", container: train}
          - {model: A100, mig: [3g.40gb, 2g.20gb, 1g.10gb], profile: inference}
    faults:
      - {kind: ecc_storm, host: node-00, gpu: 3, start: 60, duration: 120, value: 5}
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import yaml

from mock_dcgm.faults import FaultSpec
from mock_dcgm.models import MODELS, GpuModel, mig_gigabytes, mig_slices
from mock_dcgm.workload import PROFILES


class FleetError(Exception):
    """The fleet cannot be built; the message says where and what is allowed."""


class GpuSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`count` equal boards of a host."""

    model: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    profile: str = "cycle"
    mig: tuple[str, ...] = ()
    pod: str | None = None
    namespace: str | None = None
    container: str | None = None


class HostSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`count` equal hosts."""

    name: str
    gpus: tuple[GpuSpec, ...]
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    driver: str | None = None


class FleetSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A fleet file."""

    hosts: tuple[HostSpec, ...]
    seed: int = 0
    faults: tuple[FaultSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG GPU instance."""

    profile: str
    id: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One board in its host."""

    model: GpuModel
    index: int
    uuid: str
    pci_bus_id: str
    profile: str
    pod: str | None
    namespace: str | None
    container: str | None
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    driver: str
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    hosts: tuple[Host, ...]
    seed: int
    faults: tuple[FaultSpec, ...] = ()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All boards, host by host: the order of every array of the simulation."""
        return tuple(gpu for host in self.hosts for gpu in host.gpus)


_GPUS_PER_HOST_MAX: Final = 32  # PCI buses 0x10 to 0xF0 in steps of 7; larger hosts do not exist
_TENANTS: Final = {
    "cycle": ("demo", "cycle", "main"),
    "training": ("research", "trainer", "train"),
    "inference": ("serving", "llm", "server"),
    "bursty": ("batch", "job", "worker"),
    "held": ("notebooks", "notebook", "jupyter"),
    "cluster": ("research", "job", "worker"),
}
"""Namespace, pod prefix and container that flags give each profile's GPUs; an idle GPU belongs to nobody."""


def load(path: Path) -> FleetSpec:
    """Read a fleet file. Raises FleetError with the place in the document."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), FleetSpec)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise FleetError(f"fleet file {path}: {error}") from None


def spread(gpus: int, hosts: int, models: list[tuple[str, int]], profile: str, seed: int) -> FleetSpec:
    """A fleet from flags: `gpus` boards evenly over `hosts`; `models` are (name, weight), in turn along the hosts."""
    if not 1 <= hosts <= gpus:
        raise FleetError(f"{gpus} GPUs on {hosts} hosts: every host needs a GPU")
    order = [name for name, weight in models for _ in range(weight)]
    if len(order) > gpus:
        asked = ", ".join(f"{name}={weight}" for name, weight in models)
        raise FleetError(
            f"models {asked} are {len(order)} GPUs, the fleet has {gpus}: give --gpus {len(order)} or more"
        )
    namespace, prefix, container = _TENANTS.get(profile, (None, None, None))
    pod = f"{prefix}-{{host}}-{{gpu}}" if prefix else None
    width = max(3, len(str(hosts - 1)))
    specs, first = [], 0
    for index in range(hosts):
        count = gpus // hosts + (index < gpus % hosts)
        names = [order[(first + i) * len(order) // gpus if len(order) > 1 else 0] for i in range(count)]
        boards = tuple(GpuSpec(n, 1, profile, (), pod, namespace, container) for n in names)
        specs.append(HostSpec(f"gpu-node-{index:0{width}}", boards))
        first += count
    return FleetSpec(tuple(specs), seed)


def build(spec: FleetSpec, seed: int | None = None) -> Fleet:
    """The fleet of a spec; `seed` overrides the file's. Raises FleetError."""
    seed = spec.seed if seed is None else seed
    hosts = [
        _host(host, _fill(host.name, index=index), seed)
        for host in spec.hosts
        for index in range(host.count)
    ]  # fmt: skip
    names = [host.name for host in hosts]
    if not hosts:
        raise FleetError("the fleet has no hosts")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FleetError(f"host {twice!r} appears twice: give each a name, or {{index}} in a name with a count")
    return Fleet(tuple(hosts), seed, spec.faults)


def _fill(text: str, **values: str | int) -> str:
    try:
        return text.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(f"{{{name}}}" for name in values)
        raise FleetError(f"name {text!r}: {error!r}; known placeholders are {known}") from None


def _host(spec: HostSpec, name: str, seed: int) -> Host:
    boards = [gpu for gpu in spec.gpus for _ in range(gpu.count)]
    if not 1 <= len(boards) <= _GPUS_PER_HOST_MAX:
        raise FleetError(f"host {name!r} has {len(boards)} GPUs; allowed are 1 to {_GPUS_PER_HOST_MAX}")
    gpus = tuple(_gpu(board, name, index, seed) for index, board in enumerate(boards))
    return Host(name, spec.driver or gpus[0].model.driver, gpus)


def _gpu(spec: GpuSpec, host: str, index: int, seed: int) -> Gpu:
    if spec.model not in MODELS:
        raise FleetError(f"unknown model {spec.model!r}; known are {', '.join(MODELS)}")
    if spec.profile not in PROFILES:
        raise FleetError(f"unknown profile {spec.profile!r}; known are {', '.join(PROFILES)}")
    model = MODELS[spec.model]

    def named(text: str | None) -> str | None:
        return _fill(text, host=host, gpu=index) if text else None

    digest = hashlib.sha256(f"{seed}/{host}/{index}".encode()).digest()
    return Gpu(
        model=model,
        index=index,
        uuid=f"GPU-{uuid.UUID(bytes=digest[:16])}",
        pci_bus_id=f"00000000:{0x10 + 7 * index:02X}:00.0",
        profile=spec.profile,
        pod=named(spec.pod),
        namespace=named(spec.namespace),
        container=named(spec.container),
        instances=_instances(spec, model),
    )


_FIRST_INSTANCE_ID: Final = {7: 0, 4: 1, 3: 1, 2: 3, 1: 7}
"""Where the driver starts to count GPU instance ids of a size (1g: 7 to 13, 2g: 3 to 5, 3g: 1 and 2)."""


def _instances(spec: GpuSpec, model: GpuModel) -> tuple[Instance, ...]:
    for profile in spec.mig:
        if profile not in model.mig_profiles:
            allowed = ", ".join(model.mig_profiles) or "none: this board has no MIG"
            raise FleetError(f"MIG profile {profile!r} on {model.key}; allowed: {allowed}")
    if not spec.mig:
        return ()
    memory = mig_gigabytes(model.mig_profiles[-1])
    if sum(map(mig_slices, spec.mig)) > 7 or sum(map(mig_gigabytes, spec.mig)) > memory:
        raise FleetError(f"MIG profiles {', '.join(spec.mig)} do not fit on one {model.key}: 7 slices, {memory} GB")
    taken: set[int] = set()
    instances = []
    for profile in spec.mig:
        number = _FIRST_INSTANCE_ID[mig_slices(profile)]
        while number in taken:
            number += 1
        taken.add(number)
        instances.append(Instance(profile, number))
    return tuple(instances)
