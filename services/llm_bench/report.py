"""What the benchmark showed, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from services.host.telemetry import Telemetry
from services.llm_bench.bench import Results
from services.llm_bench.joules import ModelHeat, Spent, chosen, of_model, spent
from services.llm_bench.results import Generation
from services.llm_bench.selection import Selection


@dataclass(frozen=True, slots=True)
class Report:
    results: Results
    energies: list[Spent]
    """Of `results.generations`, in their order."""
    heats: dict[str, ModelHeat]
    origin: str | None
    notes: list[str]
    result: str
    """`completed`, `failed` (something did) or `interrupted`."""


def report_of(
    results: Results, telemetry: Telemetry | None, notes: list[str], gpus: Sequence[int], *, interrupted: bool
) -> Report:
    series = chosen(telemetry, gpus) if telemetry is not None else []
    energies = [spent(series, g.begin, g.end, g.timing.gen_tokens) for g in results.generations]
    failed = {failure.model for failure in results.failures}
    heats = {
        model: of_model(series, generations, failed=model in failed)
        for model, generations in by_model(results.generations).items()
    }
    result = "interrupted" if interrupted else "failed" if results.failures else "completed"
    return Report(results, energies, heats, telemetry.origin if telemetry else None, notes, result)


def by_model(generations: Iterable[Generation]) -> dict[str, list[Generation]]:
    found: dict[str, list[Generation]] = {}
    for generation in generations:
        found.setdefault(generation.model, []).append(generation)
    return found


def as_dict(report: Report, selection: Selection, options: dict[str, Any]) -> dict[str, Any]:
    """For `--json` and the summary file. Seconds, joules, C; times in seconds since the epoch."""
    runs = [
        {**asdict(generation), "energy": asdict(energy)}
        for generation, energy in zip(report.results.generations, report.energies, strict=True)
    ]
    return {
        "result": report.result,
        "options": options,
        "models": [asdict(model) for model in selection.models],
        "aliases": selection.aliases,
        "left_out": selection.left_out,
        "unusable": selection.unusable,
        "runs": runs,
        "failures": [asdict(failure) for failure in report.results.failures],
        "heat": {model: asdict(heat) for model, heat in report.heats.items()},
        "samples_from": report.origin,
        "notes": report.notes,
    }


def selection_text(selection: Selection, repeat: int, prompts: int) -> str:
    lines = [f"{len(selection.models)} models, {repeat * prompts} runs each, smallest first:"]
    for model in selection.models:
        same = selection.aliases.get(model.name)
        also = f"  (same as {', '.join(same)})" if same else ""
        lines.append(f"  {model.name:<40} {model.size / 1e9:6.1f} GB{also}")
    lines += [f"  left out: {name} ({why})" for name, why in selection.left_out]
    lines += [f"  missing: {name}: `ollama pull {name}`" for name in selection.missing]
    lines += [f"  cannot be measured: {name}: {why}" for name, why in selection.unusable]
    return "\n".join(lines)


_HEAD: tuple[str, ...] = (
    "model",
    "runs",
    "failed",
    "load s",
    "prompt t/s",
    "gen t/s",
    "tokens",
    "J/token",
    "mean W",
    "peak C",
)


def text(report: Report) -> str:
    """A row per model: medians of its runs, the longest load (the first one)."""
    failed = [failure.model for failure in report.results.failures]
    found = by_model(report.results.generations)
    models = dict.fromkeys([*found, *failed])
    rows = [_HEAD, *(_row(m, found.get(m, []), failed.count(m), report.heats.get(m)) for m in models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines += [
        f"joules of {model} unknown: {heat.spent.reason}" for model, heat in report.heats.items() if heat.spent.reason
    ]
    lines += [line for model, generations in found.items() for line in _doubted(model, generations)]
    lines += report.notes
    lines.append(f"result: {report.result}; samples: {report.origin or 'none'}; joules are those of the boards, gross")
    return "\n".join(lines)


def _doubted(model: str, generations: list[Generation]) -> list[str]:
    doubts = [f"run {g.run} {g.prompt_id}: {doubt}" for g in generations for doubt in g.timing.doubts]
    if not doubts:
        return []
    return [f"{model}: {len(doubts)} figures of Ollama left empty, they contradict the clock; {doubts[0]}"]


def _row(model: str, generations: list[Generation], failed: int, heat: ModelHeat | None) -> tuple[str, ...]:
    timings = [generation.timing for generation in generations]
    tokens = [t.gen_tokens for t in timings if t.gen_tokens is not None]
    return (
        model,
        str(len(generations)),
        str(failed),
        _cell(max((t.load_s for t in timings if t.load_s is not None), default=None)),
        _cell(_median(t.prompt_tps for t in timings)),
        _cell(_median(t.gen_tps for t in timings)),
        str(sum(tokens)) if tokens else "unknown" if generations else "-",
        _cell(heat.spent.per_token if heat else None, 2),
        _cell(heat.watts if heat else None),
        _cell(heat.peak if heat else None, 0),
    ) if generations else (model, "0", str(failed), *["-"] * 7)  # fmt: skip


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _cell(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
