"""What a source says of the GPUs of this host: the types between reading (NVML, nvidia-smi, mock) and rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.contract.sentinels import Missing

Number = int | float


@dataclass(frozen=True, slots=True)
class Device:
    """Identity of a GPU, or of a MIG GPU instance on it."""

    uuid: str
    """Of the GPU, also for an instance: `GPU-...`."""
    index: int
    """NVML index of the GPU."""
    pci_bus_id: str
    """As DCGM writes it: `00000000:31:00.0` (eight digits of domain, upper case)."""
    model: str
    instance_id: int | None = None
    instance_profile: str | None = None
    """MIG profile, for example `1g.5gb`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """DCGM label field (`DCGM_FI_DRIVER_VERSION`, ... see `LABEL_FIELDS` of the catalogue) -> text."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process on a GPU."""

    pid: int
    user: str | None
    command: str | None
    used_memory: int | None
    """MiB; None: the driver does not say."""
    kind: str = "C"
    """As nvidia-smi writes it: `C` compute, `G` graphics, `C+G`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU or MIG instance at one moment. A metric is in `values`, or in `missing` with the reason, never both."""

    device: Device
    values: Mapping[str, Number]
    """Catalogue column -> value in the catalogue's unit."""
    missing: Mapping[str, Missing]
    """Catalogue column -> why it has no value. A column in neither was not asked for."""
    processes: tuple[Process, ...] | None = None
    """None: not asked for, or not told."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A GPU that was there, or is counted, and cannot be read."""

    reason: str
    """What the driver said, for example `GPU is lost`."""
    uuid: str | None = None
    index: int | None = None
    pci_bus_id: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over all GPUs of the host."""

    source: str
    """`nvml`, `nvidia-smi` or `mock`."""
    time: float
    """When it was read, seconds since the epoch."""
    readings: tuple[Reading, ...]
    """By GPU index; the instances of a GPU follow it."""
    lost: tuple[Lost, ...] = ()


class Trouble(StrEnum):
    """Why a source cannot be read at all."""

    NO_DRIVER = "no_driver"
    """Library or program not there, or the kernel module is not loaded."""
    PERMISSION = "permission"
    MISMATCH = "mismatch"
    """Library and kernel module are of different versions (after an upgrade without a reboot)."""
    HUNG = "hung"
    """No answer within the time limit."""
    GARBAGE = "garbage"
    """An answer that is not what it should be."""
    FAILED = "failed"
    """Any other error of the driver."""


class SourceError(Exception):
    """The source as a whole cannot be read. The message says what is wrong and what to do."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class Source(Protocol):
    """The port. Used from one thread; `read` blocks (the sampler watches over it)."""

    @property
    def name(self) -> str:
        """`nvml`, `nvidia-smi` or `mock`."""
        ...

    def read(self) -> Sweep:
        """One pass. One lost GPU is in `lost`, the others are read. Raises SourceError when none can be."""
        ...

    def close(self) -> None: ...
