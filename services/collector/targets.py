"""Which exporters to scrape, as Prometheus would find them: addresses, labels, shards. Pure; files are in `file_sd.py`.

Source: Prometheus' documentation of `file_sd_configs`, `static_configs` and `relabel_configs` (action `hashmod`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as shortened
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

ADDRESS = "__address__"
_PARAM = "__param_"


class TargetError(ValueError):
    """A target or a target file that cannot be understood; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One exporter."""

    address: str
    """`host:port`, Prometheus' `__address__`: what shards are made of."""
    url: str
    """Full URL, credentials included: never log it."""
    source: str
    """Its name in events, metrics and logs: the address, or the URL (no credentials) where that says more."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What is stored with its samples; names beginning with `__` are gone."""


def make_target(labels: Mapping[str, str]) -> Target:
    """From labels with `__address__` (`host:port`) and, if need be, `__scheme__`, `__metrics_path__`, `__param_x`."""
    address = labels.get(ADDRESS, "")
    scheme, path = labels.get("__scheme__", "http"), labels.get("__metrics_path__", "/metrics")
    if scheme not in ("http", "https"):
        raise TargetError(f"{address!r}: __scheme__ {scheme!r} is not http or https")
    query = urlencode({k.removeprefix(_PARAM): v for k, v in labels.items() if k.startswith(_PARAM)})
    host = _check_host(address)
    url = urlunsplit((scheme, address, path if path.startswith("/") else f"/{path}", query, ""))
    plain = scheme == "http" and path == "/metrics" and not query
    source = host if plain else url.replace(address, host, 1)
    return Target(host, url, source, {k: v for k, v in labels.items() if not k.startswith("__")})


def _check_host(address: str) -> str:
    """The address without credentials. Raises TargetError where it is not `host` or `host:port`."""
    try:
        parts = urlsplit(f"//{address}")
        valid = bool(parts.hostname) and parts.netloc == address and _is_plain(address)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise TargetError(f"{address!r} is not an address: `host:port` is expected")
    return address.rpartition("@")[2]


def _is_plain(text: str) -> bool:
    """No blanks, no control characters, no lone surrogates (what is left of bytes that are not UTF-8)."""
    return text.isprintable() and " " not in text


def parse_static(entry: str) -> Target:
    """From an entry of TARGETS: `host:port`, or a full URL. Raises TargetError."""
    if not _is_plain(entry):
        raise TargetError(f"TARGETS: {entry!r} is not an address: it holds blanks, control characters or no UTF-8")
    if "://" not in entry:
        if not re.search(r":\d+\Z", entry):
            raise TargetError(f"TARGETS: {entry!r} is neither `host:port` nor a URL; for example `localhost:9400`")
        return _make_static({ADDRESS: entry})
    try:
        parts = urlsplit(entry)
    except ValueError as error:  # an unclosed bracket
        raise TargetError(f"TARGETS: {entry!r} is not a URL: {error}") from None
    labels = {ADDRESS: parts.netloc, "__scheme__": parts.scheme, "__metrics_path__": parts.path or "/metrics"}
    target = _make_static(labels)
    if not parts.query:
        return target
    return Target(target.address, f"{target.url}?{parts.query}", f"{target.source}?{parts.query}", target.labels)


def _make_static(labels: Mapping[str, str]) -> Target:
    try:
        return make_target(labels)
    except TargetError as error:
        raise TargetError(f"TARGETS: {error}") from None


def parse_groups(document: Any) -> list[Target]:
    """From a `file_sd` document: `[{"targets": ["host:port", ...], "labels": {...}}, ...]`. Raises TargetError."""
    if not isinstance(document, list):
        raise TargetError(f"a list of target groups is expected, not {type(document).__name__}")
    return [target for group in document for target in _parse_group(group)]


def _parse_group(group: Any) -> list[Target]:
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        raise TargetError(f'a group is {{"targets": [...], "labels": {{...}}}}, not {shortened(group)}')
    unknown = set(group) - {"targets", "labels"}
    if unknown:
        raise TargetError(f"a group has only `targets` and `labels`, not {', '.join(sorted(map(str, unknown)))}")
    labels = _check_labels({} if group.get("labels") is None else group["labels"])
    for address in group["targets"]:
        if not isinstance(address, str):
            raise TargetError(f"a target is text, not {shortened(address)}")
    return [make_target({ADDRESS: address, **labels}) for address in group["targets"]]


def _check_labels(labels: Any) -> dict[str, str]:
    if not isinstance(labels, dict):
        raise TargetError(f"labels are names and texts, not {shortened(labels)}")
    for name, value in labels.items():
        if not (isinstance(name, str) and name):  # Prometheus 3 takes any text
            raise TargetError(f"{shortened(name)} is not a label name")
        if not isinstance(value, str):
            raise TargetError(f"label {name}: the value is text (in quotes), not {shortened(value)}")
        if not (_is_storable(name) and _is_storable(value)):
            raise TargetError(f"label {shortened(name)}: NUL and lone surrogates cannot be stored")
    return labels


def _is_storable(text: str) -> bool:
    """Whether events (UTF-8) and PostgreSQL's text can hold it. JSON's `\\ud800` is half a character."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def hashmod(value: str, modulus: int) -> int:
    """Prometheus' `hashmod`: the last 8 bytes of the MD5, big-endian, modulo."""
    digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "big") % modulus


def choose(targets: Iterable[Target], labels: Mapping[str, str], shard_index: int, shard_count: int) -> list[Target]:
    """This collector's targets, each once (the first of a source wins), with the collector's labels below their own."""
    chosen: dict[str, Target] = {}
    for target in targets:
        if hashmod(target.address, shard_count) == shard_index and target.source not in chosen:
            merged = {**labels, **target.labels}
            chosen[target.source] = Target(target.address, target.url, target.source, merged)
    return list(chosen.values())
