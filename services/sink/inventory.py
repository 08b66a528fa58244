"""GPU identity -> `gpus.gpu_id`. Identities are compared as bytes; only a new or changed one reaches the database.

Once per start and change: `register_gpu(identity, seen)` inserts or updates the GPU and writes its history, in a
transaction of its own, so that a row never refers to a GPU that was rolled back. Doing it again changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import psycopg

from services.contract.catalogue import METRICS, PROPERTIES, SAMPLED
from services.contract.event import Gpu, Metrics
from services.contract.sentinels import Missing
from services.sink.decode import DECODER_ERRORS
from services.sink.pgtime import EPOCH, Micros
from services.sink.sqlstate import Kind, classify
from services.sink.validate import Invalid, Reason, refusal

_decode_gpu: Final = msgspec.json.Decoder(Gpu).decode

_REGISTER: Final = """
SELECT register_gpu(given.identity::jsonb, %(epoch)s::timestamptz + given.seen * interval '1 microsecond')
FROM unnest(%(identities)s::text[], %(seen)s::bigint[]) WITH ORDINALITY AS given(identity, seen, position)
ORDER BY given.position
"""

KnownGpu = tuple[int, bytes]
"""(gpu_id, UUID as it must be the message's key)."""
GpuKey = tuple[str, int | None]
"""(UUID, MIG instance id)."""


@dataclass(frozen=True, slots=True)
class Met:
    """An identity that is new or has changed, seen first at `time`."""

    identity: bytes
    time: Micros
    key: GpuKey
    told: bytes
    """What `register_gpu` is given: the identity, and in `missing` also what the exporter does not expose."""

    @property
    def uuid(self) -> bytes:
        return self.key[0].encode()


class Inventory:
    """The identities met so far.

    `known` holds the current identity of each GPU only: a change takes the place of what was before, so that changing
    back is a change as well, and memory stays in proportion to the fleet. Used by the main loop; `register` runs in the
    writer's thread while the loop waits for it.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, KnownGpu] = {}
        self._current: dict[GpuKey, bytes] = {}
        self._waiting: list[Met] = []
        self._refused: dict[bytes, Invalid] = {}

    def meet(self, identity: bytes, time: Micros, metrics: Metrics) -> None:
        """Note an identity that is not known, for `register`, with what its sample left out. Raises Invalid if it is
        none, or was refused before."""
        if identity in self._refused:
            raise self._refused[identity]
        try:
            gpu = _decode_gpu(identity)
        except DECODER_ERRORS as error:
            verdict = refusal(error)
            raise Invalid(_at_gpu(verdict.reason), f"gpu: {verdict.message}", cause=verdict.cause) from None
        key = gpu.uuid, gpu.instance_id
        former = self._current.get(key)
        if former == identity:
            return  # it is the newest of those that wait
        if former is not None:
            self.known.pop(former, None)
        self._current[key] = identity
        self._waiting.append(Met(identity, time, key, _told(gpu, metrics)))

    @property
    def waiting(self) -> int:
        """Identities to be registered."""
        return len(self._waiting)

    def register(self, connection: psycopg.Connection) -> None:
        """Give every waiting identity its gpu_id, in the order they were met. A refused one is remembered with its
        reason, and does not hurt the others.

        All are known afterwards, also those that changed again in between: `forget_former` when their messages are
        mapped. Raises psycopg.Error if the database could not be asked; nothing is forgotten then.
        """
        try:
            ids: list[int | Invalid] = list(self._ask(connection, self._waiting))
        except psycopg.Error as error:
            if classify(error) is not Kind.DATA:
                raise
            ids = [self._ask_alone(connection, met) for met in self._waiting]
        for met, answer in zip(self._waiting, ids, strict=True):
            if isinstance(answer, Invalid):
                self._refused[met.identity] = answer
            else:
                self.known[met.identity] = (answer, met.uuid)

    def forget_former(self) -> None:
        """Leave the newest identity of each GPU that was registered; refusals hold for their batch only."""
        for met in self._waiting:
            if self._current[met.key] != met.identity:
                self.known.pop(met.identity, None)
            elif met.identity in self._refused:
                del self._current[met.key]
        self._waiting.clear()
        self._refused.clear()

    def _ask_alone(self, connection: psycopg.Connection, met: Met) -> int | Invalid:
        try:
            return self._ask(connection, [met])[0]
        except psycopg.Error as error:
            if classify(error) is not Kind.DATA:
                raise
            text = str(error).strip().partition("\n")[0]
            return Invalid(Reason.DATABASE, f"gpu: {text}", cause=type(error).__name__, sqlstate=error.sqlstate or "")

    @staticmethod
    def _ask(connection: psycopg.Connection, waiting: list[Met]) -> list[int]:
        given = {
            "epoch": EPOCH,
            "identities": [met.told.decode() for met in waiting],
            "seen": [met.time for met in waiting],
        }
        with connection.transaction():
            # The ids are remembered here: unlike the batches, a server that crashes must not forget them.
            connection.execute("SET LOCAL synchronous_commit TO on")
            return [row[0] for row in connection.execute(_REGISTER, given).fetchall()]


def _told(gpu: Gpu, metrics: Metrics) -> bytes:
    """Events leave `not_exposed` out: it would be repeated in each. It follows from what is in neither list."""
    there = gpu.missing or {}
    sampled = {m.column for m in SAMPLED if getattr(metrics, m.column) is not None}
    known = {m.column for m in PROPERTIES if gpu.properties and getattr(gpu.properties, m.column) is not None}
    absent = [m.column for m in METRICS if m.column not in sampled | known | there.keys()]
    missing = {**dict.fromkeys(absent, str(Missing.NOT_EXPOSED)), **there}
    return msgspec.json.encode(msgspec.structs.replace(gpu, missing=missing))


def _at_gpu(reason: Reason) -> Reason:
    """Whatever is wrong with the identity's shape, the event does not say properly which GPU it is about."""
    return Reason.NO_IDENTITY if reason in (Reason.SCHEMA, Reason.NO_IDENTITY) else reason
