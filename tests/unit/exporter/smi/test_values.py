"""Single cells: text -> number or reason."""

from __future__ import annotations

import pytest

from services.contract.catalogue import BY_COLUMN
from services.contract.sentinels import Missing
from services.exporter.smi.values import count, is_lost, number, reason, told


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("gpu_temp", "71 C", 71),
        ("gpu_temp", "-5 C", -5),
        ("gpu_temp", " 0 C\n", 0),
        ("power_usage", "42.15 W", 42.15),
        ("power_usage", "0.00 W", 0.0),
        ("fb_used", "24521 MiB", 24521),
        ("sm_clock", "1531 MHz", 1531),
        ("gpu_util", "100 %", 100),
        ("fan_speed", "0 %", 0),
        ("pstate", "P0", 0),
        ("pstate", "P12", 12),
        ("pcie_link_width", "16x", 16),
        ("pcie_link_gen", "3", 3),
        ("pcie_replay_counter", "150", 150),
        ("row_remap_failure", "Yes", 1),
        ("row_remap_pending", "No", 0),
        ("retired_pending", "Yes", 1),
        ("retired_sbe", "3", 3),
    ],
)
def test_value_with_its_unit(column: str, text: str, value: float) -> None:
    found = number(BY_COLUMN[column], text)
    assert found == value
    assert isinstance(found, int) == BY_COLUMN[column].sql.is_integer


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("gpu_temp", "160 F"),
        ("gpu_temp", "71"),
        ("gpu_temp", "71C"),
        ("gpu_temp", "71.5 C"),
        ("gpu_temp", "7 1 C"),
        ("gpu_temp", "999 C"),  # out of the catalogue's range
        ("gpu_temp", "٧١ C"),  # digits of another script  # noqa: RUF001
        ("gpu_temp", ""),
        ("power_usage", "42150 mW"),
        ("power_usage", "nan W"),
        ("power_usage", "-1.00 W"),
        ("fb_used", "24 GiB"),
        ("fb_used", "24521 MB"),
        ("sm_clock", "1.5 GHz"),
        ("gpu_util", "101 %"),
        ("gpu_util", "0.5"),
        ("pstate", "P16"),
        ("pstate", "0"),
        ("pcie_link_width", "16"),
        ("pcie_replay_counter", "9223372036854775794"),  # a leaked blank value
        ("pcie_replay_counter", "0x10"),
        ("row_remap_failure", "1"),
        ("row_remap_failure", "Maybe"),
    ],
)
def test_anything_else_is_failed_and_never_a_number(column: str, text: str) -> None:
    assert number(BY_COLUMN[column], text) is Missing.FAILED


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("N/A", Missing.UNSUPPORTED),
        ("[N/A]", Missing.UNSUPPORTED),
        ("[Not Supported]", Missing.UNSUPPORTED),
        ("Requested functionality has been deprecated", Missing.UNSUPPORTED),
        ("[Requested functionality has been deprecated]", Missing.UNSUPPORTED),
        ("Insufficient Permissions", Missing.PERMISSION),
        ("[Insufficient Permissions]", Missing.PERMISSION),
        ("Unknown Error", Missing.FAILED),
        ("[Unknown Error]", Missing.FAILED),
        ("ERR!", Missing.FAILED),
        ("[GPU requires reset]", Missing.FAILED),
        ("GPU is lost", Missing.FAILED),
        ("something new", Missing.FAILED),
        ("", Missing.FAILED),
        (None, Missing.FAILED),
    ],
)
def test_reason(text: str | None, why: Missing) -> None:
    assert reason(text) is why
    assert number(BY_COLUMN["gpu_temp"], text) is why
    assert count(text) is why


def test_lost_is_told_from_other_texts() -> None:
    assert is_lost("GPU is lost")
    assert is_lost("[GPU is lost]")
    assert is_lost("GPU is lost.  Reboot the system to recover this GPU")
    assert not is_lost("Unknown Error")
    assert not is_lost(None)


@pytest.mark.parametrize("text", ["N/A", "[N/A]", "", None, "GPU is lost", "Insufficient Permissions", "[Unknown]"])
def test_no_label_is_made_of_a_missing_text(text: str | None) -> None:
    assert told(text) is None


def test_a_label_is_the_text() -> None:
    assert told(" 86.02.23.00.01\n") == "86.02.23.00.01"
