"""The assembler: runs of series -> one row per GPU or MIG instance, column by column.

A column of one run that covers all rows in their order is taken as it is; rows are built from columns in one call.
The *roster* - which GPUs there are, in which order, and what their labels say - follows from the groups of a scrape
alone, so it is built once and kept while the groups stay.

Several series of one metric for one GPU (pods that share it by time-slicing or MPS, jobs of a batch system, old and new
name of a field) make one value: the one without a pod if there is one (it is the device's), else the one they all
agree on. Where they differ (dcgm-exporter divides utilisation and memory among the processes of the pods), none of them
is the GPU's: the column is missing as `failed` and the values are kept in `extra.metrics` under their labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from services.collector.enrich import Context, Key, Meaning, Place, describe, series_suffix
from services.collector.lines import ScrapeRefused
from services.collector.own import FIELD_MISSING, GPU_INFO, reasons
from services.collector.series import Group
from services.collector.values import Odd, Topic
from services.contract.catalogue import PROPERTIES, SAMPLED
from services.contract.event import Extra, Gpu, Metrics, Properties
from services.contract.sentinels import Missing

Column = list[Any]
"""One value per row, None where there is none."""
_SAMPLED: Final = tuple(m.column for m in SAMPLED)
_PROPERTIES: Final = tuple(m.column for m in PROPERTIES)


class Groups(NamedTuple):
    """The distinct groups of a scrape, in order: all that its roster follows from."""

    known: list[Group]
    """Of catalogue metrics."""
    others: list[Group]
    """Of metrics that the catalogue does not know."""
    infos: list[Group]
    """Of `gpumon_gpu_info`."""
    reasons: list[Group]
    """Of `gpumon_field_missing`."""


class Roster:
    """The GPUs and instances of a scrape: its rows."""

    def __init__(self, groups: Groups, place: Place, old: Roster | None) -> None:
        """`old`: its contexts are reused where a GPU's label sets stayed, so that identity objects are built once and
        not per scrape."""
        self.groups = groups
        ours, theirs, infos = _by_key(groups.known), _by_key(groups.others), _by_key(groups.infos)
        self.keys: list[Key] = list(ours | theirs)
        self.row_of: dict[Key, int] = {key: row for row, key in enumerate(self.keys)}
        # What is told of a whole GPU holds for its instances too, unless they have an info series of their own.
        says = [(ours.get(k, ()), theirs.get(k, ()), infos.get(k, infos.get((k[0], None), ()))) for k in self.keys]
        memory: dict[Any, Context] = {} if old is None else old.contexts
        self.rows = [memory.get(what) or describe(what[0], what[1], place, what[2]) for what in says]
        self.contexts: dict[Any, Context] = dict(zip(says, self.rows, strict=True))
        self.extras = [None if c.labels is None else Extra(labels=c.labels) for c in self.rows]
        self.tenants = [c.tenant for c in self.rows]
        self.gpus = [c.gpu for c in self.rows]
        self.missing = reasons(groups.reasons, self.row_of)
        """Row -> column -> why there is no value, as the exporter told it."""
        self.missing_names = frozenset(name for told in self.missing.values() for name in told)
        self._places: dict[Group, tuple[list[int | None], bool]] = {}

    def fits(self, groups: Groups) -> bool:
        return self.groups == groups

    def places(self, group: Group) -> tuple[list[int | None], bool]:
        """The row of each line of a group (None: of no GPU), and whether they are all rows in order."""
        found = self._places.get(group)
        if found is None:
            rows = [None if m.key is None else self.row_of[m.key] for m in group.owners]
            found = self._places[group] = rows, rows == list(range(len(self.keys)))
        return found


def _by_key(groups: Iterable[Group]) -> dict[Key, tuple[Meaning, ...]]:
    """Distinct label sets per GPU, both in order of appearance."""
    series: dict[Key, tuple[Meaning, ...]] = {}
    for meaning in dict.fromkeys(chain.from_iterable(group.owners for group in groups)):
        if meaning.key is not None:
            series[meaning.key] = (*series.get(meaning.key, ()), meaning)
    return series


Part = tuple[str, Group, list[Any]]
"""Name on the wire, label sets, and a value for each: what is left of a run."""


@dataclass(slots=True)
class Sheet:
    """What a scrape says, collected run by run."""

    columns: dict[str, list[Part]] = field(default_factory=dict)
    odd: list[tuple[Topic, Meaning, Odd]] = field(default_factory=list)
    unknown: list[Part] = field(default_factory=list)
    own: list[Part] = field(default_factory=list)
    """Series of our own exporter."""

    def groups(self) -> Groups:
        known = dict.fromkeys(group for parts in self.columns.values() for _, group, _ in parts)
        others = dict.fromkeys(group for _, group, _ in self.unknown)
        return Groups(list(known), list(others), self._of(GPU_INFO), self._of(FIELD_MISSING))

    def _of(self, name: str) -> list[Group]:
        return [group for wire, group, _ in self.own if wire == name]


@dataclass(slots=True)
class Table:
    """The scrape as rows."""

    roster: Roster
    columns: dict[str, Column]
    missing: dict[int, dict[str, str]] = field(default_factory=dict)
    """Row -> column -> why there is no value."""
    kept: dict[int, dict[str, float | str]] = field(default_factory=dict)
    """Row -> series -> value, of what has no column."""

    def metrics(self) -> list[Any]:
        """One `Metrics` per row."""
        nothing: Column = [None] * len(self.roster.keys)
        return list(map(Metrics, *(self.columns.get(name, nothing) for name in _SAMPLED)))

    def extras(self) -> list[Extra | None]:
        extras = self.roster.extras
        if self.kept:
            extras = extras.copy()
            for row, kept in self.kept.items():
                extras[row] = Extra(metrics=kept, labels=self.roster.rows[row].labels)
        return extras


def assemble(sheet: Sheet, place: Place, last: Roster | None) -> Table:
    """Raises ScrapeRefused where a series is there twice."""
    groups = sheet.groups()
    roster = last if last is not None and last.fits(groups) else Roster(groups, place, last)
    table = Table(roster, {}, {row: told.copy() for row, told in roster.missing.items()})
    for name, parts in sheet.columns.items():
        table.columns[name] = _column(table, name, parts)
    for name in roster.missing_names & table.columns.keys():
        _drop_known(table, name)
    for topic, meaning, odd in sheet.odd:
        _note(table, topic, meaning, odd)
    for part in sheet.unknown:
        _keep(table, part)
    return table


def _drop_known(table: Table, name: str) -> None:
    """What has a value is not missing, whatever another series says: an event holds one or the other."""
    column = table.columns[name]
    for row, told in table.missing.items():
        if column[row] is not None:
            told.pop(name, None)


def _column(table: Table, name: str, parts: list[Part]) -> Column:
    roster = table.roster
    if len(parts) == 1 and roster.places(parts[0][1])[1]:
        return parts[0][2]
    placed = [(roster.places(group)[0], (wire, group, values)) for wire, group, values in parts]
    taken = [row for rows, _ in placed for row in rows if row is not None]
    if len(set(taken)) != len(taken):
        return _shared_column(table, name, placed)
    column: Column = [None] * len(roster.keys)
    for rows, (_, _, values) in placed:
        for row, value in zip(rows, values, strict=True):
            if row is not None:
                column[row] = value
    return column


def _shared_column(table: Table, name: str, placed: list[tuple[list[int | None], Part]]) -> Column:
    column: Column = [None] * len(table.roster.keys)
    series: defaultdict[int, list[tuple[str, Meaning, Any]]] = defaultdict(list)
    for rows, (wire, group, values) in placed:
        for row, meaning, value in zip(rows, group.owners, values, strict=True):
            if row is not None:
                series[row].append((wire, meaning, value))
    for row, found in series.items():
        column[row] = _agreed(table, row, name, found)
    return column


def _agreed(table: Table, row: int, column: str, found: list[tuple[str, Meaning, Any]]) -> Any:
    """The one value of several series of a GPU, or None with the reason noted."""
    _check_distinct(found)
    own = [value for _, meaning, value in found if meaning.tenant is None and value is not None]
    given = {value for _, _, value in found if value is not None}
    candidates = set(own) or given
    value = next(iter(candidates)) if len(candidates) == 1 else None
    if value is None and candidates:
        table.missing.setdefault(row, {})[column] = Missing.FAILED.value
    if given - {value}:  # each pod's share is kept, also where it happens to equal the whole
        context, kept = table.roster.rows[row], table.kept.setdefault(row, {})
        parts = [(n, m, v) for n, m, v in found if v is not None and (v != value or m.tenant is not None)]
        kept.update({name + series_suffix(meaning, context): part for name, meaning, part in parts})
    return value


def _check_distinct(found: list[tuple[str, Meaning, Any]]) -> None:
    seen = set()
    for name, meaning, _ in found:
        series = name, meaning.tenant, frozenset(meaning.labels.items())
        if series in seen:
            raise _twice(name, meaning)
        seen.add(series)


def _twice(name: str, meaning: Meaning) -> ScrapeRefused:
    uuid, instance = meaning.key or ("", None)
    whose = uuid if instance is None else f"{uuid} instance {instance}"
    return ScrapeRefused("duplicate_series", f"{name} of {whose} is in this scrape twice")


def _note(table: Table, topic: Topic, meaning: Meaning, odd: Odd) -> None:
    """Why a value is missing, unless another series of the same GPU has it; and what was written instead."""
    if meaning.key is None:
        return
    row = table.roster.row_of[meaning.key]
    if table.columns[topic.column][row] is None:
        table.missing.setdefault(row, {})[topic.column] = odd.reason.value
    if odd.raw is not None:
        table.kept.setdefault(row, {})[topic.name + series_suffix(meaning, table.roster.rows[row])] = odd.raw


def _keep(table: Table, part: Part) -> None:
    roster = table.roster
    name, group, values = part
    for row, meaning, value in zip(roster.places(group)[0], group.owners, values, strict=True):
        if row is None:
            continue
        kept = table.kept.setdefault(row, {})
        series = name + series_suffix(meaning, roster.rows[row])
        if series in kept:
            raise _twice(name, meaning)
        kept[series] = value


class Identities:
    """Each row's `Gpu`, with its properties and reasons: objects that are kept while nothing in them changes."""

    def __init__(self) -> None:
        self._basis: tuple[Roster, dict[str, Column], dict[int, dict[str, str]]] | None = None
        self._gpus: list[Gpu] = []

    def of(self, table: Table) -> list[Gpu]:
        properties = {name: column for name, column in table.columns.items() if name in _PROPERTIES}
        basis = table.roster, properties, table.missing
        if basis != self._basis:
            self._basis, self._gpus = basis, _gpus(*basis)
        return self._gpus


def _gpus(roster: Roster, columns: dict[str, Column], missing: dict[int, dict[str, str]]) -> list[Gpu]:
    if not columns and not missing:
        return roster.gpus
    nothing: Column = [None] * len(roster.keys)
    none = Properties()
    properties = map(Properties, *(columns.get(name, nothing) for name in _PROPERTIES))
    return [
        msgspec.structs.replace(gpu, properties=None if given == none else given, missing=missing.get(row) or None)
        for row, (gpu, given) in enumerate(zip(roster.gpus, properties, strict=True))
    ]
