"""What Grafana's PostgreSQL data source sends for a query: variables and macros expanded, the unknown refused.

Two passes, as in Grafana 11 and 12. The browser puts in variables (dashboard variables, `$__interval`, `$__from`); the
server then expands macros, `$__name(arguments)`, whose arguments end at the first closing parenthesis. Sources:
Grafana's documentation, pages "PostgreSQL query editor", "PostgreSQL template variables", "Variable syntax", "Add
variables"; where the query editor's page shows MySQL for PostgreSQL, the plug-in's own help is followed.

Unknown names, formats and macros raise here, where Grafana would send some of them on as they are. Not implemented, and
refused: fill arguments, custom date formats, fields of variables, `$__searchFilter`. `$__range` is for Prometheus and
Loki only, as documented.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MICROSECOND: Final = dt.timedelta(microseconds=1)
MILLISECOND: Final = dt.timedelta(milliseconds=1)
SECOND: Final = dt.timedelta(seconds=1)
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DURATIONS: Final = MappingProxyType(
    {
        "ms": MILLISECOND,
        "s": SECOND,
        "m": dt.timedelta(minutes=1),
        "h": dt.timedelta(hours=1),
        "d": dt.timedelta(days=1),
        "w": dt.timedelta(weeks=1),
    }
)


class GrafanaError(ValueError):
    """Grafana would not know this, or it is refused here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The dashboard's range, both ends included."""

    start: dt.datetime
    end: dt.datetime

    @property
    def length(self) -> dt.timedelta:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Variable:
    """A dashboard variable as it is chosen. `multi` or `include_all` have Grafana quote, even a single value."""

    name: str
    values: tuple[str, ...]
    """What is chosen; with All and no custom value, every option."""
    multi: bool = False
    include_all: bool = False
    all_value: str | None = None
    """Custom value of All, when All is chosen and has one: put in as it stands, never quoted, whatever the format."""

    @property
    def quoted(self) -> bool:
        return self.multi or self.include_all


@dataclass(frozen=True, slots=True)
class Context:
    """What a query is expanded with."""

    time_range: TimeRange
    variables: Mapping[str, Variable]
    interval: dt.timedelta = dt.timedelta(seconds=10)
    """`$__interval`: about the range over the panel's width."""
    timescaledb: bool = True
    """The switch of the data source: `$__timeGroup` becomes time_bucket()."""


def expand(sql: str, context: Context) -> str:
    """What arrives at PostgreSQL. Raises GrafanaError."""
    return _expand_macros(with_variables(sql, context), context)


# --- variables, in the browser ---------------------------------------------------------------------------------------

_VARIABLE: Final = re.compile(
    r"\$(?P<plain>\w+)(?P<call>\s*\()?"
    r"|\$\{(?P<braces>\w+)(?P<field>\.[^:}]+)?(?::(?P<format>[^}]+))?\}"
    r"|\[\[(?P<brackets>\w+)(?::(?P<format2>\w+))?\]\]"
)
_LEFT_OVER: Final = re.compile(r"\$\{")


def with_variables(sql: str, context: Context) -> str:
    """What the browser sends to Grafana: variables put in, macros as they are. Raises GrafanaError."""

    def put_in(match: re.Match[str]) -> str:
        if match["call"]:
            if match["plain"] in MACROS:
                return match[0]
            raise GrafanaError(f"{match[0].strip()}...) is no macro of the PostgreSQL data source")
        if match["field"]:
            raise GrafanaError(f"{match[0]}: fields of variables are refused")
        name = match["plain"] or match["braces"] or match["brackets"]
        return _value(name, match["format"] or match["format2"], context)

    result = _VARIABLE.sub(put_in, sql)
    if _LEFT_OVER.search(_VARIABLE.sub("", sql)):
        raise GrafanaError(f"a ${{ that is no variable: {sql}")
    return result


def _value(name: str, style: str | None, context: Context) -> str:
    if name in ("__from", "__to"):
        moment = context.time_range.start if name == "__from" else context.time_range.end
        return _moment(name, moment, style)
    if name in ("__interval", "__interval_ms"):
        if style not in (None, "raw"):
            raise GrafanaError(f"${{{name}:{style}}}: an interval takes no format")
        return duration(context.interval) if name == "__interval" else str(context.interval // MILLISECOND)
    if name.startswith("__range"):
        raise GrafanaError(f"${name}: Grafana's documentation has it for Prometheus and Loki only")
    if name in MACROS:
        raise GrafanaError(f"${name} is a macro: it needs parentheses")
    if name not in context.variables:
        raise GrafanaError(
            f"${name}: the dashboard has no such variable; it has {', '.join(context.variables) or 'none'}"
        )
    return _dashboard_variable(context.variables[name], style, context)


def _dashboard_variable(variable: Variable, style: str | None, context: Context) -> str:
    if variable.all_value is not None:
        return with_variables(variable.all_value, context)
    if style is not None:
        if style not in FORMATS:
            raise GrafanaError(
                f"${{{variable.name}:{style}}}: unknown or refused format; there are {', '.join(FORMATS)}"
            )
        return FORMATS[style](variable.values)
    if variable.quoted:
        return _sqlstring(variable.values)
    (value,) = variable.values
    return value.replace("'", "''")


def _sqlstring(values: Sequence[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def _singlequote(values: Sequence[str]) -> str:
    """Backslash, as documented: not what PostgreSQL understands. `sqlstring` is."""
    return ",".join("'" + value.replace("'", "\\'") + "'" for value in values)


def _doublequote(values: Sequence[str]) -> str:
    return ",".join('"' + value.replace('"', '\\"') + '"' for value in values)


def _regex(values: Sequence[str]) -> str:
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _json(values: Sequence[str]) -> str:
    return json.dumps(list(values), separators=(",", ":")) if len(values) != 1 else json.dumps(values[0])


FORMATS: Final[Mapping[str, Callable[[Sequence[str]], str]]] = MappingProxyType(
    {
        "csv": ",".join,
        "raw": ",".join,
        "pipe": "|".join,
        "sqlstring": _sqlstring,
        "singlequote": _singlequote,
        "doublequote": _doublequote,
        "regex": _regex,
        "json": _json,
    }
)


def _moment(name: str, moment: dt.datetime, style: str | None) -> str:
    milliseconds = (moment - EPOCH) // MILLISECOND
    match style:
        case None:
            return str(milliseconds)
        case "date" | "date:iso":
            utc = EPOCH + milliseconds * MILLISECOND
            return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03}Z"
        case "date:seconds":
            return str(milliseconds // 1000)
        case _:
            raise GrafanaError(f"${{{name}:{style}}}: custom date formats are refused (they follow the browser's zone)")


def duration(length: dt.timedelta) -> str:
    """As `$__interval` is written: the largest unit that divides it (10s, 2m, 1h, 1d, 500ms)."""
    for unit in ("d", "h", "m", "s"):
        if length and length % DURATIONS[unit] == dt.timedelta():
            return f"{length // DURATIONS[unit]}{unit}"
    return f"{length // MILLISECOND}ms"


def parse_duration(text: str) -> dt.timedelta:
    """`5m`, `1h`, `20ms`, `12d`. Raises GrafanaError; months and years are refused, their length varies."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d|w)", text)
    if match is None:
        raise GrafanaError(f"interval {text!r}: a number and one of ms, s, m, h, d, w")
    return int(match[1]) * DURATIONS[match[2]]


# --- macros, in the server -------------------------------------------------------------------------------------------

_MACRO: Final = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")


def _expand_macros(sql: str, context: Context) -> str:
    def evaluate(match: re.Match[str]) -> str:
        name, inside = match[1], match[2]
        if name not in MACROS:
            raise GrafanaError(f"unknown macro ${name}()")
        if "(" in inside:
            raise GrafanaError(f"${name}({inside}): Grafana ends the arguments at the first closing parenthesis")
        # Kept from Grafana 5.2: a comma after the (first such) call and it is the alias form.
        after = sql.find(match[0]) + len(match[0])
        if name == "__timeGroup" and sql[after : after + 1] == ",":
            name = "__timeGroupAlias"
        arguments = [argument.strip(" ") for argument in inside.split(",")] if inside.strip() else []
        return MACROS[name](arguments, context)

    result = _MACRO.sub(evaluate, sql)
    if found := re.search(r"\$__\w+", result):
        raise GrafanaError(f"{found[0]} is left: a macro without parentheses, or blanks before them")
    return result


def _column(name: str, arguments: list[str]) -> str:
    if len(arguments) != 1 or not arguments[0]:
        raise GrafanaError(f"$__{name} takes one column, not {arguments}")
    return arguments[0]


def _nothing(name: str, arguments: list[str]) -> None:
    if arguments:
        raise GrafanaError(f"$__{name}() takes no argument, not {arguments}")


def _rfc3339(moment: dt.datetime) -> str:
    """UTC, the fraction without trailing zeros."""
    utc = moment.astimezone(dt.UTC)
    fraction = f".{utc.microsecond:06}".rstrip("0").rstrip(".")
    return f"'{utc.strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z'"


def _time_filter(arguments: list[str], context: Context) -> str:
    column = _column("timeFilter", arguments)
    return f"{column} BETWEEN {_rfc3339(context.time_range.start)} AND {_rfc3339(context.time_range.end)}"


def _group(name: str, arguments: list[str]) -> tuple[str, dt.timedelta]:
    if len(arguments) == 3:
        raise GrafanaError(
            f"$__{name}: the fill argument {arguments[2]!r} is refused: the server fills, not PostgreSQL"
        )
    if len(arguments) != 2 or not all(arguments):
        raise GrafanaError(f"$__{name} takes a column and an interval, not {arguments}")
    return arguments[0], parse_duration(arguments[1].strip("'"))


def _number(length: dt.timedelta) -> str:
    seconds = length / SECOND
    return f"{seconds:g}" if float(f"{seconds:g}") == seconds else repr(seconds)


def _time_group(arguments: list[str], context: Context) -> str:
    column, length = _group("timeGroup", arguments)
    if context.timescaledb:
        return f"time_bucket('{length / SECOND:.3f}s',{column})"
    return f"floor(extract(epoch from {column})/{_number(length)})*{_number(length)}"


def _epoch_group(arguments: list[str], _context: Context) -> str:
    column, length = _group("unixEpochGroup", arguments)
    return f"floor(({column})/{_number(length)})*{_number(length)}"


def _epoch(unit: dt.timedelta, factor: int = 1) -> Callable[[dt.datetime], str]:
    return lambda moment: str((moment - EPOCH) // unit * factor)


_SECONDS: Final = _epoch(SECOND)
_NANOSECONDS: Final = _epoch(MICROSECOND, 1000)


def _epoch_filter(name: str, write: Callable[[dt.datetime], str]) -> Callable[[list[str], Context], str]:
    def evaluate(arguments: list[str], context: Context) -> str:
        column = _column(name, arguments)
        return f"{column} >= {write(context.time_range.start)} AND {column} <= {write(context.time_range.end)}"

    return evaluate


def _end(name: str, write: Callable[[dt.datetime], str]) -> Callable[[list[str], Context], str]:
    """A macro that gives the start (its name ends in From) or the end of the range."""

    def evaluate(arguments: list[str], context: Context) -> str:
        _nothing(name, arguments)
        return write(context.time_range.start if name.endswith("From") else context.time_range.end)

    return evaluate


MACROS: Final[Mapping[str, Callable[[list[str], Context], str]]] = MappingProxyType(
    {
        "__time": lambda arguments, _: f'{_column("time", arguments)} AS "time"',
        "__timeEpoch": lambda arguments, _: f'extract(epoch from {_column("timeEpoch", arguments)}) as "time"',
        "__timeFilter": _time_filter,
        "__timeFrom": _end("timeFrom", _rfc3339),
        "__timeTo": _end("timeTo", _rfc3339),
        "__timeGroup": _time_group,
        "__timeGroupAlias": lambda arguments, context: _time_group(arguments, context) + ' AS "time"',
        "__unixEpochFilter": _epoch_filter("unixEpochFilter", _SECONDS),
        "__unixEpochFrom": _end("unixEpochFrom", _SECONDS),
        "__unixEpochTo": _end("unixEpochTo", _SECONDS),
        "__unixEpochNanoFilter": _epoch_filter("unixEpochNanoFilter", _NANOSECONDS),
        "__unixEpochNanoFrom": _end("unixEpochNanoFrom", _NANOSECONDS),
        "__unixEpochNanoTo": _end("unixEpochNanoTo", _NANOSECONDS),
        "__unixEpochGroup": _epoch_group,
        "__unixEpochGroupAlias": lambda arguments, context: _epoch_group(arguments, context) + ' AS "time"',
    }
)
