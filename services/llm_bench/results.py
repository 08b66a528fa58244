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


LARGEST: Final = 2**63 - 1
"""Ollama's numbers are 64 bits wide; a larger one is none of its."""
TOLERANCE_SECONDS: Final = 1.0
"""By which Ollama's durations may be beyond our own clock's: both are measured on monotonic clocks, and what lies
between the two is a network."""
STREAMED: Final = 0.5
"""Of the time in which the tokens came in, that generating them must have taken at least: a network may hold up the
last of them, but not for longer than that and TOLERANCE_SECONDS."""
MAX_GEN_TPS: Final = 100_000.0
"""Tokens a second of one answer. Each is a pass through the model, one after the other: the fastest machines make some
thousands."""
MAX_PROMPT_TPS: Final = 10_000_000.0
"""Prompt tokens a second: read side by side, and those that Ollama remembers not at all."""


@dataclass(frozen=True, slots=True)
class Wall:
    """What our own clock says of a request, in seconds."""

    request: float
    """From sending it to its final object."""
    stream: float
    """From the first piece of the answer to its final object."""


@dataclass(frozen=True, slots=True)
class Timing:
    """From the final object of a stream. None: Ollama did not say, or it cannot be (see `doubts`)."""

    load_s: float | None
    prompt_tps: float | None
    """Prompt tokens a second."""
    gen_tps: float | None
    total_s: float | None
    prompt_tokens: int | None
    gen_tokens: int | None
    doubts: tuple[str, ...] = ()
    """Why something Ollama said is left out."""


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


def timing_of(final: Mapping[str, Any], wall: Wall | None = None) -> Timing:
    """Ollama's durations are in nanoseconds; it leaves out what is zero. What contradicts `wall` is not taken."""
    said = _Said(final, wall)
    prompt_tokens = said.count("prompt_eval_count", MAX_PROMPT_TPS)
    gen_tokens = said.count("eval_count", MAX_GEN_TPS)
    return Timing(
        load_s=said.seconds("load_duration"),
        prompt_tps=said.rate(prompt_tokens, said.seconds("prompt_eval_duration"), "prompt_eval_duration"),
        gen_tps=said.rate(gen_tokens, said.streamed("eval_duration"), "eval_duration"),
        total_s=said.seconds("total_duration"),
        prompt_tokens=prompt_tokens,
        gen_tokens=gen_tokens,
        doubts=tuple(said.doubts),
    )


class _Said:
    """The final object, read with distrust."""

    def __init__(self, final: Mapping[str, Any], wall: Wall | None) -> None:
        self._final, self._wall = final, wall
        self.doubts: list[str] = []

    def count(self, name: str, fastest: float) -> int | None:
        """`fastest`: what can be done in a second."""
        value = self._number(name)
        if value is not None and self._wall and value > fastest * (self._wall.request + TOLERANCE_SECONDS):
            self.doubts.append(f"{name} {value} is more than {self._wall.request:.3g} s can hold")
            return None
        return value

    def seconds(self, name: str) -> float | None:
        value = self._number(name)
        seconds = None if value is None else value / 1e9
        if seconds is not None and self._wall and seconds > self._wall.request + TOLERANCE_SECONDS:
            self.doubts.append(f"{name} {seconds:.4g} s is longer than the request, {self._wall.request:.3g} s")
            return None
        return seconds

    def streamed(self, name: str) -> float | None:
        """Of the tokens that were seen coming in."""
        seconds = self.seconds(name)
        if seconds and self._wall and seconds + TOLERANCE_SECONDS < STREAMED * self._wall.stream:
            self.doubts.append(f"{name} {seconds:.4g} s, but the tokens came in for {self._wall.stream:.3g} s")
            return None
        return seconds

    def rate(self, tokens: int | None, seconds: float | None, name: str) -> float | None:
        """`name`: of the duration."""
        if not tokens or not seconds:
            return None
        fastest = MAX_GEN_TPS if name == "eval_duration" else MAX_PROMPT_TPS
        if tokens / seconds > fastest:
            self.doubts.append(f"{name} {seconds:.4g} s for {tokens} tokens is no time")
            return None
        return tokens / seconds

    def _number(self, name: str) -> int | None:
        value = self._final.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST else None


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


MAX_NAME: Final = 100
"""Characters of a model in a file name: a file system takes 255 bytes, the rest of the name needs 40."""


def file_names(models: Mapping[str, str]) -> dict[str, str]:
    """Model -> its name as part of a file name, from model -> digest. Two that would be the same get their digest."""
    safe = {model: _safe(model) for model in models}
    counts = [name[:MAX_NAME].lower() for name in safe.values()]
    names: dict[str, str] = {}
    for model, name in safe.items():
        short = name[:MAX_NAME]
        if short != name or counts.count(short.lower()) > 1:
            short = f"{short}_{_safe(models[model].removeprefix('sha256:'))[:12]}"
        while short.lower() in {taken.lower() for taken in names.values()}:
            short += "_"
        names[model] = short
    return names


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


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
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)
