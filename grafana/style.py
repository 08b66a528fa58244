"""What a value looks like, once for all dashboards: unit, thresholds, colours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Final

from grafana_foundation_sdk.models import units

from services.contract.catalogue import BY_COLUMN, Unit
from services.contract.clocks_event import THERMAL

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
GROWN: Final = MappingProxyType(
    {Unit.MILLIJOULE: (3_600_000_000, units.KiloWattHour), Unit.NANOSECOND: (60_000_000_000, units.Minutes)}
)
"""Units of what counters grew by: divisor, and the unit then. Energy is paid for in kWh; of nanoseconds the axis would
have ticks like "11.7 mins"."""


def unit(column: str) -> str:
    """Grafana's unit of a metric: `unit("gpu_temp") == "celsius"`."""
    of = BY_COLUMN[column].unit
    return SCALED[of][1] if of in SCALED else GRAFANA_UNITS[of]


def grown(column: str) -> tuple[int, str]:
    """Divisor, and Grafana's unit then, of how much a counter grew."""
    return GROWN.get(BY_COLUMN[column].unit, (1, unit(column)))


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
    {
        "status": BLUE,
        "xid": RED,
        "gpu_lost": PURPLE,
        "gpu_returned": GREEN,
        "counter_reset": GREY,
        "target_down": ORANGE,
    }
)
LINE_COLOURS: Final = (
    "#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300",
)  # fmt: skip
"""Grafana's classic palette, by name of the series where one's band must have its colour."""

THROTTLE_WORDS: Final = MappingProxyType(
    {0x40: "heat (hardware)", 0x20: "heat", 0x8: "slowdown", 0x80: "power brake", 0x4: "power"}
)
"""Bits of `clocks_event_reasons` that hold a GPU back, in words; the worst first, since a narrow band cuts off the end:
hw_thermal, sw_thermal, hw_slowdown, hw_power_brake, power_cap."""
AT_TIMES: Final = 0x1000000
"""Beside the bits: they were set at times within a bucket of an hour or a day, nobody knows for how long. No bit of
NVIDIA's is so high."""
_PALE: Final = MappingProxyType({RED: "super-light-red", ORANGE: "super-light-orange"})


def throttle_states() -> dict[int, tuple[str, str]]:
    """Bits that hold a GPU back -> (text, colour), for every combination, and for every one with `AT_TIMES`."""
    sets = [sum(chosen) for size in range(1, len(THROTTLE_WORDS) + 1) for chosen in combinations(THROTTLE_WORDS, size)]
    always = {bits: (_reasons(bits), RED if bits & THERMAL else ORANGE) for bits in sets}
    at_times = {bits | AT_TIMES: (f"{text}, at times", _PALE[colour]) for bits, (text, colour) in always.items()}
    return {0: ("not throttled", GREEN), **always, **at_times}


def _reasons(bits: int) -> str:
    return " + ".join(word for bit, word in THROTTLE_WORDS.items() if bits & bit)
