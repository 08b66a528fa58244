"""What commands beside a running collector left in spools below its SPOOL_DIR: the collector sends it as well.

`gpumon sample` keeps what cannot be sent in SPOOL_DIR/sample-1 and so on while the collector owns SPOOL_DIR. Order
among them and the collector's own events is not at stake: each sample has a time of its own.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from services.collector import spool_files as files
from services.collector.deliver import Bus, Deliverer
from services.collector.spool import Spool
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("collector.deliver")

LOOK: Final = 10.0
"""Seconds between two looks for such spools: nine `stat`s."""
RETRY: Final = 60.0
"""Seconds after a failure. The collector's own events find out sooner that the bus takes events again."""


class Beside:
    """Used by the thread that delivers, between two turns of the collector's own `Deliverer`; shares its bus.

    One spool at a time, locked only while it is sent. A failure on either side makes the other give up what is on its
    way (`Bus.abandon`): that is sent again, so nothing is lost.
    """

    def __init__(
        self, bus: Bus, own: Deliverer, spool: Spool, directory: Path, *, max_bytes: int, clock: Clock | None = None
    ) -> None:
        """`own`, `spool`: the collector's; `directory`: SPOOL_DIR; `max_bytes`: SPOOL_MAX_BYTES."""
        self._bus = bus
        self._own = own
        self._spool = spool
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._adopted: tuple[Spool, Deliverer] | None = None
        self._next = self._clock.monotonic() + LOOK
        self._told: set[str] = set()

    def step(self) -> None:
        """Look, or go on with what was found. Only while the bus takes the collector's own events."""
        if self._adopted is not None:
            self._go_on(*self._adopted)
        elif self._clock.monotonic() >= self._next and self._own.failing is None and self._spool.empty:
            self._look()

    def finish(self) -> None:
        """Stop: what is not acknowledged stays where it is."""
        if self._adopted is not None:
            self._adopted[1].finish(0)
            self._adopted = None

    def _look(self) -> None:
        self._next = self._clock.monotonic() + LOOK
        for path in files.all_spools(self._directory)[1:]:
            if self._waits(path) and self._adopt(path):
                return

    def _waits(self, path: Path) -> bool:
        try:
            return bool(files.segment_paths(path))
        except OSError:
            return False  # gone, or not for us

    def _adopt(self, path: Path) -> bool:
        try:
            spool = Spool(path, self._max_bytes, self._clock)
        except files.SpoolLockedError:
            return False  # its command still writes it, or `gpumon spool flush` sends it
        except files.SpoolError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                log.warning("what a command kept cannot be sent: %s", error)
            return False
        log.info("sending what a command kept", extra={"spool": str(path), "records": spool.records})
        self._adopted = spool, Deliverer(self._bus, spool, self._clock)
        return True

    def _go_on(self, spool: Spool, deliverer: Deliverer) -> None:
        deliverer.step()
        if deliverer.flushing or not (spool.empty or deliverer.failing):
            return
        # Not `Deliverer.finish`, which would take the collector's own events off their way.
        spool.close()
        self._adopted = None
        self._next = self._clock.monotonic() + (RETRY if deliverer.failing else 0)
