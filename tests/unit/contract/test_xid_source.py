"""The XID table says what NVIDIA's catalogue says. The spreadsheet is read by the test's own few lines."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from defusedxml import ElementTree

from services.contract import xid
from tests.support.recordings import recording

SHA256 = "7f70ce9684be0c9d98a367770341ccc1d8bca4465cebe42dab7e23d57df5d5a5"
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
RENAMED = {
    "IGNORE (sympathetic)": "SYMPATHETIC_REPORT_SOLO",
    "N/A Informational only regarding another Xid": "INFORMATIONAL",
    "Solo: RESTART_FM\nNot Solo: IGNORE (follow other Xid)": "WORKFLOW_XID_45",
}
BOARDS = {"E": "A100", "F": "H100", "G": "B100", "H": "GB200"}


def _rows(path: Path) -> list[dict[str, str]]:
    """Column letter -> text, for each row of the first sheet."""
    with zipfile.ZipFile(path) as book:
        shared = [
            "".join(t.text or "" for t in item.iter(f"{_MAIN}t"))
            for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{_MAIN}si")
        ]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows = []
    for row in sheet.iter(f"{_MAIN}row"):
        cells = {}
        for cell in row.iter(f"{_MAIN}c"):
            value = cell.find(f"{_MAIN}v")
            if value is not None and value.text:
                text = shared[int(value.text)] if cell.get("t") == "s" else value.text
                cells[re.sub(r"\d", "", cell.get("r", ""))] = text.strip()
        rows.append(cells)
    return rows


def test_codes_names_boards_and_actions_are_nvidias() -> None:
    path = recording("catalogues/Xid-Catalog.xlsx")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    rows = {int(row["B"]): row for row in _rows(path)[1:] if row.get("B", "").isdecimal()}
    assert rows.keys() == xid.catalogue().keys()
    for code, row in rows.items():
        info = xid.lookup(code)
        assert info.mnemonic.replace(" / ", "") == re.sub(r"\s*/\s*", "", row["C"]), code
        assert info.immediate == RENAMED.get(row.get("I", ""), row.get("I", "")), code
        assert info.investigatory == RENAMED.get(row.get("J", ""), row.get("J", "")), code
        assert info.applies_to == tuple(board for column, board in BOARDS.items() if row.get(column) == "YES"), code
