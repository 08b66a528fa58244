"""Where there are no samples there is no line and no state."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import statetimeline
from grafana_foundation_sdk.models import dashboard as models

from grafana.resolution import FROM, LENGTH, PER_GPU, SILENT, TO

BLANK: Final = f"{FROM} - INTERVAL '1 day'"
"""Time of a row of NULLs before the range: of an answer without rows a state timeline says it had no time field."""


HOLDS: Final = f"CASE WHEN gap > INTERVAL '{SILENT}' THEN gap / 2 ELSE INTERVAL '1 minute' END"
"""How long the last row before a silence holds: its bucket (the gap is two of them); of rows and minutes a minute. Not
the whole gap: a GPU that is lost would be "not throttled", and its pod be there, for five minutes more."""
OF_ROWS: Final = f"{LENGTH} <= INTERVAL '{PER_GPU[0].upto}'"
LATE: Final = f"({HOLDS} + CASE WHEN {OF_ROWS} THEN INTERVAL '1 minute' ELSE INTERVAL '2 minutes' END)"
"""How old the last row of the range may be, at its end, for its state to go on. Of rows: a scrape interval of up to a
minute (`HOLDS`), and a minute on its way from there to here. Of buckets that interval more: `HOLDS` ends with the
bucket, and the first sample of the next may come a minute after."""


def _silent(last: str) -> str:
    """SQL over a row and the `next` one's time: whether what was known until `last` ends then. Within the range a
    silence is one when it is longer than `gap`; of the last row nobody knows yet how long it will be."""
    return f"coalesce(next - {last} > gap, {TO} - {last} > {LATE})"


def _end(last: str) -> str:
    """SQL: when. In a range that ends in the future what is so now goes on until now."""
    return f"greatest({last} + {HOLDS}, CASE WHEN next IS NULL AND now() - {last} <= {LATE} THEN now() END)"


def with_gaps(columns: tuple[str, ...], series: str | None = None, blank: str = "") -> str:
    """The rows of `sample` (time, series, columns, gap) in order, and a row of NULLs where it was silent.

    Grafana would draw a line across the silence, and a state until its end. `blank`: of states, rows before the range;
    the last row then ends as that of `bands` does. A line ends with its last row anyway.
    """
    return f"""{gapped(columns, series, states=bool(blank))}{blank and f"{chr(10)}UNION ALL{chr(10)}{blank}"}
ORDER BY {"1, 2" if series else "1"}"""


def gapped(columns: tuple[str, ...], series: str | None = None, *, states: bool = False) -> str:
    """The same in any order. `series`: the column that tells series apart, or several with commas between them."""
    names = ", ".join(f'"{column}"' for column in columns)
    nulls = ", ".join("NULL" for _ in columns)
    key, by = (f"{series}, ", f"PARTITION BY {series} ") if series else ("", "")
    following = "lead(time)" if states else f"lead(time, 1, {TO})"
    return f"""SELECT time, {key}{names} FROM sample
UNION ALL
SELECT {_end("time") if states else f"time + {HOLDS}"}, {key}{nulls} FROM (
    SELECT time, {key}gap, {following} OVER ({by}ORDER BY time) AS next FROM sample
) silence WHERE {_silent("time") if states else "next - time > gap"}"""


def bands(column: str) -> str:
    """States: the rows of `sample` (time, until, `column`, gap) that change something; and where nothing follows the
    end of a row within `gap` (of the last: `LATE`), what another row says that reaches over it, else nothing.

    A row may lie within another: a job of five minutes in an hour's pod. `known`: up to when any row so far tells.
    A state timeline merges equal neighbours anyway; two days of minutes are 2,880 rows, of which three may differ.
    """
    return f"""SELECT time, "{column}" FROM (
SELECT *, "{column}" IS DISTINCT FROM lag("{column}") OVER (ORDER BY time) AS changes FROM (
SELECT time, "{column}" FROM sample
UNION ALL
SELECT ended.at, (
    SELECT other."{column}" FROM sample other WHERE other.time <= ended.at AND other.until >= ended.at
    ORDER BY other.time DESC LIMIT 1)
FROM (
    SELECT CASE WHEN last < known THEN last + {HOLDS} ELSE {_end("last")} END AS at
    FROM (
        SELECT until, gap, max(until) OVER (ORDER BY time) AS known, lead(time) OVER (ORDER BY time) AS next FROM sample
    ) told, LATERAL (VALUES (until), (known)) ends (last)
    WHERE {_silent("last")}
) ended
) every
) compared WHERE changes
UNION ALL
SELECT {BLANK}, NULL WHERE NOT EXISTS (SELECT FROM sample WHERE "{column}" IS NOT NULL)
ORDER BY 1"""


class _Unset(models.DynamicConfigValue):
    """A property that some fields have not; the SDK leaves a value of None out."""

    def to_json(self) -> dict[str, object]:
        return {"id": self.id_val, "value": None}


def blank(panel: statetimeline.Panel) -> statetimeline.Panel:
    """A legend of states lists what NULL reads, in the colour of a good state; without `noValue` it reads as nothing
    and is left out. A colour of its own, by a mapping of NULL, would draw a band there; "" is taken for the number 0.
    """
    return panel.override_by_regexp("/.*/", [_Unset(id_val="noValue")])
