"""`gpumon <role>` = `python -m services <role>`: one table of roles, in the order the data flows."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.ops import logging as ops_logging
from services.ops.health import OpsError
from services.settings import SettingsError, load

CLOSED_PIPE: Final = 141
"""Exit code where whoever read our output (`| head`) has seen enough: 128 + SIGPIPE, as programs die of it."""


@dataclass(frozen=True, slots=True)
class Role:
    """A command: its module has `add_arguments(parser)` and `run(args, settings) -> exit code`."""

    name: str
    module: str
    summary: str
    example: str
    settings: str
    """Those one sets most; `docker/.env.example` has all."""


ROLES: tuple[Role, ...] = (
    Role("demo", "services.demo.run", "the whole pipeline on this machine, no Docker",
         "gpumon demo --seconds 60 --gpus 64 --json",
         "KAFKA_BOOTSTRAP, TIMESCALE_DSN (existing servers instead of the embedded ones), DATA_DIR"),
    Role("mock", "mock_dcgm.run", "mock DCGM exporter: simulated GPUs on :9400",
         "gpumon mock --hosts 2 --gpus-per-host 4 --model H100",
         "MOCK_HOST, MOCK_PORT, POLL_INTERVAL"),
    Role("exporter", "services.exporter.run", "real GPUs as dcgm-exporter would show them, on :9400",
         "gpumon exporter --source nvml",
         "EXPORTER_SOURCE, EXPORTER_HOST, EXPORTER_PORT, EXPORTER_INTERVAL, EXPORTER_PREFIX, EXPORTER_COLLECTORS, "
         "WEB_CONFIG_FILE"),
    Role("collector", "services.collector.run", "scrape exporters, publish events to Kafka or into TimescaleDB",
         "gpumon collector --targets localhost:9400",
         "TARGETS, TARGETS_FILES, COLLECTION_INTERVAL, KAFKA_BOOTSTRAP, SPOOL_DIR, CLUSTER, SHARD_INDEX, SHARD_COUNT"),
    Role("sample", "services.host.sample", "read the GPUs of this host once, print a line each, send",
         "gpumon sample --to timescaledb",
         "DESTINATION, EXPORTER_SOURCE, STATUS_FILE, SPOOL_DIR, KAFKA_BOOTSTRAP or PGHOST, PGPORT, ..."),
    Role("status", "services.host.status", "what this host is doing (idle, prod, bench): stored with every sample",
         'gpumon status set bench "gpu-burn"',
         "STATUS_FILE"),
    Role("spool", "services.collector.spool_command", "what is kept on disk while the next hop is down",
         "gpumon spool status",
         "SPOOL_DIR, KAFKA_BOOTSTRAP"),
    Role("topics", "services.bus.topics", "create the topics with their partitions and retention",
         "gpumon topics --wait 60",
         "KAFKA_BOOTSTRAP, KAFKA_TOPIC, KAFKA_PARTITIONS, KAFKA_RETENTION_HOURS"),
    Role("migrate", "services.store.migrate", "bring the database schema up to date",
         "gpumon migrate --wait 60",
         "TIMESCALE_DSN or PGHOST, PGPORT, ...; RETENTION, COMPRESS_AFTER, CHUNK_INTERVAL"),
    Role("sink", "services.sink.run", "write events from Kafka into TimescaleDB",
         "gpumon sink",
         "KAFKA_BOOTSTRAP, TIMESCALE_DSN or PGHOST, PGPORT, ...; BATCH_SIZE, BATCH_TIMEOUT"),
    Role("dlq", "services.sink.dlq_command", "list, show and replay dead letters",
         "gpumon dlq list --json",
         "KAFKA_BOOTSTRAP, KAFKA_TOPIC_INVALID"),
    Role("reset", "services.store.reset", "delete all telemetry (asks first)",
         "gpumon reset --yes",
         "TIMESCALE_DSN or PGHOST, PGPORT, ..."),
    Role("top", "services.top.run", "GPUs in the terminal: of this host, of an exporter, or from the database",
         "gpumon top --interval 2",
         "EXPORTER_SOURCE, ANDON_THERMAL, ANDON_MEMORY, ANDON_POWER, ANDON_IDLE"),
    Role("plot", "services.plot.run", "temperature or another metric over time, as PNG or SVG",
         "gpumon plot --hours 6 --out docs/images/gpu-temp.png",
         "TIMESCALE_DSN or PGHOST, PGPORT, ..."),
    Role("grafana", "services.grafana.run", "put the dashboards into a Grafana",
         "gpumon grafana import --url http://localhost:3000",
         "GRAFANA_URL, GRAFANA_TOKEN or GRAFANA_USER and GRAFANA_PASSWORD, GRAFANA_DS_PASSWORD"),
    Role("burn", "services.burn.run", "gpu-burn with idle, cool-down, tags and memos around it",
         'gpumon burn --pre-idle-sec 180 --sec 900 --cooldown-sec 600 --final-tag prod --tmux',
         "GPU_BURN, STATUS_FILE, LOG_DIR, SPOOL_DIR, TIMESCALE_DSN or PGHOST, PGPORT, ..."),
    Role("ollama-bench", "services.llm_bench.run", "speed and heat of the coding models of an Ollama server",
         "gpumon ollama-bench --no-csv --repeat 5",
         "OLLAMA_URL, STATUS_FILE, TIMESCALE_DSN or PGHOST, PGPORT, ..."),
    Role("doctor", "services.doctor.run", "health check of this host into a log bundle, with findings",
         "gpumon doctor --out logs",
         "LOG_DIR, KAFKA_BOOTSTRAP, TIMESCALE_DSN or PGHOST, PGPORT, ..."),
    Role("install-units", "services.host.install_units", "write the systemd user units with this installation's paths",
         "gpumon install-units --to timescaledb",
         "none"),
    Role("catalogue", "services.contract.document", "the metric catalogue, the event's JSON Schema",
         "gpumon catalogue --format markdown",
         "none"),
    Role("broker", "services.embedded.broker", "embedded Kafka broker for the demo and quick tests",
         "gpumon broker --topics gpu-metrics-raw",
         "none"),
    Role("timescaledb", "services.embedded.timescale", "embedded TimescaleDB for the demo and tests",
         "gpumon timescaledb --port 5432",
         "DATA_DIR"),
)  # fmt: skip


def build_parser(only: str | None) -> argparse.ArgumentParser:
    """The whole command line; imports only the module of the role that is asked for (start-up time)."""
    parser = argparse.ArgumentParser(
        prog="gpumon",
        description="GPU Health Monitor: exporter -> collector -> Kafka -> sink -> TimescaleDB.",
        epilog="Settings come from the environment; `docker/.env.example` lists them all.",
    )
    parser.add_argument("--version", action="version", version=f"gpumon {version('gpu-health-monitor')}")
    commands = parser.add_subparsers(dest="role", metavar="role")
    for role in ROLES:
        command = commands.add_parser(
            role.name,
            help=role.summary,
            description=role.summary,
            epilog=f"example: {role.example}\nsettings: {role.settings} (all: docker/.env.example)",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if role.name == only:
            importlib.import_module(role.module).add_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 the role failed, 2 wrong command line or settings, 141 nobody reads the output any more."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            if sys.stdout is not None:  # `>&-`
                sys.stdout.flush()  # here, where it can be caught, and not at the interpreter's end
    except BrokenPipeError:
        if not _closed(sys.stdout.fileno()):
            raise  # another pipe or connection: a bug
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        return CLOSED_PIPE


def _closed(descriptor: int) -> bool:
    """Whether nobody reads what is written to it."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _run(arguments: list[str]) -> int:
    only = next((a for a in arguments if not a.startswith("-")), None)
    parser = build_parser(only)
    args = parser.parse_args(arguments)
    if args.role is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        settings = load(env_file=Path(".env"))
    except SettingsError as error:
        print(f"gpumon: {error}", file=sys.stderr)
        return 2
    ops_logging.configure(settings.log_level, settings.log_format)
    role = next(r for r in ROLES if r.name == args.role)
    try:
        code: int = importlib.import_module(role.module).run(args, settings)
    except OpsError as error:
        print(f"gpumon {role.name}: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
