"""Which models are measured, and in which order. Pure."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.contract.event import Status
from services.host import status
from services.llm_bench.results import LARGEST
from services.llm_bench.told import one_line

CODING: Final = "(coder|starcoder|code)"
BASELINE: Final = ("llama3.2:3b", "llama3.1:8b", "gemma2:9b")
"""General models beside which the coding models are seen: small and middle, each fits a card of 24 GB with room. Those
that are not installed are passed over."""

SHOWN: Final = 60
"""Characters of a name that cannot be used."""


@dataclass(frozen=True, slots=True)
class Model:
    """As `GET /api/tags` lists it."""

    name: str
    size: int
    """Bytes on disk."""
    digest: str
    remote: bool = False
    """Runs on somebody else's machine: nothing of this host is measured."""


@dataclass(slots=True)
class Selection:
    models: list[Model] = field(default_factory=list)
    """To be measured, smallest first: the first results come soon, and a card that is too small fails last."""
    aliases: dict[str, list[str]] = field(default_factory=dict)
    """Model -> other names with the same digest, which are not measured again."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(model, why)"""
    missing: list[str] = field(default_factory=list)
    """Asked for by name and not installed."""
    unusable: list[tuple[str, str]] = field(default_factory=list)
    """(model, why): under its name nothing can be measured."""


def model_of(item: Any) -> Model:
    """One entry of `models`. Raises ValueError."""
    try:
        name, size, digest = item.get("name") or item["model"], item["size"], item["digest"]
        remote = bool(item.get("remote_host") or item.get("remote_model"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a model: {reprlib.repr(item)}") from error
    if not isinstance(name, str) or not isinstance(digest, str) or type(size) is not int or not 0 <= size <= LARGEST:
        raise ValueError(f"not a model: {reprlib.repr(item)}")
    return Model(name, size, digest, remote)


def status_of(model: str) -> Status:
    """Tag and memo while it runs. Raises StatusError for a name that cannot be stored."""
    return status.make("bench", f"ollama_{model}")


def full_name(name: str) -> str:
    """Ollama's own rule: no tag is `:latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def select(
    installed: Iterable[Model], *, coding: re.Pattern[str], baseline: Sequence[str], asked: Sequence[str] | None = None
) -> Selection:
    """`asked` (by name) takes the place of `coding` and `baseline`. Of several names of one digest the one asked for,
    or else the first in the alphabet, is measured."""
    by_name = {full_name(model.name): model for model in installed}
    names = [full_name(name) for name in (asked if asked is not None else baseline)]
    result = Selection()
    if asked is not None:
        result.missing = [one_line(name) for name in names if name not in by_name]
    else:
        result.left_out = [(name, "baseline, not installed") for name in names if name not in by_name]
        names += sorted(name for name in by_name if coding.search(name))
    chosen: dict[str, Model] = {}
    for name in dict.fromkeys(name for name in names if name in by_name):
        _take(result, chosen, by_name[name])
    result.models = sorted(chosen.values(), key=lambda model: (model.size, model.name))
    return result


def _take(result: Selection, chosen: dict[str, Model], model: Model) -> None:
    try:
        status_of(model.name)
    except status.StatusError as error:
        result.unusable.append((one_line(model.name, SHOWN), one_line(str(error))))
        return
    if model.remote:
        result.left_out.append((model.name, "runs in the cloud, not on this host"))
    elif model.digest in chosen:
        result.aliases.setdefault(chosen[model.digest].name, []).append(model.name)
    else:
        chosen[model.digest] = model
