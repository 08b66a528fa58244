"""The XID table: NVIDIA's facts, our severity, and an honest answer for what it does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.contract import document, xid
from services.contract.xid import ACTIONS, Severity, catalogue, lookup, severity_of

ROOT = Path(__file__).resolve().parents[3]


def test_fallen_off_the_bus() -> None:
    info = lookup(79)
    assert (info.meaning, info.severity, info.known) == ("GPU has fallen off the bus", Severity.CRITICAL, True)
    assert (info.immediate, info.investigatory) == ("RESTART_BM", "CONTACT_SUPPORT")
    assert info.immediate_action == "restart the host"


@pytest.mark.parametrize("code", [0, 173, 999, -1])
def test_an_unknown_code_is_said_to_be_unknown(code: int) -> None:
    info = lookup(code)
    assert (info.code, info.meaning, info.severity, info.known) == (code, "unknown XID", Severity.UNKNOWN, False)
    assert xid.DATE in info.investigatory_action
    assert info.immediate_action == ""


def test_all_codes_of_the_catalogue_are_there_in_order() -> None:
    assert list(catalogue()) == list(range(1, 173))


def test_every_bucket_is_explained_and_every_explanation_used() -> None:
    message_only = {"DRAIN_AND_RESET", "DRAIN_P2P"}  # XID 154 names them
    used = {bucket for info in catalogue().values() for bucket in (info.immediate, info.investigatory)}
    assert used | message_only == set(ACTIONS)


def test_what_dcgm_fails_on_is_critical() -> None:
    # Source: the XID mapping of DCGM's health watches
    assert {lookup(code).severity for code in (48, 64, 74, 79, 95, 119, 120, 140)} == {Severity.CRITICAL}


def test_application_errors_are_warnings() -> None:
    assert {lookup(code).severity for code in (13, 31, 43, 45, 94)} == {Severity.WARNING}


def test_tests_of_the_management_bus_are_nothing_to_do() -> None:
    assert {code for code, info in catalogue().items() if info.severity is Severity.INFO} == {106, 107}


def test_codes_without_an_action_are_of_unknown_severity() -> None:
    assert {code for code, info in catalogue().items() if info.severity is Severity.UNKNOWN} == set(range(162, 173))


def test_codes_of_earlier_boards_are_warnings() -> None:
    assert lookup(61).applies_to == ()
    assert lookup(61).severity is Severity.WARNING


@pytest.mark.parametrize(
    ("immediate", "investigatory", "unused", "dcgm", "expected"),
    [
        ("RESET_GPU", "IGNORE", False, "", Severity.CRITICAL),
        ("IGNORE", "IGNORE", False, "FAIL", Severity.CRITICAL),
        ("IGNORE", "IGNORE", False, "WARN", Severity.WARNING),
        ("IGNORE", "CONTACT_SUPPORT", False, "", Severity.WARNING),
        ("IGNORE", "", False, "", Severity.INFO),
        ("RESTART_APP", "", False, "", Severity.WARNING),
        ("CONTACT_SUPPORT", "", False, "", Severity.CRITICAL),
        ("CONTACT_SUPPORT", "", True, "", Severity.WARNING),
        ("", "", False, "", Severity.UNKNOWN),
    ],
)
def test_rule_of_severity(immediate: str, investigatory: str, unused: bool, dcgm: str, expected: Severity) -> None:
    assert severity_of(immediate, investigatory, unused=unused, dcgm_health=dcgm) is expected


@pytest.mark.parametrize(
    ("text", "bucket", "severity"),
    [
        ("Node Reboot Required", "RESTART_BM", Severity.CRITICAL),
        ("GPU Reset Required", "RESET_GPU", Severity.CRITICAL),
        ("Drain and Reset", "DRAIN_AND_RESET", Severity.CRITICAL),
        ("Drain P2P", "DRAIN_P2P", Severity.WARNING),
        ("None", "IGNORE", Severity.INFO),
        ("Something New", "XID_154", Severity.WARNING),
    ],
)
def test_recovery_action_is_in_the_message(text: str, bucket: str, severity: Severity) -> None:
    info = lookup(154, f"GPU recovery action changed from 0x0 (None) to 0x2 ({text})")
    assert (info.immediate, info.severity, info.immediate_action) == (bucket, severity, ACTIONS[bucket])


def test_a_message_changes_no_other_code() -> None:
    assert lookup(79, "changed from 0x0 (None) to 0x0 (None)") == lookup(79)


def test_committed_document_is_written_from_the_table() -> None:
    assert (ROOT / "docs/xids.md").read_text() == document.xids(), "run `make docs`"
