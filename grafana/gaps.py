"""Where there are no samples there is no line and no state."""

from __future__ import annotations

from typing import Final

from grafana.resolution import FROM, SILENT, TO

BLANK: Final = f"{FROM} - INTERVAL '1 day'"
"""Time of a row of NULLs before the range: of an answer without rows a state timeline says it had no time field."""


HOLDS: Final = f"CASE WHEN gap > INTERVAL '{SILENT}' THEN gap / 2 ELSE INTERVAL '1 minute' END"
"""How long the last row before a silence holds: its bucket (the gap is two of them); of rows and minutes a minute. Not
the whole gap: a GPU that is lost would be "not throttled", and its pod be there, for five minutes more."""


def with_gaps(columns: tuple[str, ...], series: str | None = None, blank: str = "") -> str:
    """The rows of `sample` (time, series, columns, gap) in order, and a row of NULLs where it was silent.

    Grafana would draw a line across the silence, and a state until its end. `blank`: rows before the range.
    """
    return f"""{gapped(columns, series)}{blank and f"{chr(10)}UNION ALL{chr(10)}{blank}"}
ORDER BY {"1, 2" if series else "1"}"""


def gapped(columns: tuple[str, ...], series: str | None = None) -> str:
    """The same in any order. `series`: the column that tells series apart, or several with commas between them."""
    names = ", ".join(f'"{column}"' for column in columns)
    nulls = ", ".join("NULL" for _ in columns)
    key, by = (f"{series}, ", f"PARTITION BY {series} ") if series else ("", "")
    return f"""SELECT time, {key}{names} FROM sample
UNION ALL
SELECT time + {HOLDS}, {key}{nulls} FROM (
    SELECT time, {key}gap, lead(time, 1, {TO}) OVER ({by}ORDER BY time) AS next FROM sample
) silence WHERE next - time > gap"""


def bands(column: str) -> str:
    """States: the rows of `sample` (time, until, `column`, gap) that change something; and where nothing follows the
    end of a row within `gap`, what another row says that reaches over it, else nothing.

    A state timeline merges equal neighbours anyway; two days of minutes are 2,880 rows, of which three may differ.
    """
    return f"""SELECT time, "{column}" FROM (
SELECT *, "{column}" IS DISTINCT FROM lag("{column}") OVER (ORDER BY time) AS changes FROM (
SELECT time, "{column}" FROM sample
UNION ALL
SELECT ended.holds_until, (
    SELECT other."{column}" FROM sample other WHERE other.time <= ended.holds_until AND other.until >= ended.holds_until
    ORDER BY other.time DESC LIMIT 1)
FROM (
    SELECT until, gap, until + {HOLDS} AS holds_until, lead(time, 1, {TO}) OVER (ORDER BY time) AS next FROM sample
) ended WHERE next - until > gap
) every
) compared WHERE changes
UNION ALL
SELECT {BLANK}, NULL WHERE NOT EXISTS (SELECT FROM sample WHERE "{column}" IS NOT NULL)
ORDER BY 1"""
