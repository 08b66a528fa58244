"""A server of bytes: for answers that no library for servers would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class RawServer:
    """Context. `says`: called for each connection, gives what is sent after the request has come; a piece may be
    produced late. Ends when the client goes away or the context does."""

    def __init__(self, says: Iterable[bytes]) -> None:
        self._says = says
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._socket.close()
        self._thread.join(10)

    def slowly(self, first: bytes, then: bytes, seconds: float) -> Iterator[bytes]:
        """`first`, then `then` again and again, `seconds` apart, for ever."""
        yield first
        while not self._over.wait(seconds):
            yield then

    def saying(self, says: Iterable[bytes]) -> Self:
        self._says = says
        return self

    def _serve(self) -> None:
        self._socket.settimeout(0.1)
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(5)
            connection.recv(65536)
            for piece in self._says:
                if self._over.is_set():
                    return
                connection.sendall(piece)
        except OSError:
            return
