"""The flags of `gpumon exporter`, laid over the settings."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.exporter.mock_boards import boards
from services.settings import Settings, hostname, load


class OptionsError(Exception):
    """Flags that cannot be used; the message says which and what is allowed."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. What is not here is in `settings`, with the flags already applied."""

    settings: Settings
    hostname: str | None
    """None: no Hostname label."""
    once: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_serving(parser.add_argument_group("serving (spelled as dcgm-exporter's flags)"))
    _add_reading(parser.add_argument_group("reading"))


def _add_serving(group: argparse._ArgumentGroup) -> None:  # the type of a group has no public name
    text = "counters file with three columns: field, type, help (EXPORTER_COLLECTORS; default: the whole catalogue)"
    group.add_argument("-f", "--collectors", type=Path, metavar="FILE", help=text)
    text = "where to listen, `:9400` on all addresses (EXPORTER_HOST, EXPORTER_PORT)"
    group.add_argument("-a", "--address", metavar="[HOST]:PORT", help=text)
    text = "pod, namespace and container from the kubelet (EXPORTER_KUBERNETES)"
    group.add_argument("-k", "--kubernetes", action="store_true", default=None, help=text)
    text = "directory of files named by GPU index with one job id a line (HPC_JOB_MAPPING_DIR)"
    group.add_argument("--hpc-job-mapping-dir", type=Path, metavar="DIR", help=text)
    group.add_argument("-n", "--no-hostname", action="store_true", help="no Hostname label")
    text = "TLS and basic auth, Prometheus' format (WEB_CONFIG_FILE)"
    group.add_argument("--web-config-file", type=Path, metavar="FILE", help=text)
    text = 'serve <prefix>_gpu_temperature_celsius{device="0"} and the like as well (EXPORTER_PREFIX)'
    group.add_argument("--prefix", help=text)


def _add_reading(group: argparse._ArgumentGroup) -> None:  # the type of a group has no public name
    text = "where readings come from (EXPORTER_SOURCE, auto: NVML, else nvidia-smi)"
    group.add_argument("--source", choices=["auto", "nvml", "nvidia-smi", "mock"], help=text)
    text = "boards of the mock source (EXPORTER_MOCK, A100=8); repeatable"
    group.add_argument("--mock", action="append", metavar="MODEL[=COUNT]", help=text)
    either = group.add_mutually_exclusive_group()
    either.add_argument("-c", "--collect-interval", type=float, metavar="MS", help="milliseconds between two readings")
    text = "seconds between two readings (EXPORTER_INTERVAL, 1; by nvidia-smi 5)"
    either.add_argument("--interval", type=float, metavar="S", help=text)
    text = "seconds after which a reading is no longer served (EXPORTER_STALE_AFTER; three intervals, at least 10)"
    group.add_argument("--stale-after", type=float, metavar="S", help=text)
    text = "serve the processes on each GPU (EXPORTER_PROCESSES)"
    group.add_argument("--processes", action="store_true", default=None, help=text)
    group.add_argument("--once", action="store_true", help="read once, print the exposition and exit")


def options(args: argparse.Namespace, settings: Settings) -> Options:
    """Flags over settings. Raises OptionsError, and SettingsError for a value that the setting itself refuses."""
    overrides: dict[str, Any] = {
        "exporter_collectors": args.collectors,
        "exporter_kubernetes": args.kubernetes,
        "hpc_job_mapping_dir": args.hpc_job_mapping_dir,
        "web_config_file": args.web_config_file,
        "exporter_prefix": args.prefix,
        "exporter_source": "mock" if args.mock and args.source is None else args.source,
        "exporter_mock": _boards(args.mock),
        "exporter_interval": args.interval if args.collect_interval is None else args.collect_interval / 1000,
        "exporter_stale_after": args.stale_after,
        "exporter_processes": args.processes,
    }
    if args.address is not None:
        overrides["exporter_host"], overrides["exporter_port"] = address(args.address)
    given = settings.model_dump(exclude_unset=True)
    merged = load(**(given | {name: value for name, value in overrides.items() if value is not None}))
    if args.mock and merged.exporter_source != "mock":
        raise OptionsError(f"--mock with --source {merged.exporter_source}: boards are for the mock source only")
    return Options(
        settings=merged,
        hostname=None if args.no_hostname else merged.node_name or hostname(),
        once=args.once,
    )


def address(text: str) -> tuple[str, int]:
    """`:9400`, `127.0.0.1:9400`, `[::1]:9400` -> host (empty: all addresses) and port."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in bare and bare == host):
        raise OptionsError(f"--address {text}: expected [HOST]:PORT, for example :9400 or 127.0.0.1:9400")
    return bare, int(port)


def _boards(texts: list[str] | None) -> str | None:
    """What --mock says, as the setting has it; None: nothing."""
    if not texts:
        return None
    text = ",".join(texts)
    try:
        boards(text)
    except ValueError as error:
        raise OptionsError(f"--mock: {error}") from None
    return text
