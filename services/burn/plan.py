"""What a burn run will do: its phases, load and limits, from the command line. Pure."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

from services.contract.event import Status
from services.host import status

MARGIN: Final = 3.0
"""C below the slowdown temperature the driver tells (NVML_TEMPERATURE_THRESHOLD_SLOWDOWN; 92 C on a P40). The limit
must act before the hardware does: a board that slows itself down is too hot already, and its figures are the brake's.
Three, because until the third reading in a row a board under full load still rises by a degree or two, and the sensor
reads whole degrees."""
DEFAULT_MAX_TEMP: Final = 87.0
"""C, where no board tells its slowdown temperature: MARGIN below 90, the middle of what data-centre boards tell (85 to
95 C)."""
PRE_IDLE, BURN, POST, COOLDOWN = "pre-idle", "burn", "post", "cool-down"


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    status: Status
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    phases: tuple[Phase, ...]
    """In order; those of no length are not there."""
    final: Status | None
    """None: the status from before the run."""
    load: str
    """`gpu_burn`, `torch` or `none`."""
    load_args: tuple[str, ...] = ()
    max_temp: float | None = None
    """C, asked for; None: MARGIN below the board's slowdown temperature, else DEFAULT_MAX_TEMP."""

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def burn_seconds(self) -> float:
        return next(phase.seconds for phase in self.phases if phase.name == BURN)

    def remaining(self, after: str) -> float:
        """Seconds of the phases behind the one of that name."""
        names = [phase.name for phase in self.phases]
        return sum(phase.seconds for phase in self.phases[names.index(after) + 1 :])

    def as_dict(self) -> dict[str, Any]:
        return {
            "phases": [
                {"name": p.name, "tag": p.status.tag, "memo": p.status.memo, "seconds": p.seconds} for p in self.phases
            ],
            "final": None if self.final is None else {"tag": self.final.tag, "memo": self.final.memo},
            "load": self.load,
            "load_args": list(self.load_args),
            "max_temp": self.max_temp,
            "seconds": self.seconds,
        }


def plan_of(args: argparse.Namespace) -> Plan:
    """Raises StatusError for a tag or memo that cannot be stored."""
    phases = [
        Phase(PRE_IDLE, status.make("idle", args.pre_idle_memo), args.pre_idle_sec),
        Phase(BURN, status.make(args.pre_tag, args.pre_memo), args.sec),
        Phase(POST, status.make(args.post_tag, args.post_memo), args.post_sec),
        Phase(COOLDOWN, status.make("idle", args.cooldown_memo), args.cooldown_sec),
    ]
    if args.final_memo is not None and args.final_tag is None:
        raise status.StatusError("--final-memo needs --final-tag: without it the status from before the run comes back")
    final = None if args.final_tag is None else status.make(args.final_tag, args.final_memo)
    kept = tuple(phase for phase in phases if phase.seconds > 0)
    return Plan(kept, final, args.load, tuple(args.load_args), args.max_temp)


def limit_of(plan: Plan, slowdowns: list[float | None]) -> tuple[float, str]:
    """(limit in C, where it comes from), from what the boards tell."""
    if plan.max_temp is not None:
        return plan.max_temp, "--max-temp"
    told = [value for value in slowdowns if value is not None]
    if told:
        return min(told) - MARGIN, f"{MARGIN:g} C below the slowdown temperature the board tells"
    return DEFAULT_MAX_TEMP, "default: the board does not tell its slowdown temperature"
