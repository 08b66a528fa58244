"""Starts the parts in the order of the flow's dependencies, stops them so that nothing in flight is lost."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.demo import ports, prometheus
from services.demo.process import LOOK_EVERY_SECONDS, RoleFailedError, RoleProcess, StoppedError, free_port
from services.embedded.broker import EmbeddedBroker
from services.embedded.timescale import EmbeddedTimescale
from services.settings import Settings

Say = Callable[[str], None]
TICK_JOBS_SECONDS = 30
"""The embedded database has no background workers: it runs due jobs (aggregates, compression, retention) this often."""
MIGRATE_WITHIN_SECONDS = 120.0
MOCK_WITHIN_SECONDS = 60.0
OF_ITS_OWN = {"DESTINATION": "kafka", "TARGETS": "", "SHARD_INDEX": "0", "SHARD_COUNT": "1"}
"""What a shell or `.env` that is set up for a host's own collector must not bring into the demo."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo was asked for."""

    gpus: int
    hosts: int
    interval: float
    directory: Path
    """Logs, spool, target file."""
    database: Path | None
    """Directory of the embedded database, None keeps it in memory."""
    seed: int | None = None
    """Of the GPUs' UUIDs, where somebody wants certain ones."""


class Pipeline:
    """mock -> collector -> broker -> sink -> TimescaleDB as processes of this machine."""

    def __init__(self, plan: Plan, settings: Settings, say: Say, stop: threading.Event) -> None:
        """`stop` ends a start that is under way."""
        self._plan, self._settings, self._say, self._stop = plan, settings, say, stop
        self._broker = EmbeddedBroker([settings.kafka_topic, settings.kafka_topic_invalid, settings.kafka_topic_events])
        self._database: EmbeddedTimescale | None = None
        self._ports = ports.Ports()
        self._variables: dict[str, str] = {}
        self._servers: dict[str, EmbeddedBroker | EmbeddedTimescale] = {}
        self._ended: set[str] = set()
        self.mock_port = 0
        self.dsn = ""
        self.bootstrap = ""
        self.roles: dict[str, RoleProcess] = {}

    def start(self) -> None:
        """Returns when every role is started. Raises RoleFailedError, EmbeddedBrokerError, EmbeddedTimescaleError,
        OSError where no port is free, and StoppedError after the step in which we were told to stop."""
        if not self._ports.first:
            self._say("another demo runs on this machine and has the usual ports: this one takes free ones")
        for directory in ("logs", "spool"):
            (self._plan.directory / directory).mkdir(parents=True, exist_ok=True)
        self._targets.unlink(missing_ok=True)  # of an earlier run: its mock is gone
        for step in (
            self._start_database, self._start_broker, self._migrate, self._start_mock,
            self._start_sink, self._start_collector, self._write_prometheus,
        ):  # fmt: skip
            self._go_on()
            step()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _start_database(self) -> None:
        if self._settings.timescale_dsn is None:
            port = self._ports.usual(ports.DATABASE)
            self._database = EmbeddedTimescale(self._plan.database, port=port, tick_jobs=TICK_JOBS_SECONDS)
            self._servers["TimescaleDB"] = self._database.start()
            self.dsn = self._database.dsn
            kept = f"kept in {self._plan.database}" if self._plan.database else "in memory, gone at the end"
            self._say(f"TimescaleDB (embedded, {kept}): psql '{self.dsn}'")
        else:
            self.dsn = self._settings.dsn
            self._say("TimescaleDB: the one of TIMESCALE_DSN")

    def _start_broker(self) -> None:
        if "kafka_bootstrap" in self._settings.model_fields_set:
            self.bootstrap = self._settings.kafka_bootstrap
            self._say(f"Kafka: {self.bootstrap} (KAFKA_BOOTSTRAP)")
        else:
            self._servers["Kafka broker"] = self._broker.start()
            self.bootstrap = self._broker.bootstrap
            self._say(f"Kafka (embedded): {self.bootstrap}, topic {self._settings.kafka_topic}")

    def _migrate(self) -> None:
        self._variables = {"KAFKA_BOOTSTRAP": self.bootstrap, "TIMESCALE_DSN": self.dsn, **self._topics, **OF_ITS_OWN}
        self._role("migrate", ["migrate"]).wait(MIGRATE_WITHIN_SECONDS, self._stop)
        del self.roles["migrate"]

    def _start_mock(self) -> None:
        wanted = self._settings.mock_port
        named = "mock_port" in self._settings.model_fields_set
        self.mock_port = free_port(wanted) if named else self._ports.usual(wanted)
        if self.mock_port != wanted and (named or self._ports.first):
            self._say(f"port {wanted} is taken: the mock uses {self.mock_port}")
        seed = self._seed()
        mock = self._role("mock", [
            "mock", "--port", str(self.mock_port), "--gpus", str(self._plan.gpus), "--hosts", str(self._plan.hosts),
            "--interval", f"{self._plan.interval:g}", "--write-targets", str(self._targets), "--seed", str(seed),
        ])  # fmt: skip
        self._wait_for_mock()
        self._say(
            f"mock DCGM: {self._plan.gpus} GPUs on {self._plan.hosts} hosts, http://127.0.0.1:{self.mock_port}/metrics"
            f" (on itself: http://127.0.0.1:{mock.ops_port}/metrics)"
        )

    def _seed(self) -> int:
        """Of the GPUs' UUIDs. With servers of our own always the same, so that a database that is kept has the same
        GPUs again. In servers of others a random one: the demo whose they are, or another, may report there, and of two
        that show the same GPUs neither balance is right."""
        if self._plan.seed is not None:
            return self._plan.seed
        if self._settings.timescale_dsn is None and "kafka_bootstrap" not in self._settings.model_fields_set:
            return 0
        seed = secrets.randbelow(2**31)
        self._say(f"others may report to these servers: GPUs of a random seed; the same ones again: --seed {seed}")
        return seed

    @property
    def export(self) -> str:
        """The shell's line with which other commands use our servers and our spool."""
        dsn = self.dsn.replace("'", "'\\''")
        spool = shlex.quote(str(self._spool))
        return f"export KAFKA_BOOTSTRAP={shlex.quote(self.bootstrap)} TIMESCALE_DSN='{dsn}' SPOOL_DIR={spool}"

    @property
    def _spool(self) -> Path:
        return self._plan.directory / "spool"

    def gpu_uuids(self) -> frozenset[str]:
        """Of the mock's GPUs. Raises RoleFailedError."""
        answer = self.roles["mock"].get("/hosts", self.mock_port)
        if answer is None:
            raise RoleFailedError(f"mock does not list its hosts\n{self.roles['mock'].tail()}")
        return frozenset(str(gpu["uuid"]) for host in json.loads(answer) for gpu in host["gpus"])

    def _wait_for_mock(self) -> None:
        """The collector looks at its target files every few seconds only: they must be there when it starts."""
        deadline = time.monotonic() + MOCK_WITHIN_SECONDS
        while self.roles["mock"].get("/health", self.mock_port) is None or not self._targets.exists():
            self._go_on()
            self.roles["mock"].check()
            if time.monotonic() > deadline:
                raise RoleFailedError(f"mock did not answer on port {self.mock_port}\n{self.roles['mock'].tail()}")
            time.sleep(LOOK_EVERY_SECONDS)

    def _start_sink(self) -> None:
        self._variables["KAFKA_GROUP_PROTOCOL"] = "consumer"  # joins in 0.1 s, the classic protocol takes 3 s
        sink = self._role("sink", ["sink"])
        self._say(f"sink: http://127.0.0.1:{sink.ops_port}/metrics")

    def _start_collector(self) -> None:
        self._variables |= {
            "TARGETS_FILES": str(self._targets),
            "COLLECTION_INTERVAL": f"{self._plan.interval:g}",
            "SPOOL_DIR": str(self._spool),
            "STATUS_FILE": str(self._plan.directory / "status.json"),
        }
        collector = self._role("collector", ["collector"])
        self._say(f"collector: every {self._plan.interval:g} s, http://127.0.0.1:{collector.ops_port}/metrics")

    def _write_prometheus(self) -> None:
        path = self._plan.directory / "prometheus.yml"
        groups = json.loads(self._targets.read_text())
        path.write_text(prometheus.configuration(groups, {name: role.ops_port for name, role in self.roles.items()}))
        self._say(f"Prometheus: the jobs to scrape all this, for the Pipeline dashboard: {path}")

    @property
    def _topics(self) -> dict[str, str]:
        """As we see them, also where they are in a `.env` that the roles do not read."""
        names = ("kafka_topic", "kafka_topic_invalid", "kafka_topic_events", "kafka_group")
        return {name.upper(): str(getattr(self._settings, name)) for name in names}

    @property
    def _targets(self) -> Path:
        return self._plan.directory / "targets.json"

    def _role(self, name: str, arguments: list[str]) -> RoleProcess:
        port = self._ports.usual(ports.METRICS[name]) if name in ports.METRICS else 0
        self.roles[name] = RoleProcess(name, arguments, self._variables, self._plan.directory / "logs", port)
        return self.roles[name]

    def check(self) -> None:
        """Raises RoleFailedError when a part has ended by itself. Servers first: without them the roles fail too."""
        for name, server in self._servers.items():
            if not server.running:
                raise RoleFailedError(f"the embedded {name} has ended by itself: without it the demo cannot go on")
        for name, role in self.roles.items():
            if name not in self._ended:
                role.check()

    def cause(self, error: Exception) -> Exception:
        """What is behind an error: the part that has ended, where one has."""
        try:
            self.check()
        except RoleFailedError as ended:
            return ended
        return error

    def stop_role(self, name: str) -> None:
        if name in self.roles:
            self._ended.add(name)
            self.roles[name].stop()

    def stop(self) -> None:
        """Everything, sources first; safe to call twice and after a failed start."""
        for name in ("collector", "sink", "mock", "migrate"):
            self.stop_role(name)
        self._broker.stop()
        if self._database is not None:
            self._database.stop()
        self._ports.close()
