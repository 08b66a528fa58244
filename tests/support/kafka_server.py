"""Apache Kafka itself for the tests: one KRaft broker from Maven's jars, which can be stopped, killed and frozen."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.prerequisites import MissingPrerequisiteError
from tests.support.processes import KillWithParent, ServerError, free_port, wait_until

ROOT = Path(__file__).parents[2]
POM = ROOT / "tests" / "kafka" / "pom.xml"
LOG_CONFIGURATION = ROOT / "tests" / "kafka" / "log4j2.properties"
CACHE = ROOT / ".cache" / "kafka"
MINIMUM_JAVA = 17
READY_WITHIN_SECONDS = 90.0
"""It takes 4 s on an idle machine, several times that on a busy one with two cores."""
STOP_WITHIN_SECONDS = 60.0
"""The first clean stop also writes the class archive, which takes 5 s on an idle machine."""

# One node for everything; the internal topics get few partitions because every partition is a directory to open. After
# a kill the controller lets the broker back in when its old session has run out: 3 s instead of the usual 9 s.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.partitions=4
auto.create.topics.enable=true
group.initial.rebalance.delay.ms=0
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def jars() -> Path:
    """Folder of the broker's jars, fetched once into .cache/kafka. Raises MissingPrerequisiteError."""
    folder = CACHE / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    require_java()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingPrerequisiteError(f"Apache Kafka for the tests needs Maven (mvn) and Java {MINIMUM_JAVA}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as partial:
        copy = Path(partial) / "jars"
        goal = "dependency:copy-dependencies"
        command = [maven, "-q", "-B", "-f", str(POM), goal, f"-DoutputDirectory={copy}", "-DincludeScope=runtime"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MissingPrerequisiteError(f"Maven could not fetch Apache Kafka: {done.stdout.strip()[-500:]}")
        if not folder.is_dir():  # another test run may have been faster
            copy.rename(folder)
    return folder


def require_java() -> str:
    """Path of a Java that runs Kafka 4. Raises MissingPrerequisiteError."""
    java = shutil.which("java")
    if java is None:
        raise MissingPrerequisiteError(f"Apache Kafka for the tests needs Java {MINIMUM_JAVA} or newer: java not found")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        raise MissingPrerequisiteError(f"Apache Kafka for the tests needs Java {MINIMUM_JAVA} or newer: {told[:80]}")
    return java


def _stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] in "TtXZ"
    except OSError:  # it has ended
        return True


class KafkaServer:
    """One combined broker and controller. Data and ports stay the same over stop, kill and start."""

    def __init__(self, directory: Path) -> None:
        """`directory` (made if need be) holds data, configuration and log. Raises MissingPrerequisiteError."""
        self._jars = jars()
        self._java = require_java()
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: KillWithParent | None = None
        self._format()

    @property
    def bootstrap(self) -> str:
        """`host:port` for bootstrap.servers."""
        return f"127.0.0.1:{self._port}"

    @property
    def log_file(self) -> Path:
        """What the broker wrote, over all its starts."""
        return self._directory / "broker.log"

    def start(self) -> Self:
        """Start on the same data and wait until clients are answered. Raises ServerError."""
        if self._process is not None:
            raise ServerError("Kafka is already started")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._properties)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = KillWithParent(self._process.pid)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Controlled shutdown. Does nothing when it is not running."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)  # a frozen process would not see SIGTERM
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()
        self._keep_class_archive()

    def kill(self) -> None:
        """SIGKILL: as if the power went, but for the page cache."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def pause(self) -> None:
        """Freeze: connections stay open and nothing answers. Returns when every thread has stopped."""
        self._running.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._running.pid}/task")
        if tasks.is_dir():  # on a busy machine a thread may go on for a moment
            wait_until(lambda: all(map(_stopped, tasks.iterdir())), within=10, what="Kafka stopped")

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("Kafka is not started")
        return self._process

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _format(self) -> None:
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        text = PROPERTIES.format(port=self._port, controller_port=free_port(), data=data)
        self._properties.write_text(text, encoding="utf-8")
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: an id that begins with a hyphen would be taken for an option.
        given = (f"--cluster-id={cluster}", "-c", str(self._properties))
        command = self._command("kafka.tools.StorageTool", "format", *given)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(f"formatting Kafka's storage failed: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        return [
            self._java,
            "-Xmx512m",
            "-XX:+UseSerialGC",  # two cores: parallel collectors only cost start-up time and memory
            "-XX:TieredStopAtLevel=1",  # a broker that lives for seconds: the optimising compiler never pays off
            self._class_archive_flag(),
            f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}",
            "-cp",
            f"{self._jars}{os.sep}*",
            main,
            *arguments,
        ]

    @property
    def _class_archive(self) -> Path:
        return self._jars / "classes.jsa"

    def _class_archive_flag(self) -> str:
        """Loaded classes, kept beside the jars by the first broker that stops cleanly: starting takes 1.2 s instead of
        4 s with it. Java ignores an archive of another version."""
        if self._class_archive.exists():
            return f"-XX:SharedArchiveFile={self._class_archive}"
        return f"-XX:ArchiveClassesAtExit={self._directory / 'classes.jsa'}"

    def _keep_class_archive(self) -> None:
        written = self._directory / "classes.jsa"
        if written.exists() and not self._class_archive.exists():
            copy = Path(shutil.copy(written, self._jars / f"classes-{os.getpid()}.jsa"))
            copy.replace(self._class_archive)

    def _wait_until_ready(self) -> None:
        def answers() -> bool:
            if self._running.poll() is not None:
                raise ServerError(f"Kafka ended with status {self._running.returncode}: {self._log_tail()}")
            try:
                return bool(client.list_topics(timeout=1).brokers)
            except KafkaException:
                return False

        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        wait_until(answers, within=READY_WITHIN_SECONDS, what="an answer from Kafka")

    def _log_tail(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-1500:]

    def _reap(self) -> None:
        self._running.wait()
        self._process = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None
