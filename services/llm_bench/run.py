"""Role `ollama-bench`: speed, heat and energy of the coding models of an Ollama server."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console

from services.collector.host_status import is_local
from services.exporter.choose import open_source
from services.host import status
from services.host.arguments import count, not_negative, positive
from services.host.live import Monitor, open_eye
from services.host.stop import SIGNALS
from services.host.tags import Tags
from services.host.telemetry import Telemetry, Wanted, best, from_database, from_spool, own_hostnames
from services.llm_bench import report as reporting
from services.llm_bench.bench import Bench, Options, Results
from services.llm_bench.client import Ollama, OllamaError
from services.llm_bench.files import Files
from services.llm_bench.prompts import PROMPTS
from services.llm_bench.results import Failure
from services.llm_bench.screen import BenchScreen
from services.llm_bench.selection import BASELINE, CODING, Selection, select
from services.llm_bench.told import one_line
from services.ops.clock import SystemClock
from services.settings import Settings

LIVE_INTERVAL: Final = 0.5
"""Seconds between two readings: a short answer takes a few seconds, and its energy is read between two of them."""
PATIENCE: Final = 10.0
"""Seconds for the first reading."""
AROUND: Final = 60.0
"""Seconds of samples taken before and behind the runs: six scrapes at the usual interval."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("models")
    which.add_argument("--ollama-url", metavar="URL", help="default: OLLAMA_URL")
    which.add_argument("--coding-regex", type=_regex, default=CODING, metavar="REGEX", help="default: %(default)s")
    which.add_argument("--baseline", action="append", metavar="MODEL",
                       help=f"general model to compare with; repeatable (default: {', '.join(BASELINE)})")  # fmt: skip
    which.add_argument("--no-baseline", action="store_true", help="coding models only")
    which.add_argument("--models", nargs="+", action="extend", metavar="MODEL", help="these and no others")
    runs = parser.add_argument_group("runs")
    runs.add_argument("--repeat", type=count, default=3, metavar="N", help="of each prompt (default %(default)s)")
    runs.add_argument("--num-predict", type=count, default=512, metavar="N", help="tokens at most (default 512)")
    runs.add_argument(
        "--temperature", type=not_negative, default=0.0, metavar="T", help="default 0: the likeliest token"
    )
    runs.add_argument("--seed", type=int, default=42, metavar="N", help="default 42")
    runs.add_argument("--timeout", type=positive, default=600.0, metavar="S",
                      help="of one request, loading the model included (default 600)")  # fmt: skip
    tags = parser.add_argument_group("tags: idle before, between and after; bench with memo ollama_<model> in a run")
    tags.add_argument("--pre-idle-sec", type=not_negative, default=60.0, metavar="S", help="default 60")
    tags.add_argument(
        "--cooldown-sec", type=not_negative, default=300.0, metavar="S", help="after a model (default 300)"
    )
    tags.add_argument("--pre-memo", default="pre ollama-bench idle", metavar="TEXT")
    tags.add_argument("--post-memo", default="post ollama-bench idle", metavar="TEXT")
    tags.add_argument("--cooldown-memo", default="cooldown idle (ollama-bench)", metavar="TEXT")
    energy = parser.add_argument_group("energy")
    energy.add_argument("--gpu", action="append", type=int, default=[], metavar="INDEX",
                        help="count only this one; may be repeated (default: all of the host together)")  # fmt: skip
    energy.add_argument("--gpu-host", metavar="NAME",
                        help="host of Ollama's GPUs, where it is another one: its samples in the database")  # fmt: skip
    energy.add_argument("--exporter", metavar="URL", help="live samples from there (default: as `gpumon burn`)")
    parser.add_argument("--out-dir", type=Path, default=Path("bench_results"), metavar="DIR",
                        help="for bench_<model>.csv and energy_<model>.csv (default ./%(default)s)")  # fmt: skip
    parser.add_argument("--no-csv", action="store_true", help="no files there")
    parser.add_argument("--dry-run", action="store_true", help="list the models, run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end; all else on stderr")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code: 0 done; 1 something failed; 2 it cannot start; 130 ended by Ctrl-C."""
    try:
        return asyncio.run(_Session(args, settings).run())
    except (OllamaError, status.StatusError) as error:
        print(f"gpumon ollama-bench: {error}", file=sys.stderr)
        return 2


@dataclass(slots=True)
class _Session:
    args: argparse.Namespace
    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    stopped: int | None = None
    """The signal that came first."""

    @property
    def url(self) -> str:
        url: str = self.args.ollama_url or self.settings.ollama_url
        return url if "//" in url else f"http://{url}"

    async def run(self) -> int:
        async with Ollama(self.url, self.args.timeout) as ollama:
            selection = await self._select(ollama)
            if self.args.dry_run:
                self._show_selection(selection)
                return 1 if selection.missing or selection.unusable else 0
            console = Console(stderr=self.args.json)
            monitor = self._monitor()
            screen = BenchScreen(console, monitor, self.args.gpu)
            try:
                return await self._bench(ollama, selection, monitor, screen)
            finally:
                screen.close()
                if monitor is not None:
                    monitor.stop()

    async def _select(self, ollama: Ollama) -> Selection:
        """Raises OllamaError where there is nothing to measure."""
        baseline: Sequence[str] = () if self.args.no_baseline else self.args.baseline or BASELINE
        selection = select(
            await ollama.models(), coding=re.compile(self.args.coding_regex), baseline=baseline, asked=self.args.models
        )
        if not selection.models and not selection.missing and not selection.unusable:
            raise OllamaError(
                f"no model at {self.url} matches --coding-regex {self.args.coding_regex} or is a baseline; "
                "`ollama pull qwen2.5-coder:7b`, or name some with --models"
            )
        return selection

    def _monitor(self) -> Monitor | None:
        """Of this host's GPUs, where Ollama is on this host."""
        if self.args.exporter is None and (self.args.gpu_host or not self._is_local()):
            return None
        open_ = lambda: open_eye(self.settings, self.args.exporter, open_source, self.clock)  # noqa: E731
        monitor = Monitor(open_, LIVE_INTERVAL, self.clock)
        monitor.start(PATIENCE)
        return monitor

    def _is_local(self) -> bool:
        return any(is_local(urlsplit(self.url).netloc, name) for name in own_hostnames(self.settings))

    async def _bench(self, ollama: Ollama, selection: Selection, monitor: Monitor | None, screen: BenchScreen) -> int:
        screen.say(reporting.selection_text(selection, self.args.repeat, len(PROMPTS)))
        tags = Tags(self.settings.status_file, None, screen.say)
        digests = {model.name: model.digest for model in selection.models}
        files = Files(None if self.args.no_csv else self.args.out_dir, digests, screen.say)
        bench = Bench(
            ollama, self._options(), tags=tags, screen=screen, clock=self.clock, measured=files.measured
        )  # fmt: skip
        bench.results.failures += [
            *(Failure(name, None, None, f"not installed; `ollama pull {name}`") for name in selection.missing),
            *(Failure(name, None, None, why) for name, why in selection.unusable),
        ]
        tags.begin()
        broken: Exception | None = None
        try:
            await self._until_stopped(bench, selection)
        except Exception as error:  # noqa: BLE001 - raised again once what was measured until then is written
            broken = error
            bench.results.failures.append(Failure("the benchmark itself", None, None, one_line(repr(error))))
        finally:
            tags.restore()
        report = await self._report(bench.results, monitor)
        code = self._finish(report, selection, files, failed=files.failed or tags.failed)
        if broken is not None:
            raise broken
        return code

    def _options(self) -> Options:
        args = self.args
        ollama = {"num_predict": args.num_predict, "temperature": args.temperature, "seed": args.seed}
        for memo in (args.pre_memo, args.post_memo, args.cooldown_memo):
            status.make("idle", memo)  # refused now, not after an hour
        return Options(
            args.repeat, ollama, args.pre_idle_sec, args.cooldown_sec, args.pre_memo, args.post_memo, args.cooldown_memo
        )

    async def _until_stopped(self, bench: Bench, selection: Selection) -> None:
        """The first signal cancels the benchmark, the next ones change nothing: what is left takes no time."""
        task = asyncio.ensure_future(bench.run(selection.models))

        def ask(number: int) -> None:
            if self.stopped is None:
                self.stopped = number
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, ask, number)
        try:
            await task
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def _report(self, results: Results, monitor: Monitor | None) -> reporting.Report:
        if not results.generations:
            return reporting.report_of(results, None, [], self.args.gpu, interrupted=self.stopped is not None)
        if self.stopped is None:
            await asyncio.sleep(2 * LIVE_INTERVAL if monitor else 0)  # the sample that closes the last interval
        begin, end = results.generations[0].begin, results.generations[-1].end
        telemetry, notes = await asyncio.to_thread(self._telemetry, monitor, begin, end)
        return reporting.report_of(results, telemetry, notes, self.args.gpu, interrupted=self.stopped is not None)

    def _telemetry(self, monitor: Monitor | None, begin: float, end: float) -> tuple[Telemetry | None, list[str]]:
        """Live readings first: they are twenty times as close together as the collector's samples."""
        host = self.args.gpu_host or ("" if self._is_local() else urlsplit(self.url).hostname or "")
        live = monitor.telemetry() if monitor else None
        wanted = Wanted(
            begin - AROUND,
            end + AROUND,
            (host,) if host else own_hostnames(self.settings),
            () if live is None else tuple(live.gpus),
        )
        sources = [
            lambda: from_database(self.settings, wanted),
            lambda: from_spool(self.settings.spool_dir, self.settings.kafka_topic, wanted),
        ]
        return best([*([] if live is None else [lambda: live]), *sources], begin, end)

    def _show_selection(self, selection: Selection) -> None:
        if self.args.json:
            print(json.dumps(asdict(selection)))
        else:
            print(reporting.selection_text(selection, self.args.repeat, len(PROMPTS)))

    def _finish(self, report: reporting.Report, selection: Selection, files: Files, *, failed: bool) -> int:
        files.energies(report)
        document = reporting.as_dict(report, selection, self._document_options())
        name = f"ollama-bench-{dt.datetime.now().astimezone():%Y%m%d-%H%M%S}.json"
        files.summary(self.settings.log_dir / name, document)
        print(reporting.text(report), file=sys.stderr if self.args.json else sys.stdout)
        if self.args.json:
            print(json.dumps(document))
        if self.stopped is not None:
            print(f"ended by {signal.Signals(self.stopped).name}", file=sys.stderr)
            return 128 + self.stopped
        return 1 if failed or files.failed or report.results.failures else 0

    def _document_options(self) -> dict[str, Any]:
        names = ("repeat", "num_predict", "temperature", "seed", "timeout", "cooldown_sec")
        return {"ollama_url": self.url, **{name: getattr(self.args, name) for name in names}}


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text}: not a regular expression ({error})") from None
    return text
