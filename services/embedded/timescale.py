"""TimescaleDB without a server: PGlite in a Node process, see `timescaledb/server.mjs` for what it can and cannot do.

One session serves all clients: use `SET LOCAL`, name temporary tables apart, and do not hold a transaction on one
connection while waiting for another. User and password are not checked. Jobs run only when `tick_jobs` is given.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo

from services.embedded.child import ChildError, ChildProcess, serve_until_told
from services.settings import Settings

SERVER = Path(__file__).parent / "timescaledb" / "server.mjs"
READY_WITHIN_SECONDS = 60.0
"""It takes 2 s on an idle machine; crash recovery and a machine full of work take longer."""
DEFAULT_DATABASE = "gpu_health"
DEFAULT_USER = "gpu_monitor"


class EmbeddedTimescaleError(RuntimeError):
    """The embedded database cannot start; the message says what to do."""


class EmbeddedTimescale:
    """One embedded server. `with EmbeddedTimescale() as db: psycopg.connect(db.dsn)`."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        database: str = DEFAULT_DATABASE,
        tick_jobs: int | None = None,
    ) -> None:
        """`data_dir` None keeps the database in memory; `port` 0 takes a free one; `tick_jobs` in seconds."""
        self._data_dir = data_dir
        self._host = host
        self._port = port
        self._database = database
        self._tick_jobs = tick_jobs
        self._child: ChildProcess | None = None

    def start(self) -> Self:
        """Start and wait until it answers. Raises EmbeddedTimescaleError."""
        if self._child is not None:
            raise EmbeddedTimescaleError("the embedded TimescaleDB is already started")
        command = self._command()
        try:
            self._child = ChildProcess("timescaledb", command, ready_within=READY_WITHIN_SECONDS)
        except ChildError as error:
            raise EmbeddedTimescaleError(str(error)) from error
        return self

    def stop(self) -> None:
        """Stop cleanly (with a checkpoint). Does nothing when it is not started."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """SIGKILL, for tests of crash recovery."""
        self._started.kill()
        self._child = None

    def wait(self) -> int:
        """Block until the server ends by itself; its exit status."""
        return self._started.wait()

    @property
    def running(self) -> bool:
        """False before start, after stop, and when the server ended by itself."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._started.pid

    @property
    def port(self) -> int:
        """TCP port it listens on."""
        return int(self._started.ready["port"])

    @property
    def dsn(self) -> str:
        """Connection string for psycopg and libpq."""
        return make_conninfo(
            host=self._host, port=self.port, dbname=self._database, user=DEFAULT_USER, sslmode="disable"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _started(self) -> ChildProcess:
        if self._child is None:
            raise EmbeddedTimescaleError("the embedded TimescaleDB is not started")
        return self._child

    def _command(self) -> list[str]:
        command = [require_node(), str(SERVER), "--exit-with-parent", "--host", self._host, "--port", str(self._port)]
        command += ["--database", self._database]
        if self._data_dir is not None:
            command += ["--data-dir", str(self._data_dir)]
        if self._tick_jobs is not None:
            command += ["--tick-jobs", str(self._tick_jobs)]
        return command


def require_node() -> str:
    """Path of node. Raises EmbeddedTimescaleError when it or the server's package is missing."""
    node = shutil.which("node")
    if node is None:
        raise EmbeddedTimescaleError(
            "node was not found in PATH: install Node 20 or newer, or set TIMESCALE_DSN to an existing TimescaleDB"
        )
    if not (SERVER.parent / "node_modules" / "@unni-craftsman" / "pglite").is_dir():
        raise EmbeddedTimescaleError("the embedded TimescaleDB is not installed: run `make setup`")
    return node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the role `timescaledb`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (passwords are not checked)")
    parser.add_argument("--port", type=int, help="TCP port, 0 takes a free one (default: PGPORT if it is set, else 0)")
    parser.add_argument("--data-dir", type=Path, help="keep the database here (default: DATA_DIR, else in memory)")
    parser.add_argument("--database", help="name of the database (default: PGDATABASE, else gpu_health)")
    parser.add_argument("--tick-jobs", type=int, metavar="SECONDS", help="look for due TimescaleDB jobs so often")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Role `timescaledb`: print {"dsn", "port", "pid"} and serve until SIGTERM or the end of stdin."""
    wanted = settings.pgport if "pgport" in settings.model_fields_set else 0
    server = EmbeddedTimescale(
        args.data_dir or settings.data_dir,
        port=wanted if args.port is None else args.port,
        host=args.host,
        database=args.database or settings.pgdatabase,
        tick_jobs=args.tick_jobs,
    )
    try:
        server.start()
    except EmbeddedTimescaleError as error:
        sys.stderr.write(f"gpumon timescaledb: {error}\n")
        return 1
    if sys.stderr.isatty():
        sys.stderr.write(f"TimescaleDB is ready: psql '{server.dsn}'; Ctrl-C stops it\n")
    try:
        serve_until_told({"dsn": server.dsn, "port": server.port, "pid": server.pid}, lambda: server.running)
        return 0 if server.running else 1
    finally:
        server.stop()
