"""The run itself: phase after phase, and everything put back on any end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from services.burn.gpu_burn import Findings
from services.burn.journal import Journal
from services.burn.load import EARLY, OVERTIME, Load, LoadError
from services.burn.plan import BURN, Phase, Plan
from services.burn.watch import BLIND_SECONDS, QUIET_SECONDS, Watch, called
from services.host.live import Monitor, State
from services.host.stop import Stop
from services.host.tags import Tags
from services.ops.clock import Clock

TICK: Final = 0.25
"""Seconds between two looks at load, temperature and signals: what a person takes for at once."""


class Result(StrEnum):
    COMPLETED = "completed"
    FAULTY = "faulty"
    """Ran its time; some GPU computed wrong results."""
    UNVERIFIED = "unverified"
    """Ran its time; of some GPU nobody said that it computed right."""
    FAILED = "failed"
    TOO_HOT = "too_hot"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Now:
    """What a screen shows."""

    phase: Phase
    number: int
    """From 1."""
    of: int
    elapsed: float
    """Seconds of this phase."""
    remaining: float
    """Seconds of the whole run."""
    live: State | None
    load: str
    """Last progress line of the load."""


class Screen(Protocol):
    def show(self, now: Now) -> None: ...

    def say(self, line: str) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Outcome:
    """How it ended. Times in seconds since the epoch; None: the load was not started."""

    result: Result = Result.COMPLETED
    reason: str = ""
    begin: float | None = None
    end: float | None = None
    phases: list[dict[str, float | str]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


class _EndedError(Exception):
    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


class Drive:
    """One run. `run` returns how it ended; an exception it did not expect passes through, after the tag is restored and
    the load is gone."""

    def __init__(
        self,
        plan: Plan,
        command: tuple[list[str], Path | None],
        *,
        tags: Tags,
        journal: Journal,
        screen: Screen,
        stop: Stop,
        clock: Clock,
        monitor: Monitor | None = None,
        watch: Watch | None = None,
        must_watch: bool = False,
    ) -> None:
        """`must_watch`: the limit was asked for; without readings the load is not to run."""
        self._plan, self._command = plan, command
        self._tags, self._journal, self._screen = tags, journal, screen
        self._stop, self._clock = stop, clock
        self._monitor, self._watch, self._must_watch = monitor, watch, must_watch
        self._number = 0
        self._begun = 0.0
        self._blind = False
        """It was told that no limit is kept."""
        self.outcome = Outcome()

    def run(self) -> Outcome:
        outcome = self.outcome
        try:
            for number, phase in enumerate(self._plan.phases, 1):
                self._number = number
                self._enter(phase)
        except _EndedError as ended:
            outcome.result, outcome.reason = ended.result, str(ended)
        finally:
            self._tags.restore()
        final = self._tags.final
        self._journal.tell(f"final: {_shown(final.tag, final.memo) if final else 'no status'}")
        return outcome

    def _enter(self, phase: Phase) -> None:
        self._begun = self._clock.monotonic()
        begin = self._clock.time()
        self._tags.set(phase.status)
        lasts = f"{phase.seconds:g} s, " if phase.seconds else ""
        self._journal.tell(f"phase {phase.name}: {lasts}{_shown(phase.status.tag, phase.status.memo)}")
        try:
            self._burn(phase) if phase.name == BURN else self._wait(phase)
        finally:
            self.outcome.phases.append({"name": phase.name, "begin": begin, "end": self._clock.time()})

    def _wait(self, phase: Phase) -> None:
        while (left := self._begun + phase.seconds - self._clock.monotonic()) > 0:
            self._tick(phase)
            self._stop.wait(min(TICK, left))
        self._check_signals()

    def _burn(self, phase: Phase) -> None:
        argv, directory = self._command
        live = self._tick(phase)
        if self._watch is not None and live is not None:
            self._check_silence(self._watch, live)  # a GPU that vanished while idle: the load is not started
        begin = self._clock.time()
        if not argv:
            self.outcome.begin = begin
            try:
                self._watched(phase, lambda: False)
            finally:
                self.outcome.end = self._clock.time()
            return
        try:
            load = Load(argv, directory, self._journal.load_said)
        except LoadError as error:
            raise _EndedError(Result.FAILED, str(error)) from None
        self.outcome.begin = begin
        self.outcome.findings = load.findings
        self._journal.note(f"started {' '.join(argv)} (process {load.pid})")
        try:
            self._watched(phase, lambda: load.poll() is not None, OVERTIME)
        finally:
            status = load.poll()
            load.stop(at_once=lambda: self._stop.hurry)
            self.outcome.end = self._clock.time()
        self._judge(phase, status, load.findings)

    def _watched(self, phase: Phase, ended: Callable[[], bool], overtime: float = 0.0) -> None:
        """Until the load has ended, or its time and `overtime` are over."""
        deadline = self._begun + phase.seconds + overtime
        while not ended() and (left := deadline - self._clock.monotonic()) > 0:
            live = self._tick(phase)
            if self._watch is not None and live is not None:
                self._check_temperature(self._watch, live)
            self._stop.wait(min(TICK, left))
        self._check_signals()

    def _check_temperature(self, watch: Watch, live: State) -> None:
        hot = watch.take(live.looks)
        if hot:
            raise _EndedError(Result.TOO_HOT, hot)
        self._check_silence(watch, live)

    def _check_silence(self, watch: Watch, live: State) -> None:
        """Tells when the limit is not kept any more, and when it is again; one that was asked for ends the run."""
        who, silence = watch.silence(self._clock.monotonic())
        if self._must_watch and silence > BLIND_SECONDS:
            raise _EndedError(
                Result.FAILED,
                f"no temperature of {who} for {silence:.0f} s ({_why_silent(who, live)}): --max-temp cannot be kept",
            )
        if silence > QUIET_SECONDS and not self._blind:
            since = dt.datetime.fromtimestamp(self._clock.time() - silence).astimezone()
            self._journal.tell(
                f"no limit is kept since {since:%H:%M:%S}: no temperature of {who} ({_why_silent(who, live)})"
            )
        elif self._blind and silence <= QUIET_SECONDS:
            self._journal.tell("the temperature of every GPU is read again: the limit is kept")
        self._blind = silence > QUIET_SECONDS

    def _judge(self, phase: Phase, status: int | None, findings: Findings) -> None:
        """After the load. Wrong results do not end the run: how the board cools is worth knowing all the same."""
        elapsed = self._clock.monotonic() - self._begun
        program = Path(self._command[0][0]).name if self._plan.load == "gpu_burn" else "the torch load"
        if status is None:
            raise _EndedError(
                Result.FAILED, f"{program} did not end {OVERTIME:.0f} s after its {phase.seconds:g} s and was killed"
            )
        if status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
            raise _EndedError(
                Result.FAILED, f"{program} {how} after {elapsed:.0f} s; its output is in {self._journal.path}"
            )
        if findings.faults:
            self.outcome.result = Result.FAULTY
            self.outcome.reason = "; ".join(findings.faults)
            self._journal.tell(f"FAULTY: {self.outcome.reason}")
        elif elapsed < EARLY * phase.seconds:
            raise _EndedError(Result.FAILED, f"{program} ended after {elapsed:.0f} of {phase.seconds:g} s")
        elif findings.doubts:
            self.outcome.result = Result.UNVERIFIED
            self.outcome.reason = f"{program} ended without an error and with {'; '.join(findings.doubts)}"
            self._journal.tell(f"UNVERIFIED: {self.outcome.reason}; its output is in {self._journal.path}")

    def _tick(self, phase: Phase) -> State | None:
        self._check_signals()
        live = self._monitor.state() if self._monitor is not None else None
        if self._watch is not None and live is not None:
            self._watch.hear(live.looks, self._clock.monotonic())
        elapsed = self._clock.monotonic() - self._begun
        remaining = max(phase.seconds - elapsed, 0.0) + self._plan.remaining(phase.name)
        self._screen.show(
            Now(phase, self._number, len(self._plan.phases), elapsed, remaining, live, self._journal.progress)
        )
        return live

    def _check_signals(self) -> None:
        if self._stop.asked:
            raise _EndedError(Result.INTERRUPTED, f"{self._stop.name} received")


def _shown(tag: str | None, memo: str | None) -> str:
    return f"{tag or '(no tag)'}{f' ({memo})' if memo else ''}"


def _why_silent(who: str, live: State) -> str:
    if live.problem:
        return live.problem
    if (live.age or 0.0) > QUIET_SECONDS:
        return "the driver does not answer"
    shown = any(called(look) == who for look in live.looks)
    return "it is shown without one" if shown else "it is not shown any more"
