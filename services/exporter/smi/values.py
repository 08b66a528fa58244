"""One cell of nvidia-smi's XML as a number, or as the reason why there is none. Pure.

nvidia-smi writes a unit after every number. A number with another unit than the catalogue's (`MB` for `MiB`, `F` for
`C`) is `failed`, never converted and never taken as it stands.
"""

from __future__ import annotations

import re
from typing import Final

from services.contract.catalogue import Metric, Unit
from services.contract.sentinels import Missing
from services.exporter.reading import Number

Cell = Number | Missing

_DIGITS: Final = "([0-9]{1,19})"  # [0-9], not \d: no digits of other scripts; 19: no cell is as long as a 64-bit number
_FORMS: Final[dict[Unit, re.Pattern[str]]] = {
    Unit.CELSIUS: re.compile("(-?[0-9]{1,4}) C"),
    Unit.PERCENT: re.compile(f"{_DIGITS} %"),
    Unit.MEBIBYTE: re.compile(f"{_DIGITS} MiB"),
    Unit.MEGAHERTZ: re.compile(f"{_DIGITS} MHz"),
    Unit.WATT: re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) W"),
    Unit.COUNT: re.compile(_DIGITS),
    Unit.CODE: re.compile("P([0-9]{1,2})"),
    Unit.FLAG: re.compile("(Yes|No)"),
}
_OWN_FORMS: Final[dict[str, re.Pattern[str]]] = {
    "pcie_link_width": re.compile("([0-9]{1,2})x"),
    "pcie_max_link_width": re.compile("([0-9]{1,2})x"),
    "retired_pending": re.compile("(Yes|No)"),  # NVML tells a flag as well: nvmlDeviceGetRetiredPagesPendingStatus
}
_COUNT: Final = re.compile("([0-9]{1,15})")  # below 2^53: what is longer is one of the blank values of DCGM
_WORDS: Final = {"Yes": 1, "No": 0}

_UNSUPPORTED: Final = frozenset(
    {
        "n/a",
        "not supported",
        "not available",
        "function not found",
        "requested functionality has been deprecated",
    }
)
_PERMISSION: Final = frozenset({"insufficient permissions", "insufficient permission", "no permission"})
LOST: Final = "gpu is lost"
"""NVML_ERROR_GPU_IS_LOST as text (`nvmlErrorString`)."""


def plain(text: str | None) -> str:
    """Without the blanks and the square brackets some versions put around what is not a value: `[N/A]` -> `n/a`."""
    return (text or "").strip().removeprefix("[").removesuffix("]").lower()


def reason(text: str | None) -> Missing:
    """Why a text that is not a value stands where one should be.

    Everything that is not known to say "unsupported" or "permission" failed: `Unknown Error`, `ERR!`,
    `GPU requires reset`, an empty cell, a word no driver has used so far.
    """
    word = plain(text)
    if word in _UNSUPPORTED:
        return Missing.UNSUPPORTED
    return Missing.PERMISSION if word in _PERMISSION else Missing.FAILED


def is_lost(text: str | None) -> bool:
    """Some versions add a sentence: `GPU is lost.  Reboot the system to recover this GPU`."""
    return plain(text).partition(".")[0] == LOST


def told(text: str | None) -> str | None:
    """A text cell (serial, VBIOS, ...); None where the card has none or the driver does not tell it."""
    word = (text or "").strip()
    return word if word and not word.startswith("[") and reason(word) is Missing.FAILED and not is_lost(word) else None


def number(metric: Metric, text: str | None) -> Cell:
    """`number(gpu_temp, "71 C") == 71`; the value is in the catalogue's unit and range, else it is missing."""
    form = _OWN_FORMS.get(metric.column) or _FORMS[metric.unit]
    match = form.fullmatch((text or "").strip())
    if match is None:
        return reason(text)
    digits = match[1]
    value = _WORDS[digits] if digits in _WORDS else (int(digits) if metric.sql.is_integer else float(digits))
    return value if metric.low <= value <= metric.high else Missing.FAILED


def count(text: str | None) -> Cell:
    """A bare counter, as the ECC sections have them."""
    match = _COUNT.fullmatch((text or "").strip())
    return int(match[1]) if match else reason(text)
