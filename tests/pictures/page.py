"""A dashboard on one figure: its panels in their grid, its variables and range above, what it is below."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from services.plot import draw, style
from services.store.connect import Connection
from tests.pictures.fields import fields_of, hexadecimal
from tests.pictures.kinds import KINDS, Marks, legend_rows
from tests.support.grafana_dashboards import Dashboard, Query, Use, choose, context_of
from tests.support.grafana_sql import Context, TimeRange, Variable, expand

WIDTH: Final = 15.0
"""Inches, for 24 columns."""
UNIT: Final = 0.3
"""Inches: one row of the grid."""
HEAD: Final = 0.75
FOOT: Final = 0.34
DPI: Final = 100
_MARGIN: Final = 0.04
"""Inches between two panels, on each side."""
NOTE: Final = "drawn from the panels' queries by this project's plot code; not a Grafana screenshot"
_INSET: Final[Mapping[str, tuple[float, float, float, float]]] = {
    "timeseries": (0.62, 0.38, 0.2, 0.36),
    "state-timeline": (0.62, 0.62, 0.2, 0.36),
    "barchart": (0.55, 0.62, 0.15, 0.4),
    "piechart": (0.05, 0.1, 0.1, 0.36),
    "table": (0.1, 0.05, 0.1, 0.34),
    "stat": (0.05, 0.02, 0.05, 0.3),
}
"""Inches around the axes in a panel: left, bottom, right, top; below a graph its legend comes on top."""
_LEGEND_ROW: Final = 0.145


class Page:
    """One dashboard with its variables chosen, ending at `end`."""

    def __init__(
        self, connection: Connection, dashboard: Dashboard, end: dt.datetime, chosen: Mapping[str, str | None]
    ) -> None:
        self._connection, self._dashboard = connection, dashboard
        self._range = TimeRange(end - dashboard.default_range, end)
        self._variables = choose(dashboard, self._range, lambda sql: self._ask(sql)[1], chosen)

    def figure(self, upto: str | None) -> Figure:
        """The panels above the row titled `upto`."""
        panels = self._panels(upto)
        bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
        height = HEAD + bottom * UNIT + FOOT
        with mpl.rc_context({**draw.RC, "axes.titlesize": 9}):
            figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="#f4f5f5")
            self._words(figure, height)
            marks = self._marks()
            for panel in panels:
                self._panel(figure, height, panel, marks)
        return figure

    def _panels(self, upto: str | None) -> list[Mapping[str, Any]]:
        rows = [p for p in self._dashboard.document["panels"] if p["type"] == "row" and p["title"] == upto]
        assert rows or upto is None, f"no row {upto!r}"
        end = rows[0]["gridPos"]["y"] if rows else 10_000
        return [p for p in self._dashboard.document["panels"] if p["gridPos"]["y"] < end]

    def _panel(self, figure: Figure, height: float, panel: Mapping[str, Any], marks: Marks) -> None:
        grid = panel["gridPos"]
        left, wide = grid["x"] * WIDTH / 24 + _MARGIN, grid["w"] * WIDTH / 24 - 2 * _MARGIN
        low, high = height - HEAD - (grid["y"] + grid["h"]) * UNIT + _MARGIN, grid["h"] * UNIT - 2 * _MARGIN
        if panel["type"] == "row":
            figure.text(left / WIDTH, (low + high / 2) / height, f"v  {panel['title']}", fontsize=10, weight="bold",
                        va="center")  # fmt: skip
            return
        figure.add_artist(FancyBboxPatch(
            (left / WIDTH, low / height), wide / WIDTH, high / height, boxstyle="square,pad=0", facecolor="white",
            edgecolor="#dcdcdc", linewidth=0.8, transform=figure.transFigure, zorder=-1))  # fmt: skip
        figure.text((left + 0.1) / WIDTH, (low + high - 0.17) / height, panel["title"], fontsize=8.8, weight="bold",
                    va="center")  # fmt: skip
        answers = [self._answer(query) for query in self._dashboard.queries() if query.panel is panel]
        fields = fields_of(panel, answers)
        inset = _INSET[panel["type"]]
        bottom = inset[1] + (legend_rows(fields, wide) * _LEGEND_ROW if panel["type"] == "timeseries" else 0)
        axes = figure.add_axes((
            (left + inset[0]) / WIDTH, (low + bottom) / height,
            (wide - inset[0] - inset[2]) / WIDTH, (high - bottom - inset[3]) / height))  # fmt: skip
        axes.patch.set_alpha(0)
        span = (self._range.start.timestamp(), self._range.end.timestamp())
        KINDS[panel["type"]](axes, panel, fields, span, marks)

    def _answer(self, query: Query) -> tuple[str, list[str], list[tuple[Any, ...]]]:
        names, rows = self._ask(expand(query.sql, context_of(query, self._range, self._variables)))
        return query.format, names, rows

    def _ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        cursor = self._connection.execute(sql.encode())
        assert cursor.description is not None
        return [column.name for column in cursor.description], cursor.fetchall()

    def _marks(self) -> list[tuple[float, str]]:
        """Annotations: when, and in which colour."""
        found = []
        colours = {a["name"]: a["iconColor"] for a in self._dashboard.document["annotations"]["list"]}
        for query in self._dashboard.queries():
            if query.use is Use.ANNOTATION and query.sql:
                names, rows = self._ask(expand(query.sql, Context(self._range, self._variables)))
                found += [(row[names.index("time")].timestamp(), hexadecimal(colours[query.title])) for row in rows]
        return found

    def _words(self, figure: Figure, height: float) -> None:
        figure.text(0.004, 1 - 0.22 / height, self._dashboard.title, fontsize=14, weight="bold", va="center")
        begin, end = (f"{moment:%Y-%m-%d %H:%M}" for moment in (self._range.start, self._range.end))
        figure.text(0.996, 1 - 0.22 / height, f"{begin} to {end} UTC", fontsize=9, va="center", ha="right")
        shown = "      ".join(self._choice(v) for v in self._dashboard.variables if v["type"] != "datasource")
        figure.text(0.004, 1 - 0.54 / height, shown, fontsize=9, va="center", color=style.FAINT)
        figure.text(0.5, 0.16 / height, f"{NOTE} (grafana/{self._dashboard.uid}.json, data of the mock)", fontsize=9,
                    va="center", ha="center", color="#8a3b00", style="italic")  # fmt: skip

    def _choice(self, variable: Mapping[str, Any]) -> str:
        chosen: Variable = self._variables[variable["name"]]
        value = "All" if chosen.all_value or chosen.include_all else ", ".join(chosen.values)
        return f"{variable.get('label') or variable['name']}: {value}"


def save(figure: Figure, path: Path, most: int) -> int:
    """As PNG in at most 256 colours. Bytes. Raises ValueError above `most`."""
    figure.savefig(path, format="png", facecolor=figure.get_facecolor())
    with Image.open(path) as image:
        image.convert("RGB").quantize(colors=160, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path}: {size} bytes, more than {most}")
    return size
