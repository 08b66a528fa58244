"""A ledger that tells a waiting test what it was told."""

from __future__ import annotations

from queue import Queue

from services.exporter.xid.ledger import Xid, XidLedger

LIMIT = 10.0
"""Seconds until a test gives up; it takes milliseconds where all is well."""


class ToldLedger(XidLedger):
    def __init__(self) -> None:
        super().__init__()
        self._told: Queue[Xid] = Queue()

    def record(self, xid: Xid) -> bool:
        new = super().record(xid)
        self._told.put(xid)
        return new

    def next(self) -> Xid:
        """The next XID that is recorded."""
        return self._told.get(timeout=LIMIT)

    @property
    def is_silent(self) -> bool:
        return self._told.empty()
