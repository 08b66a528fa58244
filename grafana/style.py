"""What a value looks like, once for all dashboards: unit, thresholds, colours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Final

from grafana_foundation_sdk.models import units

from services.contract.catalogue import BY_COLUMN, Unit
from services.contract.clocks_event import REASONS, THERMAL, THROTTLING, reasons

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, GREY = "blue", "purple", "#8e8e8e"
NO_VALUE: Final = "No value"
"""Where a query gives NULL or nothing: unknown is neither zero nor good."""
NONE: Final = "None"
"""Where nothing is an answer: no events, none lost."""
NOT_YET: Final = "Nothing yet: the running hour is not in it"
"""Of a database younger than the buckets a range is read from."""

COUNT: Final = "locale"
"""Grafana's unit of counts, with thousands apart and no decimals. Its "short" makes 1,234 GPUs "1 K"."""
WHOLE: Final = MappingProxyType({units.Percent: 100, units.PercentUnit: 1})
"""Units of shares -> what the whole is: axes go from zero to it."""
GRAFANA_UNITS: Final = MappingProxyType(
    {
        Unit.CELSIUS: units.Celsius,
        Unit.WATT: units.Watt,
        Unit.MILLIJOULE: "mJ",  # Grafana has no millijoule; energy is shown in joules, see `SCALED`
        Unit.MEGAHERTZ: units.MegahertzRotation,  # under "rotational speed" in Grafana's list; it is the only MHz
        Unit.MEBIBYTE: units.Mebibytes,
        Unit.BYTES_PER_SECOND: units.BytesPerSecondSI,
        Unit.PERCENT: units.Percent,
        Unit.RATIO: units.PercentUnit,
        Unit.NANOSECOND: units.Nanoseconds,
        Unit.COUNT: COUNT,
        Unit.CODE: units.NoUnit,
        Unit.BITMASK: units.NoUnit,
        Unit.FLAG: "bool_yes_no",
    }
)
"""Unit of the catalogue -> Grafana's unit id."""
SCALED: Final = MappingProxyType({Unit.MILLIJOULE: (1000, units.Joule)})
"""Units that Grafana lacks: divisor, and the unit then."""


def unit(column: str) -> str:
    """Grafana's unit of a metric: `unit("gpu_temp") == "celsius"`."""
    of = BY_COLUMN[column].unit
    return SCALED[of][1] if of in SCALED else GRAFANA_UNITS[of]


# --- thresholds: one source; every panel that colours a value takes one of these -------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Steps upwards: `base` below the first. Drawn as lines where `lines` says so."""

    base: str
    steps: tuple[tuple[float, str], ...]
    lines: tuple[tuple[float, str], ...] = ()


TEMPERATURE: Final = Thresholds(
    base=GREEN,
    steps=((60, YELLOW), (75, ORANGE), (85, RED)),
    lines=((75, ORANGE), (85, RED)),
)
"""C, of the GPU. The operators' own limits (runbook, section 5.4): 60 leaves the idle band, at 75 the fan is to be
looked after, 85 is 5 to 10 C below where the boards begin to slow down."""
FRESHNESS: Final = Thresholds(GREEN, ((60, YELLOW), (300, RED)))
"""s since the newest sample: six scrapes of 10 s; then five minutes, where v_fleet_health_summary says "silent"."""
LATE: Final = Thresholds(FRESHNESS.base, FRESHNESS.steps[:1])
"""s, of GPUs that report: none of them is older than five minutes."""
AHEAD: Final = Thresholds(GREEN, ((1, YELLOW), (60, RED)))
"""s by which a sample is dated ahead of the database's clock. NTP keeps clocks within a tenth of a second: a second is
a clock nobody keeps, at a minute "who is late" says nothing any more. The sink refuses more than MAX_FUTURE."""
ANY_IS_BAD: Final = Thresholds(GREEN, ((1, RED),))
"""count: one lost GPU, one uncorrectable error is one too many."""
ANY_IS_NOTABLE: Final = Thresholds(GREEN, ((1, YELLOW),))
"""count: something to look at, nothing to be woken for."""
SHARE_THROTTLED: Final = Thresholds(GREEN, ((1, YELLOW), (20, ORANGE), (50, RED)))
"""% of the buckets of time: some throttling under load is normal, half of the time is a cooling or power fault."""
LOAD: Final = Thresholds(GREEN, ((90, YELLOW), (98, ORANGE)))
"""% of memory or of the power limit: 90 is near the end, at 98 the next allocation fails or the clocks go down."""
UP: Final = Thresholds(RED, ((1, GREEN),))
"""flag: 1 is good."""
INGEST_FRESHNESS: Final = Thresholds(GREEN, ((1, YELLOW), (10, RED)))
"""s from scrape to commit: the pipeline's goal is one second; ten is a whole scrape interval behind."""
SPOOL: Final = Thresholds(GREEN, ((0.5, YELLOW), (0.9, RED)))
"""ratio of SPOOL_MAX_BYTES: at 1 new samples are refused."""
PLAIN: Final = Thresholds(BLUE, ())
"""No judgement."""

# --- colours ---------------------------------------------------------------------------------------------------------

STATUS_COLOURS: Final = MappingProxyType({"idle": BLUE, "prod": GREEN, "bench": ORANGE})
"""The tags an operator is advised to use (runbook, "status tags"); others get the palette's next colour."""
UNTAGGED: Final = "untagged"
"""Samples of a host whose operator said nothing."""
EVENT_COLOURS: Final = MappingProxyType(
    {"status": BLUE, "xid": RED, "gpu_lost": PURPLE, "gpu_returned": GREEN, "counter_reset": GREY}
)


def throttle_states() -> dict[int, tuple[str, str]]:
    """Bits of `clocks_event_reasons` that hold a GPU back -> (text, colour), for every combination of them."""
    bits = [bit for bit in REASONS if bit & THROTTLING]
    sets = [sum(chosen) for size in range(1, len(bits) + 1) for chosen in combinations(bits, size)]
    return {0: ("not throttled", GREEN)} | {s: (" + ".join(reasons(s)), RED if s & THERMAL else ORANGE) for s in sets}
