"""The files of a benchmark: a CSV of runs and one of energies per model, a summary as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.llm_bench.joules import Spent
from services.llm_bench.report import Report
from services.llm_bench.results import COLUMNS, ENERGY_COLUMNS, Generation, Table, file_names, row


class Files:
    """A file that cannot be written is reported once; the benchmark goes on."""

    def __init__(self, directory: Path | None, models: Mapping[str, str], warn: Callable[[str], None]) -> None:
        """`directory` None: no CSV. `models`: name -> digest."""
        self._directory = directory
        self._names = file_names(models)
        self._warn = warn
        self._tables: dict[str, Table] = {}
        self.failed = False

    def measured(self, generation: Generation) -> None:
        """Append to `bench_<model>.csv`, begun anew at the first run of a model."""
        if self._directory is None or self.failed:
            return
        try:
            if generation.model not in self._tables:
                path = self._directory / f"bench_{self._names[generation.model]}.csv"
                self._tables[generation.model] = Table(path, COLUMNS)
            self._tables[generation.model].add(row(generation))
        except OSError as error:
            self._report(error)

    def energies(self, report: Report) -> None:
        """`energy_<model>.csv`, at the end, when all samples are there."""
        if self._directory is None or self.failed:
            return
        tables: dict[str, Table] = {}
        try:
            for generation, spent in zip(report.results.generations, report.energies, strict=True):
                model = generation.model
                if model not in tables:
                    tables[model] = Table(self._directory / f"energy_{self._names[model]}.csv", ENERGY_COLUMNS)
                tables[model].add(energy_row(generation, spent))
        except OSError as error:
            self._report(error)

    def summary(self, path: Path, document: dict[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document) + "\n")
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        self.failed = True
        self._warn(f"{error.filename or 'a file'} cannot be written ({error.strerror}); the benchmark goes on without")


def energy_row(generation: Generation, spent: Spent) -> list[str]:
    """Unknown cells are empty, with the reason in the last."""
    return [
        generation.model,
        str(generation.run),
        generation.prompt_id,
        "" if spent.joules is None else f"{spent.joules:.1f}",
        "" if spent.per_token is None else f"{spent.per_token:.3f}",
        spent.method or "",
        spent.reason or "",
    ]
