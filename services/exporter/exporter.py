"""The exporter without its HTTP: sampler, renderer and what they read, put together."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

from services.exporter import counters_file, self_metrics
from services.exporter.choose import Hooks, open_source
from services.exporter.counters_file import CountersFileError, Selection
from services.exporter.options import Options
from services.exporter.page import EMPTY, Page
from services.exporter.reading import Source, Sweep
from services.exporter.render import Renderer
from services.exporter.sampler import Sampler, Status
from services.exporter.surroundings import Surroundings
from services.exporter.windows import Windows
from services.exporter.xid.series import XidSeries

log = logging.getLogger("exporter")


class Exporter:
    """`sampler` fills `page`; `tail` is rendered for each scrape."""

    def __init__(self, options: Options) -> None:
        """Raises CountersFileError."""
        settings = options.settings
        self._options = options
        self._around = Surroundings(settings)
        self._xids = XidSeries(self._around.ledger, self._around.hears_xids)
        self._windows = Windows(self._xids)
        self._renderer = self._make_renderer(self._selection())
        self.page: Page = EMPTY
        self._serving = False
        self.sampler = Sampler(
            self._open,
            self._on_sweep,
            interval=settings.exporter_interval,
            stale_after=settings.exporter_stale_after,
        )

    def start(self, on_crash: Callable[[], None]) -> None:
        """Begin to read. `on_crash` is called in another thread when `sampler.crash` has been set."""
        self._serving = True
        self.sampler.start(on_crash)

    def stop(self, within: float) -> None:
        """`within` seconds are waited for a reading that is under way."""
        self.sampler.stop(within)
        self._around.stop()

    def _open(self) -> Source:
        """In the sampler's thread: a kubelet that is slow to answer then holds up no scrape either."""
        if self._serving:
            self._around.start()
        settings = self._options.settings
        hooks = Hooks(self._around.offer_document, self._around.nvml_released)
        return open_source(settings, settings.exporter_processes, hooks)

    def _selection(self) -> Selection:
        path = self._options.settings.exporter_collectors
        return counters_file.everything() if path is None else counters_file.load(path)

    def _make_renderer(self, selection: Selection) -> Renderer:
        return Renderer(
            selection=selection,
            hostname=self._options.hostname,
            attributes=self._around.holders,
            prefix=self._options.settings.exporter_prefix,
            windows=self._windows if selection.windowed else None,
        )

    def _on_sweep(self, sweep: Sweep) -> None:
        self.page = Page(self._renderer.render(self._xids.completed(sweep)))

    def tail(self, status: Status) -> str:
        """What every scrape says, however old the reading: XIDs, lost GPUs, the exporter itself."""
        hostname = self._options.hostname
        return "".join((
            self._xids.render(status.devices, hostname),
            self_metrics.render(status, hostname),
            self_metrics.attribution(self._around.attribution_failures),
            self_metrics.snapshot(self._around.documents_time),
        ))  # fmt: skip

    def reload(self) -> None:
        """Read the counters file anew; one that is wrong changes nothing. Shows with the next reading."""
        try:
            self._renderer = self._make_renderer(self._selection())
        except CountersFileError as error:
            log.error("the old counters file stays in force: %s", error)
        else:
            log.info("counters file read", extra={"metrics": len(self._renderer.selection.counters)})

    def snapshots(self) -> dict[str, Any]:
        """The body of /snapshot."""
        documents = [
            {"gpu_uuid": kept.gpu_uuid, "time": _rfc3339(kept.time), "hash": kept.hash, "content": kept.content()}
            for kept in self._around.documents()
        ]
        return {"hostname": self._options.hostname, "documents": documents}

    def once(self) -> str:
        """One exposition. Raises SourceError."""
        self._around.look_up()
        self.sampler.read_once()
        status = self.sampler.status()
        return self.page.plain(self.tail(status).encode()).decode()


def _rfc3339(time: float) -> str:
    """UTC with milliseconds."""
    return dt.datetime.fromtimestamp(time, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
