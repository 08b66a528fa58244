"""What a panel's queries give: fields with names, values, and the display settings that hold for them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

COLOURS: Final = {
    "green": "#56a64b", "yellow": "#e0b400", "orange": "#ff780a", "red": "#e02f44", "blue": "#3274d9",
    "purple": "#a352cc", "transparent": "#00000000",
}  # fmt: skip
"""Names of Grafana's palette that the dashboards use, in its light theme's shades."""
PALETTE: Final = ("#56a64b", "#f2cc0c", "#3274d9", "#ff780a", "#e02f44", "#8ab8ff", "#a352cc", "#705da0", "#37872d")
"""For series without a colour of their own, in turn."""
_NOT_DRAWN: Final = frozenset({"links", "custom.width", "custom.fillBelowTo", "custom.lineWidth", "custom.hideFrom"})
"""Settings of fields that a still picture leaves out."""
_DRAWN: Final = frozenset(
    {"unit", "decimals", "mappings", "thresholds", "color", "custom.cellOptions", "custom.hidden", "custom.lineStyle",
     "custom.fillOpacity", "noValue"}
)  # fmt: skip


@dataclass
class Field:
    """A column, or one series; `times` (seconds) where it has any."""

    name: str
    values: list[Any]
    config: dict[str, Any]
    times: list[float] | None = None

    @property
    def hidden(self) -> bool:
        return bool(self.config.get("custom.hidden"))

    @property
    def last(self) -> Any:
        return next((value for value in reversed(self.values) if value is not None), None)

    def colour(self, value: Any) -> str | None:
        """By mapping, else by threshold; None where neither says anything. Grafana gives NULL the lowest step's."""
        mapped = _mapped(value, self.config.get("mappings", ()))
        if mapped is not None and mapped.get("color"):
            return hexadecimal(mapped["color"])
        steps = self.config.get("thresholds", {}).get("steps", ())
        if isinstance(value, (str, bool, dt.datetime)) or not steps:
            return None
        reached = [s for s in steps if s["value"] is None or (value is not None and value >= s["value"])]
        return hexadecimal(reached[-1]["color"])

    @property
    def fixed_colour(self) -> str | None:
        color = self.config.get("color", {})
        return hexadecimal(color["fixedColor"]) if color.get("mode") == "fixed" else None

    def text(self, value: Any) -> str:
        """As Grafana would write it."""
        mapped = _mapped(value, self.config.get("mappings", ()))
        if mapped is not None and mapped.get("text") is not None:
            return str(mapped["text"])
        if value is None:
            return str(self.config.get("noValue") or "")
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return number(float(value), str(self.config.get("unit", "none")), self.config.get("decimals"))
        return str(value)


def hexadecimal(colour: str) -> str:
    return colour if colour.startswith("#") else COLOURS[colour]


def _mapped(value: Any, mappings: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    key = f"{value:g}" if isinstance(value, float) else str(value)
    for mapping in mappings:
        if mapping["type"] == "special":
            assert mapping["options"]["match"] in ("null", "null+nan"), mapping
            fits, result = value is None, mapping["options"]["result"]
        else:
            assert mapping["type"] == "value", mapping
            fits, result = value is not None and key in mapping["options"], mapping["options"].get(key)
        if fits:
            found: Mapping[str, Any] = result
            return found
    return None


def fields_of(panel: Mapping[str, Any], answers: Sequence[tuple[str, list[str], list[tuple[Any, ...]]]]) -> list[Field]:
    """`answers`: format, names of columns and rows of each query, in order."""
    found: list[Field] = []
    for style, names, rows in answers:
        found += _series(names, rows) if style == "time_series" else _columns(names, rows)
    for field in found:
        field.config = config_of(panel, field.name)
    return [field for field in found if not field.hidden]


def _columns(names: list[str], rows: list[tuple[Any, ...]]) -> list[Field]:
    times = [row[names.index("time")].timestamp() for row in rows] if "time" in names else None
    return [Field(name, [plain(row[i]) for row in rows], {}, times) for i, name in enumerate(names)]


def _series(names: list[str], rows: list[tuple[Any, ...]]) -> list[Field]:
    """Rows to series: a series for each value of the text column, and for each number column."""
    time = names.index("time")
    metric = names.index("metric") if "metric" in names else None
    numbers = [i for i in range(len(names)) if i not in (time, metric)]
    series: dict[str, Field] = {}
    for row in rows:
        for i in numbers:
            label = names[i] if metric is None else str(row[metric])
            field = series.setdefault(label, Field(label, [], {}, []))
            assert field.times is not None
            field.times.append(row[time].timestamp())
            field.values.append(plain(row[i]))
    return [f for f in series.values() if any(value is not None for value in f.values)]


def plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def config_of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Defaults with every override whose expression fits the name."""
    defaults = panel["fieldConfig"]["defaults"]
    config = {key: value for key, value in defaults.items() if key != "custom"}
    config |= {f"custom.{key}": value for key, value in defaults.get("custom", {}).items()}
    for override in panel["fieldConfig"].get("overrides", ()):
        assert override["matcher"]["id"] == "byRegexp"
        _, expression, flags = re.split(r"^/(?=.)|/(?=\w*$)", override["matcher"]["options"])
        if re.search(expression, name, re.IGNORECASE if "i" in flags else 0):
            unknown = {p["id"] for p in override["properties"]} - _DRAWN - _NOT_DRAWN
            assert not unknown, f"{panel['title']}: {unknown} cannot be drawn"
            config |= {p["id"]: p["value"] for p in override["properties"]}
    return config


# --- numbers ----------------------------------------------------------------------------------------------------------

_SECONDS: Final = ((86400.0, " days"), (3600.0, " hours"), (60.0, " mins"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))


def _si(symbol: str) -> tuple[tuple[float, str], ...]:
    return ((1e9, f" G{symbol}"), (1e6, f" M{symbol}"), (1e3, f" k{symbol}"), (0.0, f" {symbol}"))


_UNITS: Final[Mapping[str, tuple[float, tuple[tuple[float, str], ...]]]] = {
    "celsius": (1, ((0, " °C"),)),
    "percent": (1, ((0, "%"),)),
    "percentunit": (100, ((0, "%"),)),
    "none": (1, ((0, ""),)),
    "locale": (1, ((0, ""),)),  # all digits, with separators
    "bool_yes_no": (1, ((0, ""),)),
    "short": (1, ((1e9, " B"), (1e6, " M"), (1e3, " K"), (0, ""))),
    "watt": (1, _si("W")),
    "joule": (1, _si("J")),
    "Bps": (1, _si("B/s")),
    "mbytes": (1, ((1024, " GiB"), (0, " MiB"))),
    "rotmhz": (1, ((1000, " GHz"), (0, " MHz"))),
    "kwatth": (1, ((0, " kWh"),)),
    "s": (1, _SECONDS),
    "ns": (1e-9, _SECONDS),
}
"""Grafana's unit id -> factor, and steps of size and suffix, the largest first."""


def number(value: float, unit: str, decimals: int | None = None) -> str:
    """`number(1234, "watt") == "1.23 kW"`. Raises KeyError for a unit nothing is known of."""
    factor, steps = _UNITS[unit]
    scaled = value * factor
    size, suffix = next(((size, s) for size, s in steps if size and abs(scaled) >= size), (1.0, steps[-1][1]))
    if unit in ("s", "ns") and scaled == 0:
        suffix = " s"
    digits = f"{scaled:,.{decimals or 0}f}" if unit == "locale" else _digits(scaled / size, decimals)
    one = digits == "1" and unit in ("s", "ns")
    return f"{digits}{suffix.removesuffix('s') if one and len(suffix) > 3 else suffix}"


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
