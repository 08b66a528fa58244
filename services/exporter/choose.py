"""Which source reads the GPUs of this host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from services.exporter.reading import Source, SourceError, Sweep
from services.settings import Settings, hostname

log = logging.getLogger("exporter")

ADVICE: Final = "run `gpumon doctor` for what this host lacks, or `--source mock` to try without a GPU"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a long-running user of a source ties it to; the defaults suit a single reading."""

    on_document: Callable[[bytes], None] | None = None
    """Gets each whole answer of nvidia-smi, where that is the source."""
    nvml_released: Callable[[], AbstractContextManager[bool | None]] = nullcontext
    """Inside of what it gives nobody else in the process holds NVML, so that it can be initialised anew."""


def open_source(settings: Settings, processes: bool = False, hooks: Hooks | None = None) -> Source:
    """The source EXPORTER_SOURCE names; `auto`: NVML, else nvidia-smi. `processes`: with the processes on each GPU.

    Raises SourceError where none can be opened. nvidia-smi is opened without running it, so it may also be its first
    `read` that fails; either way the message tells why NVML was not taken.
    """
    tied = hooks or Hooks()
    match settings.exporter_source:
        case "mock":
            return _mock(settings)
        case "nvml":
            return _nvml(processes, tied)
        case "nvidia-smi":
            return _smi(settings, processes, tied)
        case "auto":
            return _first_that_opens(settings, processes, tied)


def _first_that_opens(settings: Settings, processes: bool, hooks: Hooks) -> Source:
    try:
        return _nvml(processes, hooks)
    except SourceError as first:
        return SecondChoice(_smi(settings, processes, hooks), first)


class NeitherError(SourceError):
    """Neither NVML nor nvidia-smi can be read. One line for logs, `lines` for people."""

    def __init__(self, nvml: SourceError, smi: SourceError) -> None:
        self.lines = (f"NVML: {_sentence(nvml)}", f"nvidia-smi: {_sentence(smi)}", ADVICE)
        super().__init__(smi.trouble, "; ".join(self.lines))


class SecondChoice:
    """A source that stands in for another: its failures name both."""

    def __init__(self, source: Source, first: SourceError) -> None:
        self._source, self._first = source, first
        self._told = False

    @property
    def name(self) -> str:
        return self._source.name

    def read(self) -> Sweep:
        try:
            sweep = self._source.read()
        except SourceError as second:
            raise NeitherError(self._first, second) from second
        if not self._told:
            log.info("%s instead of NVML: %s", self.name, self._first)
            self._told = True
        return sweep

    def close(self) -> None:
        self._source.close()


def _sentence(error: SourceError) -> str:
    return str(error).rstrip(". ")


# Each source is imported when it is asked for: NVML's binding, XML and the simulator's numpy cost memory and start-up.


def _nvml(processes: bool, hooks: Hooks) -> Source:
    from services.exporter.nvml.source import NvmlSource  # noqa: PLC0415

    with hooks.nvml_released():
        return NvmlSource(processes, released=hooks.nvml_released)


def _smi(settings: Settings, processes: bool, hooks: Hooks) -> Source:
    from services.exporter.smi.source import SmiSource  # noqa: PLC0415

    return SmiSource(settings.nvidia_smi, settings.nvidia_smi_timeout, processes, on_document=hooks.on_document)


def _mock(settings: Settings) -> Source:
    from services.exporter.mock_boards import boards  # noqa: PLC0415
    from services.exporter.mock_source import MockSource, fleet  # noqa: PLC0415

    return MockSource(fleet(settings.node_name or hostname(), boards(settings.exporter_mock)))
