"""Real nvidia-smi answers: every value the parser gives against a reader of the test's own, and counted.

XML: a line reader that knows nothing of elements. Text captures: nvidia-smi's own CSV of the same moment, which is an
independent answer of the same driver: it decides what power.limit or power.draw is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contract.catalogue import BY_COLUMN
from services.contract.sentinels import Missing
from services.exporter.reading import Number, Reading
from services.exporter.smi.xml import parse
from tests.support.fake_smi import FOLDER
from tests.support.recordings import recording
from tests.support.smi_text import as_xml

FEWEST_XML_VALUES, FEWEST_CSV_VALUES = 300, 100
"""Fewer means that something was not found, and the test would prove nothing."""

# Last elements of the path, as they stand in the files; the first that is there and holds a number.
PLACES: dict[str, tuple[str, ...]] = {
    "sm_clock": ("clocks/sm_clock",),
    "mem_clock": ("clocks/mem_clock",),
    "pstate": ("gpu/performance_state",),
    "memory_temp": ("temperature/memory_temp",),
    "gpu_temp": ("temperature/gpu_temp",),
    "slowdown_temp": ("temperature/gpu_temp_slow_threshold",),
    "shutdown_temp": ("temperature/gpu_temp_max_threshold",),
    "fan_speed": ("gpu/fan_speed",),
    "power_usage": (
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/instant_power_draw",
        "gpu_power_readings/power_draw",
        "power_readings/power_draw",
    ),
    "power_limit": ("gpu_power_readings/requested_power_limit", "power_readings/power_limit"),
    "pcie_replay_counter": ("pci/replay_counter",),
    "pcie_max_link_gen": ("pcie_gen/max_link_gen",),
    "pcie_link_gen": ("pcie_gen/current_link_gen",),
    "pcie_max_link_width": ("link_widths/max_link_width",),
    "pcie_link_width": ("link_widths/current_link_width",),
    "gpu_util": ("utilization/gpu_util",),
    "mem_copy_util": ("utilization/memory_util",),
    "enc_util": ("utilization/encoder_util",),
    "dec_util": ("utilization/decoder_util",),
    "fb_total": ("gpu/fb_memory_usage/total",),
    "fb_free": ("gpu/fb_memory_usage/free",),
    "fb_used": ("gpu/fb_memory_usage/used",),
    "fb_reserved": ("gpu/fb_memory_usage/reserved",),
    "retired_sbe": ("multiple_single_bit_retirement/retired_count",),
    "retired_dbe": ("double_bit_retirement/retired_count",),
    "retired_pending": ("retired_pages/pending_retirement",),
    "uncorrectable_remapped_rows": ("remapped_rows/remapped_row_unc",),
    "correctable_remapped_rows": ("remapped_rows/remapped_row_corr",),
    "row_remap_failure": ("remapped_rows/remapped_row_failure",),
    "row_remap_pending": ("remapped_rows/remapped_row_pending",),
}
BITS = {
    "gpu_idle": 1, "applications_clocks_setting": 2, "sw_power_cap": 4, "hw_slowdown": 8, "sync_boost": 16,
    "sw_thermal_slowdown": 32, "hw_thermal_slowdown": 64, "hw_power_brake_slowdown": 128,
    "display_clocks_setting": 256,
}  # fmt: skip
ECC = {
    "ecc_sbe_vol_total": ("volatile", r"single_bit/total|[sd]ram_correctable"),
    "ecc_dbe_vol_total": ("volatile", r"double_bit/total|[sd]ram_uncorrectable\w*"),
    "ecc_sbe_agg_total": ("aggregate", r"single_bit/total|[sd]ram_correctable"),
    "ecc_dbe_agg_total": ("aggregate", r"double_bit/total|[sd]ram_uncorrectable\w*"),
}


def naive(text: str) -> Iterator[dict[str, str]]:
    """One GPU after the other: path -> text, from lines of the form `<tag>text</tag>`."""
    path: list[str] = []
    found: dict[str, str] = {}
    for line in text.splitlines():
        if leaf := re.fullmatch(r"\s*<(\w+)>([^<]*)</\1>\s*", line):
            found.setdefault("/".join([*path, leaf[1]]), leaf[2])
        elif opened := re.fullmatch(r"\s*<(\w+)( id=.*)?>\s*", line):
            path = ["gpu"] if opened[1] == "gpu" else [*path, opened[1]]
            found = {} if opened[1] == "gpu" else found
        elif closed := re.fullmatch(r"\s*</(\w+)>\s*", line):
            if closed[1] == "gpu":
                yield found
            path = path[:-1]


def plain_number(text: str) -> float | None:
    words = {"Yes": 1.0, "No": 0.0}
    match = re.fullmatch(r"P?(-?\d+(?:\.\d+)?)x?(?: (?:C|W|MiB|MHz|%))?", text)
    return words.get(text, float(match[1]) if match else None)


def expected(found: dict[str, str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for column, places in PLACES.items():
        texts = [text for place in places for path, text in found.items() if f"gpu/{path}".endswith(f"/{place}")]
        texts = [text for text in texts if plain_number(text) is not None]
        if texts:
            values[column] = plain_number(texts[0]) or 0.0
    for column, (era, pattern) in ECC.items():
        parts = [text for path, text in found.items() if re.fullmatch(rf"gpu/ecc_errors/{era}/({pattern})", path)]
        if parts and all(part.isdigit() for part in parts):
            values[column] = sum(map(float, parts))
    reasons = {path: text for path, text in found.items() if "_reason_" in path}
    if reasons:
        names = [path.partition("_reason_")[2] for path, text in reasons.items() if text == "Active"]
        values["clocks_event_reasons"] = sum(BITS[name] for name in names)
    return values


def differences(reading: Reading, wanted: dict[str, float]) -> list[str]:
    columns = sorted(reading.values.keys() | wanted.keys())
    return [
        f"{reading.device.model}: {column} is {reading.values.get(column)}, the file says {wanted.get(column)}"
        for column in columns
        if reading.values.get(column) != wanted.get(column)
    ]


def _check(files: list[Path]) -> tuple[int, int, list[str]]:
    gpus, values, wrong = 0, 0, []
    for file in files:
        log = parse(file.read_bytes())
        whole = [reading for reading in log.readings if reading.device.instance_id is None]
        told = list(naive(file.read_text()))
        assert len(whole) == len(told)
        for reading, found in zip(whole, told, strict=True):
            gpus += 1
            values += len(reading.values)
            wrong += differences(reading, expected(found))
    return gpus, values, wrong


def test_own_fixtures_against_the_naive_reader() -> None:
    gpus, values, wrong = _check(sorted(FOLDER.glob("*.xml")))
    assert not wrong
    assert (gpus, values) == (7, 174)


def test_recorded_xml_against_the_naive_reader(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(recording("nvidia_smi_xml").glob("*.xml"))
    gpus, values, wrong = _check(files)
    with capsys.disabled():
        print(f"\n{len(files)} files, {gpus} GPUs, {values} values compared, {len(wrong)} differ")
    assert not wrong
    assert values >= FEWEST_XML_VALUES


# Text captures: the moment is the same to the second, so that what moves by itself is left out.
CSV_FIELDS = {
    "pstate": "pstate", "memory.total": "fb_total", "memory.reserved": "fb_reserved", "memory.used": "fb_used",
    "memory.free": "fb_free", "pcie.link.gen.current": "pcie_link_gen", "pcie.link.gen.max": "pcie_max_link_gen",
    "pcie.link.width.current": "pcie_link_width", "pcie.link.width.max": "pcie_max_link_width",
    "fan.speed": "fan_speed", "utilization.gpu": "gpu_util", "utilization.encoder": "enc_util",
    "utilization.decoder": "dec_util", "power.limit": "power_limit",
    "clocks_event_reasons.active": "clocks_event_reasons",
    "ecc.errors.corrected.volatile.total": "ecc_sbe_vol_total",
    "ecc.errors.uncorrected.volatile.total": "ecc_dbe_vol_total",
    "ecc.errors.corrected.aggregate.total": "ecc_sbe_agg_total",
    "ecc.errors.uncorrected.aggregate.total": "ecc_dbe_agg_total",
    "remapped_rows.correctable": "correctable_remapped_rows",
    "remapped_rows.uncorrectable": "uncorrectable_remapped_rows", "remapped_rows.pending": "row_remap_pending",
    "remapped_rows.failure": "row_remap_failure", "retired_pages.single_bit_ecc.count": "retired_sbe",
    "clocks.current.sm": "sm_clock", "clocks.current.memory": "mem_clock", "temperature.gpu": "gpu_temp",
    "temperature.memory": "memory_temp",
}  # fmt: skip
MOVING = {"gpu_temp": 1, "memory_temp": 1, "sm_clock": 150, "gpu_util": 0}
"""How far these may have moved within the second between the two answers."""


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^#{20,}\n# (.*)\n# \$.*\n#{20,}\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _cell(column: str, text: str) -> Number | Missing:
    if text.startswith("["):
        return Missing.UNSUPPORTED
    if text.startswith("0x"):
        return int(text, 16)
    number = plain_number(text)
    assert number is not None, (column, text)
    return number


def _near(found: Number | Missing | None, wanted: Number | Missing | None, within: float) -> bool:
    if isinstance(found, str | None) or isinstance(wanted, str | None):
        return found == wanted
    return abs(found - wanted) <= within


def test_text_captures_against_nvidia_smis_own_csv(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(recording("nvidia_smi_captures").glob("*.txt"))
    compared, wrong = 0, []
    for file in files:
        parts = _sections(file.read_text())
        for load in ("idle", "load"):
            (reading,) = parse(as_xml(parts[f"{load} :: query (-q)"])).readings
            head, row, *_ = csv.reader(parts[f"{load} :: query-gpu (csv, what the exporter parses)"].splitlines())
            told = dict(zip((name.strip().split(" [")[0] for name in head), map(str.strip, row), strict=True))
            for field, column in CSV_FIELDS.items():
                wanted = _cell(column, told[field])
                found = reading.values.get(column, reading.missing.get(column))
                compared += 1
                if not _near(found, wanted, MOVING.get(column, 0)):
                    wrong.append(f"{file.name} {load}: {column} is {found}, the CSV says {wanted}")
    with capsys.disabled():
        print(f"\n{len(files)} captures, {compared} cells compared, {len(wrong)} differ")
    assert not wrong
    assert compared >= FEWEST_CSV_VALUES


def test_what_a_real_p40_has_and_lacks() -> None:
    """There is text of one P40 only. The project's fixture says the same of the same cells."""
    text = next(recording("nvidia_smi_text").glob("tesla-p40*")).read_text()
    (real,) = parse(as_xml(text)).readings
    own = parse((FOLDER / "tesla-p40.xml").read_bytes()).readings[0]
    assert real.values.keys() == own.values.keys()
    assert real.missing == own.missing
    for column in ("slowdown_temp", "shutdown_temp", "power_limit", "fb_total", "pcie_max_link_width", "retired_sbe"):
        assert real.values[column] == own.values[column]
    assert real.values["clocks_event_reasons"] == 4
    assert all(BY_COLUMN[column].smi for column in real.values)
