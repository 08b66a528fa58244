"""The enricher: what labels say about a sample - identity, location, tenant - and what follows from its values.

Small pure functions. Everything that depends only on labels is built once per label set and reused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from services.contract.catalogue import LABEL_FIELDS
from services.contract.derived import memory_percent, percent
from services.contract.event import Derived, Gpu, Tenant
from services.contract.label import escape

Key = tuple[str, int | None]
"""Identity of what one event describes: GPU UUID, and MIG instance id or None."""

_IDENTITY: Final = {
    "device": "device",
    "modelName": "model",
    "model_name": "model",  # NvLink series
    "pci_bus_id": "pci_bus_id",
    "Hostname": "hostname",
    "hostname": "hostname",  # dcgm-exporter after 4.5.3-4.8.2
    "GPU_I_PROFILE": "instance_profile",
    **LABEL_FIELDS,
    **dict.fromkeys(("UUID", "uuid", "gpu_uuid"), "uuid"),  # default, --use-old-namespace, NvLink series
}
"""Label -> field of `Gpu`."""
_INVENTORY: Final = frozenset(LABEL_FIELDS.values())
"""Labels of `gpumon_gpu_info`, named as the fields of `Gpu`. On no other series: a `serial` may be of anything."""
_ERROR: Final = ("err_code", "err_msg")
"""On XID series only: they say what the XID means, not whose it is."""
_TENANT: Final = (
    ("pod", "exported_pod", "pod_name"),
    ("namespace", "exported_namespace", "pod_namespace"),
    ("container", "exported_container", "container_name"),
)
"""Field of `Tenant` first. `exported_*` wins over the plain name: it stands where a Prometheus in between already used
the plain name for the exporter's own pod. The names ending in `_name` are those of --use-old-namespace."""
_TENANT_NAMES: Final = frozenset(name for names in _TENANT for name in names)
_INT16: Final = 32767
_INT16_DIGITS: Final = 5
_TEXT_MAX: Final = 1024  # characters, the event's limit. Longer text is kept, but as an unknown label
_LIMITS: Final = {"uuid": 128}


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What one label set says. Compared by identity: there is one per label set."""

    key: Key | None
    """None: the series belongs to no GPU."""
    identity: dict[str, Any]
    """Fields of `Gpu`."""
    tenant: Tenant | None
    labels: dict[str, str]
    """Labels this project gives no meaning to."""
    error: dict[str, str] | None
    """`err_code` and `err_msg` of an XID series."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What all series of one GPU or instance say together in a scrape."""

    gpu: Gpu
    tenant: Tenant | None
    """None when there is none, and when several pods share the GPU: no sample is any one pod's then."""
    labels: dict[str, str] | None
    """Unknown labels; `tenants` lists the sharing pods as namespace/pod/container."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target stands, from its configuration."""

    hostname: str
    """Used where the exporter gives none (--no-hostname)."""
    location: dict[str, str]
    """cluster, datacenter, rack"""
    labels: dict[str, str] | None

    @classmethod
    def of(cls, source: str, labels: Mapping[str, str]) -> Place:
        """`source` is `host:port` or a URL. Labels that begin with `__` are Prometheus' internal ones."""
        location = {name: labels[name] for name in ("cluster", "datacenter", "rack") if labels.get(name)}
        rest = {n: v for n, v in labels.items() if n not in ("cluster", "datacenter", "rack") and n[:2] != "__"}
        return cls(rest.get("hostname") or host_of(source), location, rest or None)


def host_of(source: str) -> str:
    """`http://gpu-7:9400/metrics` and `gpu-7:9400` -> `gpu-7`; what has no host is returned whole."""
    url = source if "//" in source else "//" + source
    try:
        return urlsplit(url).hostname or source
    except ValueError:  # an unclosed bracket
        return source


def understand(labels: Mapping[str, str]) -> Meaning:
    """Labels of one series -> what they mean. Empty values count as absent, as in Prometheus."""
    rest: dict[str, str] = {}
    identity: dict[str, Any] = {}
    for name, value in labels.items():
        field = _IDENTITY.get(name)
        if field is None or len(value) > _LIMITS.get(field, _TEXT_MAX):
            if value:
                rest[name] = sys.intern(value)
        elif value:
            identity.setdefault(field, sys.intern(value))
    uuid = identity.pop("uuid", None)
    _take_number(rest, "gpu", identity, "index")
    _take_number(rest, "GPU_I_ID", identity, "instance_id")
    tenant = None if _TENANT_NAMES.isdisjoint(rest) else _take_tenant(rest)
    error: dict[str, str] = {name: rest.pop(name) for name in _ERROR if name in rest}
    return Meaning((uuid, identity.get("instance_id")) if uuid else None, identity, tenant, rest, error or None)


def _take_number(labels: dict[str, str], name: str, identity: dict[str, Any], field: str) -> None:
    """Moves a small number from a label into a field; text that is none stays a label."""
    text = labels.get(name, "")
    if len(text) <= _INT16_DIGITS and text.isascii() and text.isdigit() and int(text) <= _INT16:
        identity[field] = int(labels.pop(name))


def _take_tenant(labels: dict[str, str]) -> Tenant | None:
    """Moves the Kubernetes labels into a Tenant. What `exported_pod` displaces stays a label."""
    given: dict[str, str] = {}
    for field, exported, old in _TENANT:
        name = next((n for n in (exported, field, old) if n in labels), None)
        if name is not None and len(labels[name]) <= _TEXT_MAX:
            given[field] = labels.pop(name)
    return Tenant(**given) if given else None


def describe(
    series: tuple[Meaning, ...], others: tuple[Meaning, ...], place: Place, infos: tuple[Meaning, ...] = ()
) -> Context:
    """One GPU's context from its label sets: of catalogue metrics, of other series, and of `gpumon_gpu_info`.

    The first label set that has a field decides it. Only catalogue metrics speak for tenant and unknown labels: others
    carry labels that tell series apart (`nvlink`, `clock_event`), which belong to the series' name, not to the GPU.
    """
    identity: dict[str, Any] = {"hostname": place.hostname}
    for meaning in infos:
        identity |= {name: text for name, text in meaning.labels.items() if name in _INVENTORY and _fits(text)}
    for meaning in reversed((*series, *others)):
        identity |= meaning.identity
        identity["uuid"] = meaning.key[0] if meaning.key else ""
    tenants = dict.fromkeys(m.tenant for m in series if m.tenant is not None)
    labels: dict[str, dict[str, None]] = {}
    for name, value in (item for meaning in series for item in meaning.labels.items()):
        labels.setdefault(name, {})[value] = None
    merged = {name: ", ".join(values) for name, values in labels.items()}
    if len(tenants) > 1:
        merged["tenants"] = ", ".join(map(_tenant_name, tenants))
    gpu = Gpu(**(identity | place.location), labels=place.labels)
    return Context(gpu, next(iter(tenants)) if len(tenants) == 1 else None, merged or None)


def _fits(text: str) -> bool:
    return len(text) <= _TEXT_MAX


def _tenant_name(tenant: Tenant) -> str:
    return "/".join((tenant.namespace or "", tenant.pod or "", tenant.container or ""))


def series_suffix(meaning: Meaning, context: Context) -> str:
    """The labels that set a series apart from its GPU's others, as `{name="value",...}`; empty when there are none."""
    common = context.labels or {}
    differing = {name: value for name, value in meaning.labels.items() if common.get(name) != value}
    if meaning.tenant is not None and meaning.tenant != context.tenant:
        differing |= msgspec.structs.asdict(meaning.tenant)
    if not differing:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in differing.items() if value) + "}"


def derive(columns: Mapping[str, list[Any]], rows: int) -> list[Derived | None]:
    """Memory % and power % of each row. Memory in MiB, power and its limit in W.

    Without `fb_total` the whole is used + free + reserved, which is how DCGM defines it (drivers before R510 have no
    `reserved` and count it in `used`).
    """
    nothing = [None] * rows
    names = ("fb_used", "fb_total", "fb_free", "fb_reserved")
    memory = [memory_percent(*values) for values in zip(*(columns.get(n, nothing) for n in names), strict=True)]
    power = map(percent, columns.get("power_usage", nothing), columns.get("power_limit", nothing))
    return [
        None if m is None and p is None else Derived(memory_percent=m, power_percent=p)
        for m, p in zip(memory, power, strict=True)
    ]
