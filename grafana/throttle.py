"""Why clocks were held back, as coloured bands: the same for a host's GPUs and for one."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard as models

from grafana import panels, style
from grafana.resolution import Level
from services.contract.clocks_event import THROTTLING

DESCRIPTION: Final = (
    "Why the clocks were held back, from the bits of clocks_event_reasons: heat (sw_thermal; of the hardware "
    "hw_thermal), slowdown (hw_slowdown), power brake (hw_power_brake), power (power_cap). Idle, a clock somebody set "
    "and sync boost are not shown: they are nobody's trouble. Over six hours every reason of a minute. Over two days "
    'pale, and "at times": some time within the hour or day; for how long "Time held back" in GPU detail says.'
)


def held(level: Level) -> str:
    """SQL: a state of `style.throttle_states`. An hour in which a bit was set once is no hour held back."""
    bits = f"{level.bits('clocks_event_reasons')} & {THROTTLING}"
    if level.step in ("", "minute"):
        return bits
    return f"CASE WHEN {bits} > 0 THEN {bits} | {style.AT_TIMES} ELSE {bits} END"


def mapping() -> models.ValueMapping:
    return panels.text_map({str(bits): state for bits, state in style.throttle_states().items()})
