"""Reads the metrics of one GPU, and learns on the way which calls are worth making."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pynvml

from services.contract.sentinels import Missing
from services.exporter.nvml.calls import CALLS, FIELDS, Call, Field, Handle
from services.exporter.nvml.errors import UNKNOWN_FIELD, GpuLostError, raise_if_fatal, text, why_missing
from services.exporter.nvml.values import convert
from services.exporter.reading import Number


@dataclass(slots=True)
class Cells:
    """What one pass over a GPU gave. A column is in one of the two."""

    values: dict[str, Number] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)

    def put(self, column: str, cell: Number | Missing) -> None:
        if not isinstance(cell, Missing):
            self.values[column] = cell
            self.missing.pop(column, None)
        elif column not in self.values:
            self.missing[column] = cell

    def put_all(self, columns: Iterable[str], reason: Missing) -> None:
        for column in columns:
            self.put(column, reason)


class Reader:
    """One GPU's calls. What a GPU does not support is asked once, what cannot change as well: make a new Reader when
    the driver, the GPU's mode or the GPU itself may have changed."""

    def __init__(self, handle: Handle, calls: Iterable[Call] = CALLS, fields: Iterable[Field] = FIELDS) -> None:
        self._handle = handle
        self._calls = list(calls)
        self._fields = list(fields)
        self._known = Cells()  # of static calls, and what is unsupported
        self._answered = False
        self._last_error = 0

    def read(self) -> Cells:
        """Raises GpuLostError where the GPU gives nothing at all, SourceError where the driver has gone."""
        self._answered, self._last_error = False, 0
        cells = Cells()
        self._read_fields(cells)
        for call in tuple(self._calls):
            self._read_call(call, cells)
        if not self._answered and self._last_error:  # a GPU off the bus may answer everything with "Unknown Error"
            raise GpuLostError(text(self._last_error))
        for column, value in self._known.values.items():
            cells.put(column, value)
        cells.put_all(self._known.missing, Missing.UNSUPPORTED)
        return cells

    def _read_fields(self, cells: Cells) -> None:
        if not self._fields:
            return
        try:
            answers = pynvml.nvmlDeviceGetFieldValues(self._handle, [one.field_id for one in self._fields])
        except pynvml.NVMLError as error:
            outcomes: list[int | Missing] = [self._failed(error.value, UNKNOWN_FIELD)] * len(self._fields)
        else:
            outcomes = [self._field(answer) for answer in answers]
        for one, outcome in zip(tuple(self._fields), outcomes, strict=True):
            if outcome is Missing.UNSUPPORTED:
                self._fields.remove(one)
                self._replace((one.column,), one.instead)
            else:
                cells.put(one.column, outcome if isinstance(outcome, Missing) else convert(one.column, outcome))

    def _field(self, answer: object) -> int | Missing:
        code, kind, value = answer.nvmlReturn, answer.valueType, answer.value  # type: ignore[attr-defined] # a struct
        if code != pynvml.NVML_SUCCESS:
            return self._failed(code, UNKNOWN_FIELD)
        self._answered = True
        return int(getattr(value, _MEMBERS[kind])) if kind in _MEMBERS else Missing.FAILED

    def _read_call(self, call: Call, cells: Cells) -> None:
        try:
            natives = call.read(self._handle)
        except pynvml.NVMLError as error:
            reason = self._failed(error.value)
            if reason is Missing.UNSUPPORTED:
                self._drop(call, cells)
            else:
                cells.put_all(call.columns, reason)
            return
        self._answered = self._answered or not call.static  # what NVML remembers says nothing of the GPU's health
        found = {column: convert(column, native) for column, native in zip(call.columns, natives, strict=True)}
        for column, cell in found.items():
            cells.put(column, cell)
        if call.static and not any(isinstance(cell, Missing) for cell in found.values()):
            self._calls.remove(call)
            self._known.values |= {column: cell for column, cell in found.items() if not isinstance(cell, Missing)}

    def _drop(self, call: Call, cells: Cells) -> None:
        """Not supported: never again; what takes its place is asked at once."""
        self._calls.remove(call)
        self._replace(call.columns, call.instead)
        if call.instead is not None:
            self._read_call(call.instead, cells)

    def _replace(self, columns: tuple[str, ...], instead: Call | None) -> None:
        if instead is not None and instead not in self._calls:
            self._calls.append(instead)
        for column in columns:
            if instead is None or column not in instead.columns:
                self._known.missing[column] = Missing.UNSUPPORTED

    def _failed(self, code: int, unsupported_too: int | None = None) -> Missing:
        raise_if_fatal(code)
        reason = Missing.UNSUPPORTED if code == unsupported_too else why_missing(code)
        if reason is Missing.FAILED:
            self._last_error = code
        return reason


_MEMBERS = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
"""nvmlValueType_t -> member of the union in which the value lies."""
