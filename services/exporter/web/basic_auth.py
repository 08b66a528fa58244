"""HTTP basic authentication against bcrypt hashes.

A hash is slow on purpose (60 ms at cost 10, 240 ms at 12) and a scraper comes every few seconds, so answers are kept,
by a keyed digest of user, hash and password: no password stays in memory, and a changed hash is asked anew. An unknown
user costs as much as a wrong password, so that the time does not tell which names exist.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Final

import bcrypt

KEPT: Final = 256
"""Answers kept; the oldest go. Wrong ones are kept too: a scraper with an old password asks for ever."""
MAX_PASSWORD: Final = 72
"""Bytes bcrypt looks at. Go's implementation, which made most of these hashes, ignores the rest; so do we."""


class BasicAuth:
    """`users`: name -> bcrypt hash ($2a$, $2b$, $2y$)."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {name: text.encode() for name, text in users.items()}
        self._key = secrets.token_bytes(32)
        self._answers: OrderedDict[bytes, bool] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def allows(self, authorization: str | None) -> bool:
        """Whether the value of an Authorization header names one of the users with its password."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        name, password = credentials
        expected = self._users.get(name)
        digest = self._digest(name, expected or b"", password)
        if digest not in self._answers:
            await self._hash(digest, expected, password)
        self._answers.move_to_end(digest)
        return self._answers[digest]

    async def _hash(self, digest: bytes, expected: bytes | None, password: bytes) -> None:
        """In a thread, so that nobody else waits, and one at a time: guesses shall not take all processors."""
        async with self._one_at_a_time:
            if digest not in self._answers:
                self._answers[digest] = await asyncio.to_thread(self._matches, password, expected)
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)

    def _digest(self, name: str, hashed: bytes, password: bytes) -> bytes:
        user = name.encode()
        return hmac.digest(self._key, len(user).to_bytes(4, "big") + user + hashed + password, "sha256")

    def _matches(self, password: bytes, expected: bytes | None) -> bool:
        try:
            same = bcrypt.checkpw(password[:MAX_PASSWORD], expected or self._nobody)
        except ValueError:  # a password that bcrypt does not take
            return False
        return same and expected is not None

    @cached_property
    def _nobody(self) -> bytes:
        """A hash that no password matches in practice, as slow as the slowest of the users'."""
        cost = max((int(hashed.split(b"$")[2]) for hashed in self._users.values()), default=10)
        return bcrypt.hashpw(secrets.token_hex(16).encode(), bcrypt.gensalt(cost))


def _credentials(authorization: str | None) -> tuple[str, bytes] | None:
    """User and password of `Basic dXNlcjpwYXNzd29yZA==`; None for anything else."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None
