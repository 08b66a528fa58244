"""The series that are this exporter's own: their names, types and HELP, once. `docs/exporter.md` lists them (a test
compares)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family of ours."""

    name: str
    type: str
    help: str

    def block(self, samples: Iterable[tuple[str, str]]) -> str:
        """HELP, TYPE and a line per sample (label text without braces, value text); nothing without samples."""
        return block(self.name, self.type, self.help, samples)


def block(name: str, kind: str, meaning: str, samples: Iterable[tuple[str, str]]) -> str:
    """The text of a metric family: HELP and TYPE only where there are series."""
    lines = "".join([f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n" for labels, value in samples])
    return f"# HELP {name} {escape_help(meaning)}\n# TYPE {name} {kind}\n{lines}" if lines else ""


def escape_help(meaning: str) -> str:
    return meaning.replace("\\", "\\\\").replace("\n", "\\n")


GPU_INFO: Final = Family("gpumon_gpu_info", "gauge", "Versions and numbers of a GPU as labels; always 1.")
FIELD_MISSING: Final = Family(
    "gpumon_field_missing", "gauge", "A field without a value, and why: unsupported, permission or failed; always 1."
)
GPU_LOST: Final = Family(
    "gpumon_gpu_lost", "gauge", "A GPU that was there and cannot be read, with the driver's reason; always 1."
)
XID_ERRORS: Final = Family("gpumon_xid_errors_total", "counter", "XID errors since the exporter's start.")
XID_LAST: Final = Family(
    "gpumon_xid_last_timestamp_seconds", "gauge", "When an XID occurred last, and in which process (Unix time)."
)
PROCESS_MEMORY: Final = Family(
    "gpumon_process_used_memory_bytes", "gauge", "GPU memory that a process uses (in bytes)."
)
UP: Final = Family("gpumon_exporter_up", "gauge", "1 while the last reading is fresh, else 0 and no GPU series.")
INFO: Final = Family("gpumon_exporter_info", "gauge", "Version of the exporter and source of its readings; always 1.")
AGE: Final = Family("gpumon_exporter_reading_age_seconds", "gauge", "Age of the last reading of the GPUs.")
TIMESTAMP: Final = Family(
    "gpumon_exporter_reading_timestamp_seconds", "gauge", "When the GPUs were last read (Unix time)."
)
DURATION: Final = Family("gpumon_exporter_read_duration_seconds", "gauge", "How long the last reading took.")
READS: Final = Family("gpumon_exporter_reads_total", "counter", "Readings of all GPUs since the exporter's start.")
FAILURES: Final = Family(
    "gpumon_exporter_read_failures_total", "counter", "Readings that failed as a whole, by what the trouble was."
)
GPUS: Final = Family("gpumon_exporter_gpus", "gauge", "GPUs in the last reading, while it is fresh.")
GPUS_LOST: Final = Family("gpumon_exporter_gpus_lost", "gauge", "GPUs that are lost.")
ATTRIBUTION_FAILURES: Final = Family(
    "gpumon_exporter_attribution_failures_total",
    "counter",
    "Polls for pods (kubernetes) or jobs (hpc) that failed; where they are asked for.",
)
SNAPSHOT: Final = Family(
    "gpumon_snapshot_timestamp_seconds", "gauge", "When a document of /snapshot last changed (Unix time)."
)
CPU: Final = Family("process_cpu_seconds_total", "counter", "Processor time of the exporter (in seconds).")
MEMORY: Final = Family("process_resident_memory_bytes", "gauge", "Resident memory of the exporter (in bytes).")

FAMILIES: Final = MappingProxyType(
    {value.name: value for value in list(globals().values()) if isinstance(value, Family)}
)
"""By name."""
