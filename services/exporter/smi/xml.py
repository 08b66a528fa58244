"""`nvidia-smi -q -x`: bytes -> readings. Pure; every schema from v10 to v13.

The document is the driver's, but it is still input: entities are refused, and whatever is not such a document is a
NotALogError with the place where it stops to be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from services.contract.sentinels import Missing
from services.exporter.pci_address import canonical_pci
from services.exporter.reading import Device, Lost, Number, Process, Reading
from services.exporter.smi.cells import cells
from services.exporter.smi.mig import instances
from services.exporter.smi.values import is_lost, plain, told

_ROOT: Final = "nvidia_smi_log"
_END: Final = b"</nvidia_smi_log>"
_LABELS: Final = {
    "DCGM_FI_DEV_VBIOS_VERSION": "vbios_version",
    "DCGM_FI_DEV_SERIAL": "serial",
    "DCGM_FI_DEV_BRAND": "product_brand",
}
_OF_OTHERS: Final = frozenset({"processes", "accounted_processes"})
"""Sections with names that any user chooses: a program called `GPU is lost` is not the driver's word."""
Profiles = Mapping[tuple[str, int], str]
"""UUID of the GPU and number of the MIG device on it -> profile (`1g.5gb`), which the XML does not tell."""


class NotALogError(ValueError):
    """The bytes are not the XML of `nvidia-smi -q -x`."""


@dataclass(frozen=True, slots=True)
class Log:
    """One whole answer."""

    readings: tuple[Reading, ...]
    lost: tuple[Lost, ...]
    attached: int | None
    """GPUs that nvidia-smi counts; more than it shows when it cannot read one. None: an old schema."""
    shown: int
    """GPUs that have an element, in the order of their NVML index."""
    mig_devices: frozenset[tuple[str, int]] = field(default=frozenset())
    """What `parse` wants a profile for."""


def parse(xml: bytes, *, processes: bool = False, profiles: Profiles | None = None) -> Log:
    """Raises NotALogError. `profiles` names the MIG profiles; without it they are None."""
    root = document(xml)
    driver = told(root.findtext("driver_version"))
    readings: list[Reading] = []
    lost: list[Lost] = []
    mig: set[tuple[str, int]] = set()
    gpus = root.findall("gpu")
    for index, gpu in enumerate(gpus):
        outcome = _gpu(gpu, index, driver)
        if isinstance(outcome, Lost):
            lost.append(outcome)
            continue
        own, others, wanted = instances(gpu, outcome, profiles or {}, _processes(gpu) if processes else None)
        readings += [own, *others]
        mig |= wanted
    return Log(tuple(readings), tuple(lost), _attached(root), len(gpus), frozenset(mig))


def document(xml: bytes) -> Element:
    """The root of a log. Raises NotALogError."""
    try:
        root: Element = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # the last two: a made-up encoding
        raise NotALogError(f"not XML: {error}") from None
    if root.tag != _ROOT:
        raise NotALogError(f"<{root.tag}> where <{_ROOT}> should be")
    return root


def says_lost(gpu: Element) -> bool:
    """Whether a value of a GPU's element tells that it is lost."""
    return any(is_lost(text) for text in _told_by_driver(gpu))


def cut(output: bytes) -> bytes | None:
    """The document within what the program printed: warnings stand before and after it. None: there is none."""
    start = next((at for mark in (b"<?xml", b"<nvidia_smi_log") if (at := output.find(mark)) >= 0), -1)
    end = output.rfind(_END)
    return output[start : end + len(_END)] if 0 <= start < end else None


def pci_bus_id(text: str | None) -> str | None:
    """As DCGM writes it; older drivers tell four digits of domain: `0000:0c:00.0` -> `00000000:0C:00.0`."""
    try:
        return canonical_pci(text or "")
    except ValueError:
        return None


def _attached(root: Element) -> int | None:
    text = (root.findtext("attached_gpus") or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else None


def _gpu(gpu: Element, index: int, driver: str | None) -> Reading | Lost:
    device, labels = _identity(gpu), _labels(gpu, driver)
    if says_lost(gpu):
        return _lost(gpu, index, "GPU is lost")
    found = dict(cells(gpu))
    values: dict[str, Number] = {name: cell for name, cell in found.items() if not isinstance(cell, Missing)}
    if not values:
        return _lost(gpu, index, _complaint(gpu))
    if device is None:
        return _lost(gpu, index, "nvidia-smi tells no UUID or no PCI address of it")
    uuid, pci, model = device
    missing = {name: cell for name, cell in found.items() if isinstance(cell, Missing)}
    return Reading(Device(uuid, index, pci, model, labels=labels), values, missing)


def _identity(gpu: Element) -> tuple[str, str, str] | None:
    uuid = told(gpu.findtext("uuid"))
    pci = pci_bus_id(gpu.get("id")) or pci_bus_id(gpu.findtext("pci/pci_bus_id"))
    return (uuid, pci, told(gpu.findtext("product_name")) or "") if uuid and pci else None


def _labels(gpu: Element, driver: str | None) -> dict[str, str]:
    found = {name: told(gpu.findtext(tag)) for name, tag in _LABELS.items()}
    return {name: text for name, text in {"DCGM_FI_DRIVER_VERSION": driver, **found}.items() if text}


def _lost(gpu: Element, index: int, why: str) -> Lost:
    pci = pci_bus_id(gpu.get("id")) or pci_bus_id(gpu.findtext("pci/pci_bus_id"))
    return Lost(why, told(gpu.findtext("uuid")), index, pci, told(gpu.findtext("product_name")))


def _complaint(gpu: Element) -> str:
    """What most cells of a GPU without a single value say, for example `Unknown Error` or `GPU requires reset`."""
    texts = [text.strip().strip("[]") for text in _told_by_driver(gpu) if text.strip()]
    known = ("unknown error", "gpu requires reset", "err!", "timeout", "uninitialized")
    return next((text for text in texts if plain(text).startswith(known)), "nvidia-smi tells no value of it")


def _told_by_driver(element: Element) -> Iterator[str]:
    """Every text of an element but those of processes."""
    left = [element]
    while left:  # no recursion: garbage may be nested as deep as it likes
        part = left.pop()
        yield part.text or ""
        left += [child for child in reversed(part) if child.tag not in _OF_OTHERS]


def _processes(gpu: Element) -> list[tuple[int | None, Process]] | None:
    """Each with the GPU instance it runs on. None where the section says that it is not told."""
    section = gpu.find("processes")
    if section is None or (not len(section) and (section.text or "").strip() not in ("", "None")):
        return None
    found = [_process(info) for info in section.findall("process_info")]
    return [process for process in found if process is not None]


def _process(info: Element) -> tuple[int | None, Process] | None:
    pid, instance = (info.findtext(tag, "").strip() for tag in ("pid", "gpu_instance_id"))
    if not re.fullmatch("[0-9]{1,10}", pid):
        return None
    memory = re.fullmatch("([0-9]{1,9}) MiB", info.findtext("used_memory", "").strip())
    process = Process(
        pid=int(pid),
        user=None,
        command=told(info.findtext("process_name")),
        used_memory=int(memory[1]) if memory else None,
        kind=told(info.findtext("type")) or "C",
    )
    return (int(instance) if re.fullmatch("[0-9]{1,4}", instance) else None), process
