"""Energy of generations from the telemetry of the GPUs. Pure.

Gross: what the boards drew while the answer was made, idle power and the reading of the prompt included.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.host.energy import energy
from services.host.series import Series
from services.host.telemetry import Telemetry
from services.host.thermal import mean_watts
from services.llm_bench.results import Generation


@dataclass(frozen=True, slots=True)
class Spent:
    """None: unknown, and `reason` says why."""

    joules: float | None
    per_token: float | None
    """Joules per generated token."""
    method: str | None
    """`counter` or `power`, as `services.host.energy` says."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelHeat:
    """A model's whole time under load."""

    spent: Spent
    peak: float | None
    """C, of the hottest GPU."""
    watts: float | None
    """Mean, of all GPUs together."""


def chosen(telemetry: Telemetry, indexes: Collection[int]) -> list[Series]:
    """Of the GPUs with these indexes; of all where none is given."""
    return [series for uuid, series in telemetry.series.items() if not indexes or telemetry.gpus[uuid].index in indexes]


def spent(gpus: Sequence[Series], begin: float, end: float, tokens: int | None) -> Spent:
    """All GPUs together."""
    if not gpus:
        return Spent(None, None, None, "no samples of a GPU")
    parts = [energy(series, begin, end) for series in gpus]
    joules = [part.joules for part in parts if part.joules is not None]
    if len(joules) < len(parts):
        return Spent(None, None, None, next(part.reason for part in parts if part.joules is None))
    total = sum(joules)
    method = "+".join(sorted({part.method for part in parts if part.method}))
    return Spent(total, total / tokens if tokens else None, method, _why(tokens))


def of_model(gpus: Sequence[Series], generations: Sequence[Generation], *, failed: bool) -> ModelHeat:
    """From the first run to the last. With a failure in between, whose tokens nobody counted, the runs are summed up
    one by one."""
    begin, end = generations[0].begin, generations[-1].end
    counts = [generation.timing.gen_tokens for generation in generations]
    tokens = sum(count for count in counts if count is not None) if None not in counts else None
    temps = [s.temp for series in gpus for s in series if s.temp is not None and begin <= s.time <= end]
    watts = [mean_watts(series, begin, end) for series in gpus]
    known = [value for value in watts if value is not None]
    return ModelHeat(
        spent=_sum(gpus, generations, tokens) if failed else spent(gpus, begin, end, tokens),
        peak=max(temps, default=None),
        watts=sum(known) if known and len(known) == len(watts) else None,
    )


def _sum(gpus: Sequence[Series], generations: Sequence[Generation], tokens: int | None) -> Spent:
    parts = [spent(gpus, g.begin, g.end, g.timing.gen_tokens) for g in generations]
    joules = [part.joules for part in parts if part.joules is not None]
    if len(joules) < len(parts):
        return Spent(None, None, None, next(part.reason for part in parts if part.joules is None))
    total = sum(joules)
    return Spent(total, total / tokens if tokens else None, parts[0].method, _why(tokens))


def _why(tokens: int | None) -> str | None:
    """There are no joules per token."""
    if tokens is None:
        return "number of tokens unknown"
    return None if tokens else "no token was generated"
