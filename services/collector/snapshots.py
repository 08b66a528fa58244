"""Whole documents (`nvidia-smi -q -x`) of an exporter of ours: fetched when its gauge says that one has changed, and
each published once.

Beside the scrapes, in a task of its own: what goes wrong here is logged once, tried again after the next scrape, and
costs no sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final

import msgspec

from services.collector.batch import Batch, Message
from services.collector.enrich import host_of
from services.collector.publish import MAX_VALUE_BYTES
from services.collector.scrape import ScrapeFailedError
from services.collector.targets import Target
from services.contract.event import SCHEMA_VERSION, GpuEvent, Happening, Utc, encode

log = logging.getLogger("collector.snapshot")

NVIDIA_SMI: Final = "nvidia-smi"
"""The only kind of document there is so far."""


class Document(msgspec.Struct):
    """One GPU's, as `/snapshot` gives it."""

    time: Utc
    hash: str
    content: dict[str, Any]
    gpu_uuid: str | None = None
    """None: about the whole host."""


class Answer(msgspec.Struct):
    documents: list[msgspec.Raw]
    """Each decoded by itself: one that is odd must not hold up the others."""
    hostname: str | None = None
    """None: the exporter was told not to say it."""


_decode: Final = msgspec.json.Decoder(Answer).decode
_decode_document: Final = msgspec.json.Decoder(Document).decode
_REASON_MAX: Final = 200
"""Characters: a decoder's message may quote the document."""
Edition = tuple[str, str]
"""Hash and time of a document: a new time alone is the exporter's slow clock."""


class Snapshots:
    """What one target has published so far. Used in the event loop."""

    def __init__(
        self,
        target: Target,
        *,
        fetch: Callable[[Target], Awaitable[bytes]],
        offer: Callable[[Batch], bool],
        topic: str,
        executor: Executor,
        counts: Counter[str],
    ) -> None:
        """`counts`: `published`, and failures by reason; of all targets together."""
        self._target = target
        self._fetch = fetch
        self._offer = offer
        self._topic = topic
        self._executor = executor
        self._counts = counts
        self._published: dict[str, Edition] = {}
        self._done: float | None = None
        """The gauge when everything was published last."""
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._odd: dict[str, str] = {}
        """Documents of the last answer that could not be used, and why."""

    def follow(self, gauge: float | None, hosts: Callable[[], Mapping[str, str]]) -> None:
        """Called after each scrape. `hosts`: UUID -> host name as the samples have it."""
        idle = self._task is None or self._task.done()
        if gauge is not None and gauge != self._done and idle:
            self._task = asyncio.create_task(self._run(gauge, hosts()), name=f"snapshot {self._target.source}")

    async def close(self) -> None:
        """Give up what is on its way; the next start fetches it again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, gauge: float, hosts: Mapping[str, str]) -> None:
        try:
            body = await self._fetch(self._target)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._executor, _read, body)
            messages, published = await loop.run_in_executor(self._executor, self._messages, answer, hosts)
        except ScrapeFailedError as error:
            self._failed(error.reason, error.detail)
            return
        except Exception as error:  # a fault of ours that one document brings out must not end the collector
            self._failed("internal_error", repr(error))
            log.exception("snapshot broke", extra={"target": self._target.source})
            return
        if messages and not self._offer(Batch(self._target.source, messages)):
            self._failed("backlog", "too much is waiting for Kafka and the spool")
            return
        self._counts["published"] += len(messages)
        self._published, self._done = published, gauge
        if self._problem is not None:
            log.info("snapshots are back", extra={"target": self._target.source})
        self._problem = None

    def _messages(self, answer: Answer, hosts: Mapping[str, str]) -> tuple[list[Message], dict[str, Edition]]:
        """What is new, encoded; and what is published then. Documents that the exporter has no longer are forgotten."""
        messages: list[Message] = []
        published: dict[str, Edition] = {}
        odd: dict[str, str] = {}
        for number, raw in enumerate(answer.documents):
            try:
                document = _decode_document(raw)
                name, edition = document.gpu_uuid or "", (document.hash, document.time.isoformat())
                if self._published.get(name) != edition:
                    hostname = hosts.get(name) or answer.hostname or host_of(self._target.source)
                    messages += self._encoded(document, hostname)
                published[name] = edition
            except (ValueError, OverflowError, RecursionError) as error:
                odd[f"document {number}"] = str(error)[:_REASON_MAX]
        self._note_odd(odd)
        return messages, published

    def _encoded(self, document: Document, hostname: str) -> list[Message]:
        """None where it is too large."""
        value = encode(self._event(document, hostname))
        if len(value) > MAX_VALUE_BYTES:
            self._too_large(document.gpu_uuid or "", len(value))
            return []
        return [(self._topic, document.gpu_uuid or self._target.source, value)]

    def _note_odd(self, odd: dict[str, str]) -> None:
        """Count each; log once per change."""
        if odd:
            self._counts["bad_document"] += len(odd)
        for which, reason in odd.items() - self._odd.items():
            log.error(
                "a document cannot be used: it is left out until it changes",
                extra={"target": self._target.source, "which": which, "reason": reason},
            )
        self._odd = odd

    def _event(self, document: Document, hostname: str) -> GpuEvent:
        return GpuEvent(
            schema_version=SCHEMA_VERSION,
            time=document.time.astimezone(dt.UTC),
            kind=Happening.SNAPSHOT.value,
            hostname=hostname,
            gpu_uuid=document.gpu_uuid,
            detail={"document": NVIDIA_SMI, "hash": document.hash, "content": document.content},
            source=self._target.source,
        )

    def _too_large(self, name: str, size: int) -> None:
        self._counts["too_large"] += 1
        log.error(
            "a document is too large for Kafka: it is left out until it changes",
            extra={"target": self._target.source, "gpu": name, "bytes": size, "allowed": MAX_VALUE_BYTES},
        )

    def _failed(self, reason: str, detail: str) -> None:
        self._counts[reason] += 1
        if reason != self._problem:
            said = {"target": self._target.source, "reason": reason, "detail": detail}
            log.warning("no snapshots: tried again after each scrape", extra=said)
        self._problem = reason

    # Memory over a restart -----------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, list[str]]:
        return {name: list(edition) for name, edition in self._published.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """What `checkpoint` gave. Raises ValueError or TypeError for what it did not."""
        self._published = {str(name): (str(value[0]), str(value[1])) for name, value in state.items()}


def _read(body: bytes) -> Answer:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScrapeFailedError("bad_snapshot", str(error)[:_REASON_MAX]) from None
