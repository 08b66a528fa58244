"""The flags of `gpumon mock`, and what they ask for: a plan of the server and a fleet. No I/O but the fleet file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mock_dcgm.fleet import Fleet, FleetError, build, load, spread
from mock_dcgm.models import MODELS
from mock_dcgm.workload import PROFILES
from services.settings import Settings

_HOSTS, _GPUS_PER_HOST, _GPUS_PER_HOST_SPREAD = 2, 4, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve."""

    host: str
    port: int
    interval: float
    """Wall seconds between updates."""
    speed: float
    """Simulated seconds per wall second."""
    targets: Path | None
    """Where to write the file_sd file."""
    advertise: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_server(parser.add_argument_group("server"))
    _add_fleet(parser.add_argument_group("fleet"))
    group = parser.add_argument_group("time and output")
    group.add_argument("--interval", type=float, help="seconds between two updates (POLL_INTERVAL, 10)")
    text = "simulated seconds per second; 0 stands still until POST /control/step (default 1)"
    group.add_argument("--speed", type=float, default=1.0, help=text)
    text = "default: dcgm-exporter's list and what a health system needs; all: costly profiling fields too"
    group.add_argument("--metrics", choices=["default", "all"], default="default", help=text)
    group.add_argument("--once", action="store_true", help="print one exposition and exit")
    text = "serve recorded expositions, one per scrape, instead of a simulation"
    group.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help=text)
    group.add_argument("--loop", action="store_true", help="after the last recording begin again")


def _add_server(group: argparse._ArgumentGroup) -> None:  # the type of a group has no public name
    group.add_argument("--host", help="address to listen on (MOCK_HOST)")
    group.add_argument("--port", type=int, help="port to listen on, 0 takes a free one (MOCK_PORT, 9400)")
    text = "write a Prometheus file_sd file with one target per host"
    group.add_argument("--write-targets", type=Path, metavar="FILE", help=text)
    group.add_argument("--advertise", metavar="HOST", help="host name to write there (default: where it listens)")


def _add_fleet(group: argparse._ArgumentGroup) -> None:  # the type of a group has no public name
    group.add_argument("--fleet", type=Path, metavar="FILE", help="fleet as YAML (docs/mock.md); replaces the rest")
    group.add_argument("--hosts", type=int, help=f"number of hosts (default {_HOSTS})")
    group.add_argument("--gpus-per-host", type=int, help=f"GPUs in each (default {_GPUS_PER_HOST})")
    text = f"GPUs in all, spread over the hosts (default hosts: one per {_GPUS_PER_HOST_SPREAD} GPUs)"
    group.add_argument("--gpus", type=int, help=text)
    text = f"repeatable; {', '.join(MODELS)}; COUNT is a number of GPUs or a weight (default A100)"
    group.add_argument("--model", action="append", metavar="MODEL[=COUNT]", help=text)
    group.add_argument("--profile", choices=[*PROFILES], help="workload (default cycle)")
    group.add_argument("--seed", type=int, help="identities and randomness follow from it (default 0)")


def plan(args: argparse.Namespace, settings: Settings) -> Plan:
    """Flags over settings. Raises FleetError for what cannot be together."""
    interval = settings.poll_interval if args.interval is None else args.interval
    if args.speed < 0 or interval <= 0:
        raise FleetError(f"--speed {args.speed:g}, --interval {interval:g}: speed is 0 or more, the interval above 0")
    return Plan(
        host=settings.mock_host if args.host is None else args.host,
        port=settings.mock_port if args.port is None else args.port,
        interval=interval,
        speed=args.speed,
        targets=args.write_targets,
        advertise=args.advertise,
    )


def fleet(args: argparse.Namespace) -> Fleet:
    """The fleet the flags or the fleet file describe. Raises FleetError."""
    given = [name for name in ("hosts", "gpus", "gpus_per_host", "model", "profile") if getattr(args, name) is not None]
    if args.fleet:
        if given:
            raise FleetError(f"--{given[0].replace('_', '-')} and --fleet: the file says which GPUs there are")
        return build(load(args.fleet), args.seed)
    if args.gpus is not None and args.gpus_per_host is not None:
        raise FleetError("--gpus and --gpus-per-host: give the sum or the number per host")
    models = [_model(text) for text in args.model or ["A100"]]
    gpus, hosts = _size(args, [count for _, count in models])
    weights = [(name, 1 if count is None else count) for name, count in models]
    return build(spread(gpus, hosts, weights, args.profile or "cycle", args.seed or 0))


def _size(args: argparse.Namespace, counts: list[int | None]) -> tuple[int, int]:
    """GPUs and hosts: from --gpus, else the sum of the models' counts, else hosts times GPUs per host."""
    gpus: int | None = args.gpus
    if gpus is None and args.gpus_per_host is None and None not in counts:
        gpus = sum(count or 0 for count in counts)
    if gpus is not None:
        return gpus, -(-gpus // _GPUS_PER_HOST_SPREAD) if args.hosts is None else args.hosts
    hosts = _HOSTS if args.hosts is None else args.hosts
    return hosts * (_GPUS_PER_HOST if args.gpus_per_host is None else args.gpus_per_host), hosts


def _model(text: str) -> tuple[str, int | None]:
    """`H100` or `H100=4`."""
    name, _, count = text.partition("=")
    if count and (not count.isdigit() or int(count) < 1):
        raise FleetError(f"--model {text}: the count is a whole number above 0")
    return name, int(count) if count else None
