"""GPU identity -> `gpus.gpu_id`. Identities are compared as bytes; only a new or changed one reaches the database.

Once per start and change: `register_gpu(identity, seen)` inserts or updates the GPU and writes its history, in a
transaction of its own, so that a row never refers to a GPU that was rolled back. Doing it again changes nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec
import psycopg

from services.contract.event import Gpu
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


class Inventory:
    """The identities met so far. Used by the main loop; `register` runs in the writer's thread meanwhile waited for."""

    def __init__(self) -> None:
        self.known: dict[bytes, KnownGpu] = {}
        """Current identity -> GPU. One entry per GPU: a changed identity takes the place of the one before, so that
        changing back is noticed as well, and memory stays in proportion to the fleet."""
        self._current: dict[int, bytes] = {}
        self._waiting: dict[bytes, tuple[Micros, bytes]] = {}
        self._refused: dict[bytes, Invalid] = {}

    def meet(self, identity: bytes, time: Micros) -> KnownGpu | None:
        """Note an unknown identity for `register`. Raises Invalid if it is none, or the database refused it before."""
        if identity in self._refused:
            raise self._refused[identity]
        try:
            gpu = _decode_gpu(identity)
        except DECODER_ERRORS as error:
            verdict = refusal(error)
            raise Invalid(_at_gpu(verdict.reason), f"gpu: {verdict.message}", cause=verdict.cause) from None
        self._waiting.setdefault(identity, (time, gpu.uuid.encode()))
        return None

    @property
    def waiting(self) -> int:
        """Identities to be registered."""
        return len(self._waiting)

    def register(self, connection: psycopg.Connection) -> None:
        """Give every waiting identity its gpu_id. A refused one is remembered with its reason; others are not hurt.

        Raises psycopg.Error if the database could not be asked; nothing is forgotten then.
        """
        self._refused.clear()
        identities = list(self._waiting)
        try:
            ids = self._ask(connection, identities)
        except psycopg.Error as error:
            if classify(error) is not Kind.DATA:
                raise
            self._register_one_by_one(connection, identities)
            return
        for identity, gpu_id in zip(identities, ids, strict=True):
            self._learn(identity, gpu_id)

    def _register_one_by_one(self, connection: psycopg.Connection, identities: list[bytes]) -> None:
        for identity in identities:
            try:
                self._learn(identity, self._ask(connection, [identity])[0])
            except psycopg.Error as error:
                if classify(error) is not Kind.DATA:
                    raise
                state = error.sqlstate or ""
                self._refused[identity] = Invalid(
                    Reason.DATABASE, f"gpu: {error}", cause=type(error).__name__, sqlstate=state
                )
                del self._waiting[identity]

    def _ask(self, connection: psycopg.Connection, identities: list[bytes]) -> list[int]:
        given = {
            "epoch": EPOCH,
            "identities": [identity.decode(errors="replace") for identity in identities],
            "seen": [self._waiting[identity][0] for identity in identities],
        }
        with connection.transaction():
            return [row[0] for row in connection.execute(_REGISTER, given).fetchall()]

    def _learn(self, identity: bytes, gpu_id: int) -> None:
        former = self._current.get(gpu_id)
        if former is not None:
            self.known.pop(former, None)
        self._current[gpu_id] = identity
        self.known[identity] = (gpu_id, self._waiting.pop(identity)[1])


def _at_gpu(reason: Reason) -> Reason:
    """Whatever is wrong with the identity's shape, the event does not say properly which GPU it is about."""
    return Reason.NO_IDENTITY if reason in (Reason.SCHEMA, Reason.NO_IDENTITY) else reason
