"""dcgm-exporter's counters file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.__main__ import main
from services.contract.catalogue import METRICS
from services.exporter.counters_file import CountersFileError, load

GOOD = """\
# Format
# If line starts with a '#' it is considered a comment
  # so it is with blanks before it

DCGM_FI_DEV_GPU_TEMP,       gauge, GPU temperature (in C).
DCGM_FI_DEV_XID_ERROR, gauge, "Last XID, as DCGM 4.6 calls it"
DCGM_FI_DRIVER_VERSION,     label, Driver Version
DCGM_EXP_XID_ERRORS_COUNT,  counter, Count of XIDs
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "counters.csv"
    path.write_text(text)
    return path


def test_three_columns(tmp_path: Path) -> None:
    selection = load(written(tmp_path, GOOD))
    assert [(c.name, c.metric.column, c.type, c.help) for c in selection.counters] == [
        ("DCGM_FI_DEV_GPU_TEMP", "gpu_temp", "gauge", "GPU temperature (in C)."),
        ("DCGM_FI_DEV_XID_ERROR", "xid_errors", "gauge", "Last XID, as DCGM 4.6 calls it"),
    ]
    assert selection.labels == ("DCGM_FI_DRIVER_VERSION",)
    assert [w.name for w in selection.windowed] == ["DCGM_EXP_XID_ERRORS_COUNT"]


def test_the_file_of_the_compose_profile_is_taken() -> None:
    selection = load(Path(__file__).parents[4] / "docker" / "dcgm-exporter" / "counters.csv")
    assert len(selection.counters) > 20


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("DCGM_FI_DEV_GPU_TEMP, gauge", "line 2: 2 columns, expected three"),
        ("DCGM_FI_DEV_GPU_TEMP, gauge, a, b", "line 2: 4 columns, expected three"),
        ("DCGM_FI_DEV_GPU_TEMP, histogram, x", "line 2: type 'histogram' of DCGM_FI_DEV_GPU_TEMP; allowed are"),
        ("DCGM_FI_DEV_GPU_TMP, gauge, x", "line 2: unknown field 'DCGM_FI_DEV_GPU_TMP'"),
        ("DCGM_FI_DEV_GPU_TEMP, label, x", "line 2: DCGM_FI_DEV_GPU_TEMP is no label field"),
        ("DCGM_FI_DEV_OEM, label, x", "line 2: unknown field 'DCGM_FI_DEV_OEM' of type label"),
        ("DCGM_FI_DEV_SERIAL, gauge, x", "line 2: DCGM_FI_DEV_SERIAL is text: its type is label"),
        ("DCGM_FI_DEV_SM_CLOCK, gauge, x", "line 2: DCGM_FI_DEV_SM_CLOCK stands in line 1 already"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = written(tmp_path, f"DCGM_FI_DEV_SM_CLOCK, gauge, x\n{line}\n")
    with pytest.raises(CountersFileError) as raised:
        load(path)
    assert f"counters file {path}: {complaint}" in str(raised.value)


def test_unknown_fields_are_told_all_at_once_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(CountersFileError) as raised:
        load(written(tmp_path, "DCGM_A, gauge, x\n\nDCGM_B, counter, x\n"))
    text = str(raised.value)
    assert "line 1: unknown field 'DCGM_A'" in text
    assert "line 3: unknown field 'DCGM_B'" in text
    assert all(metric.dcgm in text for metric in METRICS)
    assert text.count("known fields:") == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "DCGM_FI_DRIVER_VERSION, label, Driver\n"])
def test_a_file_without_metrics_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CountersFileError, match="names no metric"):
        load(written(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(CountersFileError, match="No such file"):
        load(tmp_path / "nothing.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CountersFileError, match="not UTF-8"):
        load(tmp_path / "binary")


def test_what_the_catalogue_writes_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalogue", "--format", "dcgm-csv"]) == 0
    selection = load(written(tmp_path, capsys.readouterr().out))
    assert {counter.metric for counter in selection.counters} == set(METRICS)


@pytest.mark.timeout(10)
def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(CountersFileError, match=f"counters file {path}: it is a .*, not a regular file"):
            load(path)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "counters.csv"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(CountersFileError, match="larger than 1048576 bytes"):
        load(path)


def test_a_cell_above_what_csv_takes_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(CountersFileError, match="line 2: field larger than field limit"):
        load(written(tmp_path, "\nDCGM_FI_DEV_GPU_TEMP, gauge, " + "x" * 200_000))


def test_wrong_lines_are_named_up_to_a_number(tmp_path: Path) -> None:
    with pytest.raises(CountersFileError) as raised:
        load(written(tmp_path, "x\n" * 1000))
    assert len(str(raised.value).splitlines()) == 21
    assert "and 980 more wrong lines" in str(raised.value)
