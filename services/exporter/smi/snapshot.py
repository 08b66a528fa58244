"""Whole `nvidia-smi -q -x` documents, one per GPU: kept when something stable in them changes, and on a slow clock.

A sample a second of 20 kB would be 1.7 GB a day and GPU, nearly all of it the same. What is stable is listed here: an
element of a newer driver that is not listed causes no documents by itself and still comes with the slow clock, whole.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element, tostring

from services.exporter.reading import SourceError
from services.exporter.smi.errors import garbage, trouble
from services.exporter.smi.program import SmiProgram
from services.exporter.smi.values import told
from services.exporter.smi.xml import NotALogError, cut, document, says_lost
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("exporter.snapshot")

SECONDS_BETWEEN: Final = 60.0
"""Seconds between two looks at most often: nvidia-smi takes 0.1 s of CPU per GPU, and what is stable changes on a
reboot, a `nvidia-smi -pl`, a page that is retired."""
FORMAT: Final = "nvidia-smi-xml"

_HEADER: Final = ("driver_version", "cuda_version")
_STABLE: Final = frozenset({
    "product_name", "product_brand", "product_architecture", "display_mode", "display_attached", "persistence_mode",
    "addressing_mode", "mig_mode", "accounting_mode", "accounting_mode_buffer_size", "driver_model", "serial",
    "uuid", "pdi", "minor_number", "vbios_version", "multigpu_board", "board_id", "board_part_number",
    "gpu_part_number", "gpu_fru_part_number", "gpu_module_id", "platformInfo", "inforom_version",
    "gpu_operation_mode", "c2c_mode", "gpu_virtualization_mode", "gpu_reset_status", "gpu_recovery_action",
    "gsp_firmware_version", "ibmnpu", "sparse_operation_mode", "compute_mode", "dram_encryption_mode", "ecc_mode",
    "retired_pages", "remapped_rows", "supported_gpu_target_temp", "power_smoothing", "power_profiles",
    "edpp_multiplier", "applications_clocks", "default_applications_clocks", "deferred_clocks", "max_clocks",
    "max_customer_boost_clocks", "clock_policy", "fabric", "capabilities",
})  # fmt: skip
"""Elements of `<gpu>` that are stable with all that is in them."""
_STABLE_PARTS: Final = re.compile(
    r"""pci/pci_(?!.*current_link_gen).*   # address, ids, link; for the current generation see `_link_gen`
    |temperature/.*(?:threshold|target_temperature)
    |\w*power_readings/(?:requested_|default_|min_|max_)?power_limit   # not the enforced one: Dynamic Boost moves it
    |(?:fb|bar1)_memory_usage/total
    |ecc_errors/(?:.*/)?(?:sram_threshold_exceeded|channel_repair_pending|tpc_repair_pending|unrepairable_memory)
    |mig_devices/mig_device/(?:index|\w+_instance_id|device_attributes/.*|fb_memory_usage/total)""",
    re.VERBOSE,
)
"""Paths that are stable within elements that are not."""
_BUSY: Final = "P0"


@dataclass(frozen=True, slots=True)
class Document:
    """One GPU's part of the answer, with the header of the log: a log of its own."""

    gpu_uuid: str
    time: float
    """When it was read, seconds since the epoch."""
    hash: str
    """SHA-256 of what is stable in it, hexadecimal."""
    xml: str

    def content(self) -> dict[str, Any]:
        """What goes into `gpu_snapshots.content`."""
        return {"format": FORMAT, "xml": self.xml}


class SnapshotKeeper:
    """`poll` looks and keeps; `documents` may be asked from any thread."""

    def __init__(
        self,
        program: str = "nvidia-smi",
        timeout: float = 30.0,
        interval: float = 21_600.0,
        clock: Clock | None = None,
    ) -> None:
        """`timeout` of nvidia-smi and `interval` between two documents without a change, in seconds."""
        self._program = SmiProgram(program, timeout)
        self._interval = interval
        self._clock = clock or SystemClock()
        self._documents: dict[str, Document] = {}
        self._link_gens: dict[str, str] = {}
        self._looked: float | None = None
        self._trouble: str | None = None

    def documents(self) -> list[Document]:
        """The newest kept one of each GPU, by UUID; of one that is gone, its last."""
        return [kept for _, kept in sorted(self._documents.copy().items())]

    @property
    def timestamp(self) -> float | None:
        """Time of the newest document: it changes when any does."""
        return max((kept.time for kept in self.documents()), default=None)

    def poll(self) -> bool:
        """Run nvidia-smi where the last look is a minute old. True: something new is kept. Never raises SourceError:
        trouble is logged once, and tried again after a minute."""
        now = self._clock.monotonic()
        if self._looked is not None and now - self._looked < SECONDS_BETWEEN:
            return False
        self._looked = now
        try:
            xml = self._ask()
        except SourceError as error:
            self._tell(str(error))
            return False
        self._tell(None)
        return self._keep(xml)

    def offer(self, xml: bytes) -> bool:
        """The same with a document that was read anyway, by the nvidia-smi source; `poll` then has nothing to do."""
        now = self._clock.monotonic()
        if self._looked is not None and now - self._looked < SECONDS_BETWEEN:
            return False
        self._looked = now
        return self._keep(xml)

    def follow(self, stop: threading.Event) -> None:
        """`poll` until `stop` is set; for a thread."""
        while not stop.is_set():
            self.poll()
            stop.wait(SECONDS_BETWEEN)

    def _ask(self) -> bytes:
        answer = self._program.run("-q", "-x")
        xml = cut(answer.stdout)
        if xml is None:
            raise trouble(self._program.program, answer)
        try:
            document(xml)
        except NotALogError as error:
            raise garbage(self._program.program, answer, str(error)) from None
        return xml

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self._trouble:
            log.warning("no nvidia-smi document: %s", problem)
        elif problem is None and self._trouble is not None:
            log.info("nvidia-smi documents are kept again")
        self._trouble = problem

    def _keep(self, xml: bytes) -> bool:
        now, changed = self._clock.time(), False
        for found in self._split(xml, now):
            old = self._documents.get(found.gpu_uuid)
            if old is None or old.hash != found.hash or found.time - old.time >= self._interval:
                self._documents[found.gpu_uuid] = found
                changed = True
        return changed

    def _split(self, xml: bytes, now: float) -> Iterator[Document]:
        root = document(xml)
        prologue = xml[: xml.find(b"<nvidia_smi_log")].decode("utf-8", "replace")
        for gpu in root.findall("gpu"):
            uuid = told(gpu.findtext("uuid"))
            if uuid is not None and not says_lost(gpu):
                alone = copy(root)
                alone[:] = [child for child in root if child.tag != "gpu" or child is gpu]
                text = prologue + tostring(alone, encoding="unicode")
                yield Document(uuid, now, stable_hash(root, gpu, self._link_gen(uuid, gpu)), text)

    def _link_gen(self, uuid: str, gpu: Element) -> str:
        """PCIe generation while the GPU works. An idle one slows its link down: no change that is worth a document."""
        current = gpu.findtext("pci/pci_gpu_link_info/pcie_gen/current_link_gen") or ""
        if gpu.findtext("performance_state") == _BUSY or uuid not in self._link_gens:
            self._link_gens[uuid] = current
        return self._link_gens[uuid]


def stable_hash(root: Element, gpu: Element, link_gen: str) -> str:
    """Over path and text of what is stable, in the order of the document."""
    lines = [f"{tag}={root.findtext(tag)}" for tag in _HEADER]
    lines += [f"{path}={text}" for path, text in _leaves(gpu, "") if _is_stable(path)]
    return hashlib.sha256("\n".join([*lines, f"link_gen={link_gen}"]).encode()).hexdigest()


def _is_stable(path: str) -> bool:
    return path.partition("/")[0] in _STABLE or _STABLE_PARTS.fullmatch(path) is not None


def _leaves(element: Element, at: str) -> Iterator[tuple[str, str]]:
    for child in element:
        path = f"{at}{child.tag}"
        if len(child):
            yield from _leaves(child, f"{path}/")
        else:
            yield path, (child.text or "").strip()
