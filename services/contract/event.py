"""The event: one JSON document per GPU (or MIG instance) per scrape, on topic `gpu-metrics-raw`.

Key = GPU UUID, so all samples of a GPU stay in one partition and in order. Headers: `schema_version`, `source`.
The same contract as JSON Schema: `schema/event.schema.json`, and of `gpu-events` `schema/gpu-event.schema.json`
(generated, a test compares).

A metric that is in neither `metrics` nor `gpu.missing` was not exposed by the exporter.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from services.contract.catalogue import PROPERTIES, SAMPLED, Metric

SCHEMA_VERSION: Final = 1
HEADER_SCHEMA_VERSION: Final = "schema_version"
HEADER_SOURCE: Final = "source"

ShortText = Annotated[str, msgspec.Meta(max_length=1024)]
Utc = Annotated[dt.datetime, msgspec.Meta(tz=True)]


def _value_type(metric: Metric) -> Any:
    """The Python type of a metric's value, its valid range included, so that decoding is validating."""
    if metric.sql.is_integer:
        return Annotated[int, msgspec.Meta(ge=int(metric.low), le=int(metric.high))] | None
    return Annotated[float, msgspec.Meta(ge=metric.low, le=metric.high)] | None


Metrics: Any = msgspec.defstruct(
    "Metrics",
    [(m.column, _value_type(m), None) for m in SAMPLED],
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
    module=__name__,
)
"""One optional field per sampled metric, in `SAMPLED` order: `msgspec.structs.astuple` gives a row."""

Properties: Any = msgspec.defstruct(
    "Properties",
    [(m.column, _value_type(m), None) for m in PROPERTIES],
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
    module=__name__,
)


class Gpu(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """Who was measured, and where it stood. Changes rarely: readers may compare the raw bytes and skip decoding."""

    uuid: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    hostname: ShortText
    instance_id: Annotated[int, msgspec.Meta(ge=0, le=32767)] | None = None
    """MIG GPU instance id (`GPU_I_ID`); None is the whole GPU."""
    instance_profile: ShortText | None = None
    """MIG profile, for example `1g.5gb`."""
    index: Annotated[int, msgspec.Meta(ge=0, le=32767)] | None = None
    device: ShortText | None = None
    model: ShortText | None = None
    pci_bus_id: ShortText | None = None
    driver_version: ShortText | None = None
    vbios_version: ShortText | None = None
    serial: ShortText | None = None
    brand: ShortText | None = None
    nvml_version: ShortText | None = None
    cluster: ShortText | None = None
    datacenter: ShortText | None = None
    rack: ShortText | None = None
    labels: dict[str, str] | None = None
    """Labels given by the target's configuration beyond cluster, datacenter and rack."""
    properties: Properties | None = None
    missing: dict[str, str] | None = None
    """Metric column -> why it has no value (`services.contract.sentinels.Missing`)."""


class Tenant(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """Kubernetes attribution of this sample."""

    pod: ShortText | None = None
    namespace: ShortText | None = None
    container: ShortText | None = None


class Status(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What the operator said the host was doing: idle, prod, bench, ..."""

    tag: ShortText | None = None
    memo: ShortText | None = None


class Derived(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """Percentages of what is measured; present only where both parts are. Views compute the same, so no column."""

    memory_percent: float | None = None
    power_percent: float | None = None


class Extra(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What the exporter said and the catalogue does not know: kept, not understood."""

    metrics: dict[str, float | str] | None = None
    """Series name with the labels that make it different -> value (text where JSON has no such number)."""
    labels: dict[str, str] | None = None
    fields: dict[str, Any] | None = None
    """Path -> value of fields that only a newer version knows. Put there by the sink that did not know them."""


CounterValue = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What a counter of the catalogue can hold."""


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One sample of one GPU or MIG instance."""

    schema_version: int
    time: Utc
    """When the scrape was made, UTC, milliseconds."""
    gpu: Gpu
    metrics: Metrics
    derived: Derived | None = None
    tenant: Tenant | None = None
    status: Status | None = None
    resets: dict[str, CounterValue] | None = None
    """Counter column -> value it had reached before it started again (see ADR on counter resets)."""
    extra: Extra | None = None
    source: ShortText | None = None
    """The scrape target."""


class Happening(StrEnum):
    """The kinds of a `GpuEvent`, and what its `detail` holds. A reader takes kinds it does not know as they are."""

    XID = "xid"
    """A driver error; `code` is the XID. `meaning`, `severity`, `immediate`, `investigatory` (NVIDIA's names of what to
    do) and `immediate_action`, `investigatory_action` (in words). From `gpumon exporter` also `count` (occurrences
    since the last event), `pid`, `process`, `origin`; `time` is when it occurred last. From others `previous` (the XID
    before), `err_code`, `err_msg`; `time` is that of the scrape."""
    GPU_LOST = "gpu_lost"
    """A GPU is gone: `last_seen`, and `reason` where the exporter tells it. Lost before it was ever seen: `reason`,
    `pci_bus_id`, `index`, `model`, as far as told, and no UUID where the driver could not tell it."""
    GPU_RETURNED = "gpu_returned"
    """It is back: `lost_at`."""
    COUNTER_RESET = "counter_reset"
    """Counters have started again: column -> `from`, `to`."""
    STATUS = "status"
    """The operator said what the host is doing now: `tag`, `memo`."""
    TARGET_DOWN = "target_down"
    """A scrape was refused, the first in a row: `reason`, `detail`."""
    TARGET_UP = "target_up"
    """Scrapes succeed again."""
    SNAPSHOT = "snapshot"
    """A whole document about the GPU: `document` (`nvidia-smi`), `hash`, `content`. Kept in `gpu_snapshots`, not in
    `gpu_events`; `time` is when the document was made."""


class GpuEvent(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """Something that happened to a GPU or a target, on topic `gpu-events`: rare, kept for good."""

    schema_version: int
    time: Utc
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """See `Happening`."""
    hostname: ShortText | None = None
    gpu_uuid: ShortText | None = None
    """None for events of a whole target."""
    instance_id: int | None = None
    code: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """The XID, else 0."""
    detail: dict[str, Any] | None = None
    status: Status | None = None
    """What the operator said the host was doing when it was noticed."""
    source: ShortText | None = None


encode: Final = msgspec.json.Encoder().encode
"""Event or GpuEvent -> JSON bytes."""
