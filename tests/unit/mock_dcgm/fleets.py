"""Fleets the tests share."""

from __future__ import annotations

from collections.abc import Sequence

from mock_dcgm.exposition import DEFAULT, Exposition
from mock_dcgm.faults import FaultSpec
from mock_dcgm.fleet import Fleet, FleetSpec, GpuSpec, HostSpec, build
from mock_dcgm.models import MODELS
from mock_dcgm.simulator import Simulator
from services.contract.catalogue import Metric

START = 1_750_000_000.0
"""Simulated start of every test: 15 June 2025, 15:06 UTC."""


def fleet_of(
    *models: str, profile: str = "training", count: int = 1, seed: int = 1, faults: tuple[FaultSpec, ...] = ()
) -> Fleet:
    """One host `node` with `count` GPUs of each model."""
    gpus = tuple(GpuSpec(model, count, profile) for model in models)
    return build(FleetSpec((HostSpec("node", gpus),), seed, faults))


def simulator_of(*models: str, profile: str = "training", count: int = 1, seed: int = 1) -> Simulator:
    return Simulator(fleet_of(*models, profile=profile, count=count, seed=seed), START)


def all_models() -> Fleet:
    """Every model, a MIG board, tenants with characters that need escaping: what the golden file shows."""
    boards = [GpuSpec(model, profile="training", pod=f"trainer-{model.lower()}-{{gpu}}", namespace="research",
                      container="main") for model in MODELS]  # fmt: skip
    mig = GpuSpec("A100", profile="inference", mig=("3g.40gb", "2g.20gb", "1g.10gb"), pod='odd "pod\\')
    idle = GpuSpec("H100", profile="idle")
    hosts = (HostSpec("node-a", tuple(boards)), HostSpec("node-b", (mig, idle), driver="550.54.15"))
    return build(FleetSpec(hosts, seed=7))


def text_of(simulator: Simulator, metrics: Sequence[Metric] = DEFAULT, host: str | None = None) -> str:
    exposition = Exposition(simulator.layout, simulator.present, metrics)
    exposition.update(simulator.snapshot)
    return b"".join(exposition.fleet() if host is None else exposition.host(host)).decode()
