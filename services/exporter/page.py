"""A rendered sweep as bytes, plain and gzip: made once, answered many times with a fresh tail."""

from __future__ import annotations

import zlib
from typing import Final

_LEVEL: Final = 1
"""Expositions repeat themselves: more effort gains little."""
_GZIP: Final = 31
"""wbits of zlib for gzip's header and checksum."""
WORTHWHILE: Final = 1400
"""Bytes: what fits into one packet of an Ethernet is sent as it is."""


class Page:
    """The part of an answer that holds for a sweep. Not thread-safe: answered from one event loop."""

    def __init__(self, text: str) -> None:
        self._plain = text.encode()
        self._begun: tuple[zlib._Compress, bytes] | None = None

    def plain(self, tail: bytes) -> bytes:
        return self._plain + tail

    def gzip(self, tail: bytes) -> bytes:
        """The same, compressed. The head is compressed for the first who asks; then its state is copied and the tail
        goes on from there."""
        if self._begun is None:
            packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
            self._begun = (packer, packer.compress(self._plain))
        packer, begun = self._begun[0].copy(), self._begun[1]
        return b"".join((begun, packer.compress(tail), packer.flush()))

    def __len__(self) -> int:
        return len(self._plain)


EMPTY: Final = Page("")
