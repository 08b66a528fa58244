"""The benchmark: model after model, run after run, with the tags around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from services.host import status
from services.host.tags import Tags
from services.llm_bench.client import ModelMissingError, Ollama, OllamaError, UnreachableError
from services.llm_bench.prompts import PROMPTS, prompt
from services.llm_bench.results import Failure, Generation
from services.llm_bench.selection import Model, status_of
from services.ops.clock import Clock

GIVE_UP_AFTER: Final = 3
"""Failures of one model in a row: a time-out of ten minutes for each of its dozen runs would cost two hours."""


@dataclass(frozen=True, slots=True)
class Options:
    repeat: int
    options: Mapping[str, Any]
    """Ollama's: num_predict, temperature, seed."""
    pre_idle_sec: float
    cooldown_sec: float
    pre_memo: str | None
    post_memo: str | None
    cooldown_memo: str | None


class Screen(Protocol):
    def say(self, line: str) -> None: ...

    def show(self, line: str) -> None:
        """In place of the last shown one."""


@dataclass(slots=True)
class Results:
    """What has come out so far."""

    generations: list[Generation] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Bench:
    """One benchmark; `run` may be cancelled at any await, and `results` holds what there is then."""

    def __init__(
        self,
        ollama: Ollama,
        options: Options,
        *,
        tags: Tags,
        screen: Screen,
        clock: Clock,
        measured: Callable[[Generation], None],
    ) -> None:
        """`measured` gets each generation as it is made."""
        self._ollama, self._options, self._tags = ollama, options, tags
        self._screen, self._clock, self._measured = screen, clock, measured
        self.results = Results()

    async def run(self, models: Sequence[Model]) -> None:
        await self._idle("pre", self._options.pre_memo, self._options.pre_idle_sec)
        for number, model in enumerate(models, 1):
            self._screen.say(f"model {number}/{len(models)} {model.name} ({model.size / 1e9:.1f} GB)")
            self._tags.set(status_of(model.name))
            before = len(self.results.generations)
            await self._model(model.name)
            self._tags.set(status.make("idle", self._options.post_memo))
            await self._unload(model.name)
            if len(self.results.generations) > before:  # a model that did not run has heated nothing
                await self._idle("cooldown", self._options.cooldown_memo, self._options.cooldown_sec)

    async def _model(self, model: str) -> None:
        in_a_row = 0
        for run in range(1, self._options.repeat + 1):
            for prompt_id in PROMPTS:
                fatal = await self._generation(model, run, prompt_id)
                in_a_row = 0 if fatal is None else in_a_row + 1
                if fatal or in_a_row >= GIVE_UP_AFTER:
                    self._give_up(model, run, prompt_id)
                    return

    async def _generation(self, model: str, run: int, prompt_id: str) -> bool | None:
        """None: measured; else whether trying this model again is useless."""
        progress = _Progress(self._screen, self._clock, f"{model} run {run}/{self._options.repeat} {prompt_id}")
        begin = self._clock.time()
        try:
            timing = await self._ollama.generate(model, prompt(prompt_id, run), self._options.options, progress.token)
        except OllamaError as error:
            self._fail(Failure(model, run, prompt_id, str(error)))
            return isinstance(error, UnreachableError | ModelMissingError)
        generation = Generation(model, run, prompt_id, timing, begin, self._clock.time())
        self.results.generations.append(generation)
        self._measured(generation)
        self._screen.say(f"  {progress.what}: {_told(generation)}")
        return None

    def _fail(self, failure: Failure) -> None:
        self.results.failures.append(failure)
        where = f" run {failure.run} {failure.prompt_id}" if failure.run else ""
        self._screen.say(f"  FAILED {failure.model}{where}: {failure.reason}")

    def _give_up(self, model: str, run: int, prompt_id: str) -> None:
        done = (run - 1) * len(PROMPTS) + list(PROMPTS).index(prompt_id) + 1
        left = self._options.repeat * len(PROMPTS) - done
        if left:
            self._fail(Failure(model, None, None, f"given up: {left} runs not tried"))

    async def _unload(self, model: str) -> None:
        try:
            await self._ollama.unload(model)
        except OllamaError as error:
            self._screen.say(f"  {model} was not unloaded: {error}")

    async def _idle(self, name: str, memo: str | None, seconds: float) -> None:
        self._tags.set(status.make("idle", memo))
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            self._screen.show(f"{name}: idle for {left:.0f} s")
            await asyncio.sleep(min(left, 1.0))


class _Progress:
    """Tokens a second so far. Ollama sends a piece per token; its own count comes at the end."""

    def __init__(self, screen: Screen, clock: Clock, what: str) -> None:
        self._screen, self._clock = screen, clock
        self._count = 0
        self._first = 0.0
        self.what = what
        screen.show(f"{what}: reading the prompt (and loading the model)")

    def token(self) -> None:
        self._count += 1
        now = self._clock.monotonic()
        if self._count == 1:
            self._first = now
        elapsed = now - self._first
        rate = f"{(self._count - 1) / elapsed:.1f} tokens/s" if elapsed > 0 else ""
        self._screen.show(f"{self.what}: {self._count} tokens  {rate}")


def _told(generation: Generation) -> str:
    timing = generation.timing
    rate = "? tokens/s" if timing.gen_tps is None else f"{timing.gen_tps:.1f} tokens/s"
    tokens = "?" if timing.gen_tokens is None else timing.gen_tokens
    told = f"{rate}, {tokens} tokens, {generation.end - generation.begin:.1f} s"
    return f"{told}; left empty: {'; '.join(timing.doubts)}" if timing.doubts else told
