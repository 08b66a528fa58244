"""Role `catalogue`: documents that follow from the catalogue, so that none is written by hand."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable

import msgspec

from services.contract import xid
from services.contract.catalogue import METRICS, Metric
from services.contract.event import Event, GpuEvent
from services.settings import Settings


def markdown() -> str:
    """The catalogue as a table for people (`docs/metrics.md`)."""
    head = (
        "# Metric catalogue\n\n"
        "Written by `make docs` from `services/contract/catalogue.py`. *Column* is the name in events and in\n"
        "`gpu_metrics` (properties: `gpus.properties`). A value outside *range* is not stored; *kind* counter starts\n"
        "again at zero when the driver reloads. *Default*: in dcgm-exporter's default counters file.\n\n"
        "| column | unit | kind | type | range | DCGM field (id) | also named | NVML | nvidia-smi -q -x | default |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_markdown_row(m) for m in METRICS)


def _markdown_row(m: Metric) -> str:
    cells = (
        m.column, m.unit, m.kind, m.sql, f"{m.low:.16g} to {m.high:.16g}", f"{m.dcgm} ({m.dcgm_id})",
        m.dcgm_new or "", m.nvml or "", (m.smi or "").replace("*", "\\*"), "yes" if m.default else "",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def xids() -> str:
    """The XIDs as a table for people (`docs/xids.md`)."""
    head = (
        "# XIDs\n\n"
        "Written by `make docs` from `services/contract/xid.csv`.\n"
        f"Source: {xid.SOURCE}; the catalogue of {xid.DATE}.\n"
        "The texts of the actions and the severity are this project's: *critical* takes the GPU or the host out of\n"
        "service, *warning* asks for a look at an application or the software, *info* for nothing, *unknown* means\n"
        "that NVIDIA names no action. *Boards*: those of A100, H100, B100, GB200 that can report it; none: earlier\n"
        "boards.\n\n"
        "| XID | meaning | severity | now | afterwards | boards |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(_xid_row(info) for info in xid.catalogue().values())


def _xid_row(info: xid.XidInfo) -> str:
    actions = (info.immediate_action, info.investigatory_action)
    return f"| {info.code} | {info.meaning} | {info.severity} | {' | '.join(actions)} | {' '.join(info.applies_to)} |\n"


def json_schema() -> str:
    """The event as JSON Schema 2020-12 (`schema/event.schema.json`)."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "GPU sample: one GPU or MIG instance, one scrape (schema version 1)",
        **msgspec.json.schema(Event),
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def json_schema_of_gpu_events() -> str:
    """What happens to GPUs and targets, as JSON Schema 2020-12 (`schema/gpu-event.schema.json`)."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Something that happened to a GPU or a target (schema version 1)",
        **msgspec.json.schema(GpuEvent),
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def counters_csv() -> str:
    """dcgm-exporter's three-column counters file: every metric, and the labels the inventory keeps."""
    text = io.StringIO()
    text.write("# DCGM FIELD, Prometheus metric type, help message\n")
    rows = csv.writer(text, lineterminator="\n")  # a HELP text with a comma must be quoted: the exporter counts columns
    rows.writerows((m.dcgm, m.exposition_type, m.help) for m in METRICS)
    rows.writerows((field, "label", column.replace("_", " ")) for field, column in EXPORTER_LABELS)
    return text.getvalue()


EXPORTER_LABELS = (
    ("DCGM_FI_DRIVER_VERSION", "driver_version"),
    ("DCGM_FI_DEV_VBIOS_VERSION", "vbios_version"),
    ("DCGM_FI_DEV_SERIAL", "serial"),
)
"""Label fields by the names every dcgm-exporter knows (DCGM 4.6 keeps them as aliases)."""


FORMATS: dict[str, Callable[[], str]] = {
    "markdown": markdown,
    "json-schema": json_schema,
    "json-schema-events": json_schema_of_gpu_events,
    "dcgm-csv": counters_csv,
    "xids": xids,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="what to print (default: %(default)s)")


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001  # every role has this signature
    sys.stdout.write(FORMATS[args.format]())
    return 0
