"""What services that answer HTTP themselves share: listening, stopping, compression."""

from __future__ import annotations

import asyncio
import errno
import signal

from aiohttp import web


def cannot_listen(host: str, port: int, setting: str, error: OSError) -> str:
    """Why a service does not listen, and what to do. `setting` names what chooses another port."""
    if error.errno == errno.EADDRINUSE:
        where = host or "all addresses"
        return f"port {port} on {where} is taken: stop what listens there, or choose another with {setting}"
    return f"cannot listen on {host}:{port}: {error.strerror}"


async def until_stopped(task: asyncio.Task[None] | None) -> None:
    """Until SIGTERM or SIGINT, or until `task` fails: then its error comes out."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, *([task] if task else [])}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task is not None and task.done():
        task.result()


def accepts_gzip(request: web.Request) -> bool:
    """Whether the client takes gzip (`gzip;q=0` refuses it)."""
    for part in request.headers.get("Accept-Encoding", "").split(","):
        name, _, parameters = part.partition(";")
        if name.strip() == "gzip":
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
