"""The main job on real input: expositions replayed through exporter endpoint, collector, Kafka, sink and TimescaleDB.

Then every value of the texts is compared with what its column holds, by a reader of the test's own. The project's own
fixtures always take part; recordings from real GPUs where GPUMON_RECORDINGS_DIR names their folder.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from services.contract.catalogue import METRICS, PROPERTIES, SAMPLED
from tests.e2e.naive_reader import Device, Series, expected, is_property, read
from tests.faults.harness import Pipeline

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

FIXTURES = Path(__file__).parents[1] / "golden"
FEWEST_FIXTURES = 15
"""Fewer means that the fixtures were not found, and the test would prove nothing."""
FEWEST_FIXTURE_VALUES = 500
FOLDER = "GPUMON_RECORDINGS_DIR"
SCRAPES = 3
"""Of each file at least, so that a value that changes from scrape to scrape would show."""


@dataclass(slots=True)
class Findings:
    """What was compared."""

    files: int = 0
    devices: int = 0
    rows: int = 0
    series: int = 0
    """Lines of the texts about a GPU."""
    values: int = 0
    """The same, each compared in every row of its GPU."""
    absent: int = 0
    """Columns without a line, in every row: must be NULL."""
    no_value: int = 0
    """Lines that say that there is no value, or no possible one."""
    unknown: int = 0
    """Series without a column, found in `extra`."""
    labels: int = 0
    others: int = 0
    """Lines that are about no GPU."""
    differences: list[str] = field(default_factory=list)

    def check(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.differences.append(f"{what}: {found!r}, the text says {wanted!r}")

    def __str__(self) -> str:
        return (
            f"{self.files} files, {self.devices} GPUs and MIG instances, {self.series} series, {self.rows} rows: "
            f"{self.values} values compared ({self.no_value} no usable value, {self.unknown} without a column), "
            f"{self.labels} labels, {self.absent} absent values, {self.others} lines of no GPU; "
            f"{len(self.differences)} differences"
        )


def recordings() -> list[Path]:
    folder = os.environ.get(FOLDER)  # noqa: TID251  # the tests' own switch, no setting of the product
    if not folder:
        pytest.skip(f"no recordings from real GPUs: set {FOLDER} to a folder with .prom files")
    files = sorted(Path(folder).rglob("*.prom"))
    if not files:
        pytest.fail(f"{FOLDER}={folder} holds no .prom files")
    return files


def test_fixtures(kafka: str, timescale: str, tmp_path: Path) -> None:
    files = sorted(FIXTURES.rglob("*.prom"))
    assert len(files) >= FEWEST_FIXTURES
    findings = replay_and_compare(files, kafka, timescale, tmp_path)
    print(f"\nfixtures: {findings}")
    assert findings.values >= FEWEST_FIXTURE_VALUES
    assert not findings.differences, "\n".join(findings.differences[:50])


def test_recordings(kafka: str, timescale: str, tmp_path: Path) -> None:
    files = recordings()
    findings = replay_and_compare(files, kafka, timescale, tmp_path)
    print(f"\nrecordings: {findings}")
    assert not findings.differences, "\n".join(findings.differences[:50])


def replay_and_compare(files: list[Path], kafka: str, timescale: str, directory: Path) -> Findings:
    targets = directory / "targets.json"
    environment = {"TARGETS": "", "TARGETS_FILES": str(targets), "COLLECTION_INTERVAL": "0.5", "SCRAPE_TIMEOUT": "0.5"}
    pipeline = Pipeline(directory, kafka, timescale, environment=environment)
    try:
        pipeline.prepare()
        mock = pipeline.role(
            "mock", "mock", "--port", "0", "--write-targets", str(targets), "--replay", *map(str, files)
        )
        pipeline.wait_for(targets.exists, "the mock's target file")
        run(pipeline, len(files))
        mock.stop()
        findings = Findings(files=len(files))
        with psycopg.connect(timescale, row_factory=dict_row) as connection:
            for path in files:
                compare_file(path, connection, findings)
    finally:
        pipeline.close()
    return findings


def run(pipeline: Pipeline, files: int) -> None:
    """Scrape every file a few times and wait until all of it is in the database."""
    sink, collector = pipeline.sink(), pipeline.collector()

    def scraped() -> bool:
        collector.check()
        counts = [s.value for s in collector.readings().samples if s.name == "gpumon_collector_scrapes_total"]
        return len(counts) == files and min(counts) > SCRAPES

    pipeline.wait_for(scraped, f"{SCRAPES} scrapes of {files} files")
    refused = collector.metric("gpumon_collector_scrapes_refused_total")
    collector.stop()
    pipeline.wait_drained()
    sink.stop()
    assert refused == 0, collector.log
    assert pipeline.dead_letters() == []


def compare_file(path: Path, connection: psycopg.Connection[dict[str, Any]], findings: Findings) -> None:
    devices, others = read(path.read_text(encoding="utf-8"))
    findings.others += others
    for device in devices.values():
        gpu = connection.execute(
            "SELECT * FROM gpus WHERE gpu_uuid = %s AND instance_id IS NOT DISTINCT FROM %s::smallint",
            [device.uuid, device.instance],
        ).fetchone()
        where = f"{path.name}: {device.uuid}" + ("" if device.instance is None else f" instance {device.instance}")
        findings.devices += 1
        findings.series += len(device.series)
        if gpu is None:
            findings.differences.append(f"{where} is not in the inventory")
            continue
        rows = connection.execute("SELECT * FROM gpu_metrics WHERE gpu_id = %s", [gpu["gpu_id"]]).fetchall()
        findings.rows += len(rows)
        if len(rows) < SCRAPES:
            findings.differences.append(f"{where} has {len(rows)} rows")
        compare_inventory(where, device, gpu, findings)
        for row in rows:
            compare_row(where, device, gpu, row, findings)


def compare_inventory(where: str, device: Device, gpu: dict[str, Any], findings: Findings) -> None:
    """Labels, limits of the device, and why values are missing."""
    said = device.identity()
    said["hostname"] = said["hostname"] or "127.0.0.1"  # where the exporter gives none: the target's
    for column, wanted in said.items():
        findings.labels += wanted is not None
        findings.check(f"{where} gpus.{column}", gpu[column], wanted)
    lines = device.by_metric()
    properties = gpu["properties"] or {}
    for metric in PROPERTIES:
        if metric.column not in lines:
            findings.absent += 1
            findings.check(f"{where} gpus.properties", properties.get(metric.column), None)
    missing = {
        column: wanted.missing
        for column, series in lines.items()
        if (wanted := agreed(series)) is not None and wanted.missing is not None
    } | {column: "failed" for column, series in lines.items() if agreed(series) is None}
    missing |= {metric.column: "not_exposed" for metric in METRICS if metric.column not in lines}
    findings.check(f"{where} gpus.missing", gpu["missing"] or {}, missing)


def compare_row(where: str, device: Device, gpu: dict[str, Any], row: dict[str, Any], findings: Findings) -> None:
    lines = device.by_metric()
    kept = dict((row["extra"] or {}).get("metrics") or {})
    for series in (s for several in lines.values() for s in several):
        findings.values += 1
        metric = series.metric
        assert metric is not None
        wanted = agreed(lines[metric.column])
        found = (gpu["properties"] or {}).get(metric.column) if is_property(metric) else row[metric.column]
        value = None if wanted is None else wanted.value
        findings.no_value += expected(metric, series.text).value is None
        findings.check(f"{where} {series.name} {series.text}", found, as_column(value, integer=metric.sql.is_integer))
        if expected(metric, series.text).kept or wanted is None:
            compare_kept(where, series, kept, findings)
    for metric in SAMPLED:
        if metric.column not in lines:
            findings.absent += 1
            findings.check(f"{where} {metric.column} without a line", row[metric.column], None)
    for series in device.unknown():
        findings.values += 1
        findings.unknown += 1
        compare_kept(where, series, kept, findings)
    compare_tenant(where, device, row, findings)


def agreed(series: list[Series]) -> Any:
    """What the column must hold; None where several pods' values differ and none is the device's own."""
    metric = series[0].metric
    assert metric is not None
    wanted = {expected(metric, s.text) for s in series}
    own = {expected(metric, s.text) for s in series if not any(s.tenant)}
    for candidates in (own, wanted):
        if len(candidates) == 1:
            return next(iter(candidates))
    return None


def as_column(value: Decimal | None, *, integer: bool) -> int | float | None:
    """Exact: a real column must give the very digits back."""
    if value is None:
        return None
    return int(value) if integer else float(value)


def compare_kept(where: str, series: Series, kept: dict[str, Any], findings: Findings) -> None:
    """A value without a column: under its name, with the labels that set it apart, as number or as text."""
    candidates = [value for name, value in kept.items() if name.partition("{")[0] == series.name]
    wanted = float(series.text)
    exact = [v for v in candidates if same(v, wanted, series.text)]
    if not exact:
        findings.differences.append(f"{where} {series.name} {series.text}: in extra.metrics only {candidates}")


def same(value: object, wanted: float, text: str) -> bool:
    if isinstance(value, str):
        return Decimal(value) == Decimal(text) if math.isfinite(wanted) else str(Decimal(value)) == str(Decimal(text))
    return value == wanted


def compare_tenant(where: str, device: Device, row: dict[str, Any], findings: Findings) -> None:
    tenants = device.tenants()
    wanted = next(iter(tenants)) if len(tenants) == 1 else (None, None, None)
    findings.check(f"{where} tenant", (row["pod"], row["namespace"], row["container"]), wanted)
    findings.labels += sum(text is not None for text in wanted)
    labels = dict((row["extra"] or {}).get("labels") or {})
    sharing = labels.pop("tenants", None)
    findings.check(f"{where} extra.labels", labels, device.other_labels())
    findings.labels += len(labels)
    if len(tenants) > 1:
        for pod, namespace, container in tenants:
            if f"{namespace or ''}/{pod or ''}/{container or ''}" not in str(sharing):
                findings.differences.append(f"{where}: pod {pod} is not among the tenants {sharing!r}")
