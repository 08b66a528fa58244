"""One generation's figures, and the files they go to."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COLUMNS: Final = (
    "model",
    "run",
    "prompt_id",
    "load_s",
    "prompt_tps",
    "gen_tps",
    "total_s",
    "prompt_tokens",
    "gen_tokens",
)
ENERGY_COLUMNS: Final = ("model", "run", "prompt_id", "joules", "joules_per_token", "method", "reason")


@dataclass(frozen=True, slots=True)
class Timing:
    """From the final object of a stream. None: Ollama did not say."""

    load_s: float | None
    prompt_tps: float | None
    """Prompt tokens a second."""
    gen_tps: float | None
    total_s: float | None
    prompt_tokens: int | None
    gen_tokens: int | None


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, begun and ended (seconds since the epoch)."""

    model: str
    run: int
    prompt_id: str
    timing: Timing
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Failure:
    model: str
    run: int | None
    """None: the whole model."""
    prompt_id: str | None
    reason: str


def timing_of(final: Mapping[str, Any]) -> Timing:
    """Ollama's durations are in nanoseconds; it leaves out what is zero."""
    prompt_tokens, gen_tokens = _count(final, "prompt_eval_count"), _count(final, "eval_count")
    return Timing(
        load_s=_seconds(final, "load_duration"),
        prompt_tps=_rate(prompt_tokens, _seconds(final, "prompt_eval_duration")),
        gen_tps=_rate(gen_tokens, _seconds(final, "eval_duration")),
        total_s=_seconds(final, "total_duration"),
        prompt_tokens=prompt_tokens,
        gen_tokens=gen_tokens,
    )


def _count(final: Mapping[str, Any], name: str) -> int | None:
    value = final.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(final: Mapping[str, Any], name: str) -> float | None:
    value = _count(final, name)
    return None if value is None else value / 1e9


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return tokens / seconds if tokens and seconds else None


def row(generation: Generation) -> list[str]:
    """The nine cells; an unknown one is empty."""
    t = generation.timing
    cells = [
        _text(t.load_s),
        _text(t.prompt_tps, 2),
        _text(t.gen_tps, 2),
        _text(t.total_s),
        *(("" if v is None else str(v)) for v in (t.prompt_tokens, t.gen_tokens)),
    ]
    return [generation.model, str(generation.run), generation.prompt_id, *cells]


def _text(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def file_names(models: Mapping[str, str]) -> dict[str, str]:
    """Model -> its name as part of a file name, from model -> digest. Two that would be the same get their digest."""
    safe = {model: re.sub(r"[^A-Za-z0-9._-]+", "_", model) for model in models}
    counts = [name.lower() for name in safe.values()]
    return {
        model: name if counts.count(name.lower()) == 1 else f"{name}_{models[model].removeprefix('sha256:')[:12]}"
        for model, name in safe.items()
    }


class Table:
    """A CSV file written row by row, so that what was measured is there whenever the run ends. Raises OSError."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        """A file from an earlier run is kept under the name `<stem>.<its time>.csv`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            when = dt.datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            path.replace(path.with_name(f"{path.stem}.{when:%Y%m%d-%H%M%S}.csv"))
        self._path = path
        self.add(columns)

    def add(self, cells: tuple[str, ...] | list[str]) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)
