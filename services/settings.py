"""Every setting of every role, read from the environment once, in this file only.

Names are the ones users of the seed systems know; `docker/.env.example` lists them all (a test compares).
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_BROKER = re.compile(r"([A-Z_]+://)?([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")


def _brokers(value: str) -> str:
    """librdkafka takes anything and looks it up for ever; we refuse at start."""
    if not all(_BROKER.fullmatch(broker.strip()) for broker in value.split(",")):
        raise ValueError("brokers are `host:port`, comma-separated, for example kafka-1:9092,kafka-2:9092")
    return value


def _label(value: str) -> str:
    """The environment gives bytes that are not UTF-8 as lone surrogates, which no event can carry."""
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("it must be text in UTF-8")
    return value


def _boards(value: str) -> str:
    from services.exporter.mock_boards import boards  # noqa: PLC0415  # the simulator's models, where they are named

    boards(value)
    return value


Label = Annotated[str, AfterValidator(_label), Field(max_length=1024)]
Brokers = Annotated[str, AfterValidator(_brokers)]
Seconds = Annotated[float, Field(gt=0, le=365 * 86400, allow_inf_nan=False)]
"""At most a year: whoever writes `inf` would switch off what the limit is for."""
Topic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Interval = Annotated[str, Field(pattern=r"^\s*\d+\s*(minute|hour|day|week)s?\s*$")]
"""A PostgreSQL interval in whole minutes, hours, days or weeks, for example `30 minutes`."""
Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(Exception):
    """The environment is not usable; the message says which variable, what it holds and what is allowed."""


class Settings(BaseSettings):
    """Frozen. Field name = environment variable in lower case. Units are in the comments."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Every role
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    ops_host: str = "127.0.0.1"
    """Address of /metrics, /livez, /readyz of each service."""
    ops_port: Port = 0
    """Port of the same; 0 takes a free one (and logs it)."""

    # Mock DCGM
    mock_host: str = "127.0.0.1"
    mock_port: Port = 9400
    poll_interval: Seconds = 10
    """Seconds between two updates of the mock's values."""

    # Exporter of real GPUs
    exporter_source: Literal["auto", "nvml", "nvidia-smi", "mock"] = "auto"
    """`auto`: NVML, and nvidia-smi where its library cannot be loaded."""
    exporter_mock: Annotated[str, AfterValidator(_boards)] = "A100=8"
    """Boards of the source `mock`, for whoever reads it: MODEL or MODEL=COUNT, comma-separated."""
    exporter_host: str = "127.0.0.1"
    exporter_port: Port = 9400
    exporter_interval: Seconds | None = None
    """Seconds between two readings of the GPUs; default 1 by NVML and from the mock, 5 by nvidia-smi (which takes about
    a second of CPU on a large host)."""
    exporter_stale_after: Seconds | None = None
    """Seconds after which the last reading is no longer served; default three intervals, at least 10."""
    exporter_collectors: Path | None = None
    """dcgm-exporter's counters file (field, type, help); default: everything the catalogue has."""
    exporter_prefix: Annotated[str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$")] = ""
    """Serve `<prefix>_gpu_temperature_celsius{device="0"}` and the like as well."""
    exporter_processes: bool = False
    """Serve the processes on each GPU with pid, user, command and memory."""
    exporter_kubernetes: bool = False
    """Pod, namespace and container of each GPU, from the kubelet."""
    kubelet_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    hpc_job_mapping_dir: Path | None = None
    """Files named by GPU index, one job id a line (written by a Slurm prolog)."""
    web_config_file: Path | None = None
    """TLS and basic auth of /metrics, in the format of Prometheus' exporter toolkit."""
    node_name: str | None = None
    """Host name on every series; default the host's own."""
    nvidia_smi: str = "nvidia-smi"
    """Name or path of the program."""
    nvidia_smi_timeout: Seconds = 30
    """Seconds. A healthy host with eight GPUs answers within five, without persistence mode a little later."""
    kernel_log: Literal["auto", "kmsg", "journal", "off"] = "auto"
    """Where XIDs are read besides NVML; `auto`: /dev/kmsg, else journald, else neither."""
    snapshot_interval: Seconds = 21_600
    """Seconds between two whole `nvidia-smi -q -x` documents when nothing stable in them has changed."""

    # Collector
    collection_interval: Seconds = 10
    """Seconds between two scrapes of a target."""
    scrape_timeout: Seconds | None = None
    """Seconds; default is the interval, at most 10."""
    scrape_timestamp_tolerance_ms: Annotated[int, Field(ge=0)] = 20
    """A scrape that starts at most this many ms behind its tick carries the tick's time (never more than 1 % of the
    interval): equal distances compress better."""
    targets: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated exporters, `host:port` or full URL of /metrics."""
    targets_files: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated files or globs in Prometheus' file_sd format (JSON or YAML)."""
    cluster: Label | None = None
    datacenter: Label | None = None
    rack: Label | None = None
    shard_index: Annotated[int, Field(ge=0)] = 0
    shard_count: Annotated[int, Field(ge=1)] = 1
    """Targets with hashmod(address, SHARD_COUNT) = SHARD_INDEX are this collector's."""
    status_file: Path = Path("status.json")
    """{"tag", "memo"}, stored with every sample of this host; no file, no status."""
    max_scrape_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024 * 1024
    """A larger answer (after decompression) is refused: the mock's for 10,000 GPUs has 152 MB."""
    destination: Literal["kafka", "timescaledb"] = "kafka"
    """Where events go; `timescaledb` writes into the database without a broker, for a single box."""
    spool_dir: Path = Path("spool")
    spool_max_bytes: Annotated[int, Field(ge=1024 * 1024)] = 1024**3
    """Bound of the spool on disk. Full: new scrapes are refused and counted, what is spooled is kept."""

    # Kafka
    kafka_bootstrap: Brokers = "127.0.0.1:9092"
    kafka_topic: Topic = "gpu-metrics-raw"
    kafka_topic_invalid: Topic = "gpu-metrics-invalid"
    kafka_topic_events: Topic = "gpu-events"
    kafka_partitions: Annotated[int, Field(ge=1)] = 12
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    kafka_retention_hours: Annotated[int, Field(ge=1)] = 24
    kafka_retention_hours_invalid: Annotated[int, Field(ge=1)] = 24 * 14
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    kafka_linger_ms: Annotated[int, Field(ge=0)] = 20
    kafka_delivery_timeout: Seconds = 10
    """Seconds until an unacknowledged event goes to the spool."""
    kafka_group: str = "timescale-sink"
    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    """`consumer` (KIP-848) rebalances faster and needs brokers of Kafka 4.0 or newer."""
    kafka_session_timeout: Seconds = 10
    """Seconds until the partitions of a sink that was killed go to another (`classic`; KIP-848: the broker's)."""
    kafka_group_instance_id: str | None = None
    """Static membership: a stable name per sink replica."""

    # Sink
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    """Rows per transaction."""
    batch_timeout: Seconds = 0.5
    """Seconds a row waits for its batch at most."""
    max_future: Seconds = 300
    """Seconds an event may be ahead of the sink's clock: more is a wrong clock, not a delay."""
    max_age: Seconds = 6 * 86400
    """Seconds an event may be old; must stay below RETENTION so that no row lands in a dropped chunk."""

    # Database (libpq's names; TIMESCALE_DSN overrides them all)
    timescale_dsn: SecretStr | None = None
    pghost: str = "127.0.0.1"
    pgport: Port = 5432
    pgdatabase: str = "gpu_health"
    pguser: str = "gpu_monitor"
    pgpassword: SecretStr | None = None
    pgsslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sample_interval_sec: Seconds | None = None
    """The host kit's name for COLLECTION_INTERVAL; used where that is not set."""

    # Schema policies
    chunk_interval: Interval = "30 minutes"
    compress_after: Interval = "1 hour"
    retention: Interval = "7 days"
    retention_1min: Interval = "30 days"
    retention_1hour: Interval = "365 days"
    retention_1day: Interval = "3650 days"

    # Host kit
    log_dir: Path = Path("logs")
    """Where `gpumon burn` and `gpumon doctor` keep their logs."""
    gpu_burn: Path = Path("~/projects/gpu-burn/gpu_burn")
    """The program of wilicc's gpu-burn."""
    ollama_url: str = "http://127.0.0.1:11434"

    # Grafana
    grafana_url: str = "http://localhost:3000"
    """Of `gpumon grafana`; with the sub-path where Grafana has one."""
    grafana_token: SecretStr | None = None
    """Of a service account; used before user and password."""
    grafana_user: str | None = None
    grafana_password: SecretStr | None = None
    grafana_ds_password: SecretStr | None = None
    """Of the database login that `gpumon grafana import --create-datasource` gives to Grafana."""

    # Andon: thresholds of the terminal view and the training callback
    andon_thermal: Annotated[float, Field(gt=0, le=150)] = 80
    """C. From the Andon document; data-centre boards slow down at 85 to 95."""
    andon_memory: Annotated[float, Field(gt=0, le=100)] = 90
    """Percent of the framebuffer."""
    andon_power: Annotated[float, Field(gt=0, le=100)] = 95
    """Percent of the power limit."""
    andon_idle: Seconds = 300
    """Seconds without work, after which a GPU that should train is taken to hang."""

    # Embedded mode
    data_dir: Path | None = None
    """Directory of the embedded database; none keeps it in memory."""

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in ("targets", "targets_files"):
            if isinstance(values.get(name), str):
                values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.shard_index >= self.shard_count:
            raise ValueError(
                f"SHARD_INDEX={self.shard_index} with SHARD_COUNT={self.shard_count}: "
                "the index counts from 0 and must be smaller than the count"
            )
        if self.scrape_timeout is not None and self.scrape_timeout > self.interval:
            raise ValueError(
                f"SCRAPE_TIMEOUT={self.scrape_timeout:g} is longer than COLLECTION_INTERVAL={self.interval:g}: "
                "a scrape must end before the next one begins"
            )
        if self.max_age >= seconds(self.retention):
            raise ValueError(
                f"MAX_AGE={self.max_age:g} s is not below RETENTION={self.retention!r}: "
                "late rows would be written into chunks that are about to be dropped"
            )
        topics = {self.kafka_topic, self.kafka_topic_invalid, self.kafka_topic_events}
        if len(topics) < 3:
            raise ValueError(
                "KAFKA_TOPIC, KAFKA_TOPIC_INVALID and KAFKA_TOPIC_EVENTS must be three different names: "
                f"{self.kafka_topic}, {self.kafka_topic_invalid}, {self.kafka_topic_events}"
            )
        return self._check_policies()

    def _check_policies(self) -> Self:
        chunk, compress, raw = (seconds(v) for v in (self.chunk_interval, self.compress_after, self.retention))
        if compress + chunk >= raw:
            raise ValueError(
                f"COMPRESS_AFTER={self.compress_after!r} plus CHUNK_INTERVAL={self.chunk_interval!r} "
                f"is not below RETENTION={self.retention!r}: rows would be dropped before they are compressed"
            )
        lengths = [raw, *(seconds(v) for v in (self.retention_1min, self.retention_1hour, self.retention_1day))]
        if lengths != sorted(lengths):
            raise ValueError(
                "RETENTION, RETENTION_1MIN, RETENTION_1HOUR, RETENTION_1DAY must not get shorter in that order: "
                f"{self.retention}, {self.retention_1min}, {self.retention_1hour}, {self.retention_1day}"
            )
        return self

    @property
    def interval(self) -> float:
        """Seconds between scrapes: COLLECTION_INTERVAL, or SAMPLE_INTERVAL_SEC where only that is given."""
        if "collection_interval" not in self.model_fields_set and self.sample_interval_sec is not None:
            return self.sample_interval_sec
        return self.collection_interval

    @property
    def timeout(self) -> float:
        """Seconds a scrape may take."""
        return self.scrape_timeout if self.scrape_timeout is not None else min(self.interval, 10.0)

    @property
    def dsn(self) -> str:
        """libpq connection string. Holds the password: never log it."""
        if self.timescale_dsn is not None:
            return self.timescale_dsn.get_secret_value()
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415  # 9 MiB that an exporter does not need

        password = self.pgpassword.get_secret_value() if self.pgpassword else None
        return make_conninfo(
            host=self.pghost,
            port=self.pgport,
            dbname=self.pgdatabase,
            user=self.pguser,
            password=password,
            sslmode=self.pgsslmode,
            application_name="gpu-health-monitor",
        )


_INTERVAL_SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}


def seconds(interval: str) -> float:
    """Length of an `Interval` setting in seconds: `seconds("30 minutes") == 1800.0`."""
    number, unit = re.findall(r"\d+|[a-z]+", interval)
    return float(number) * _INTERVAL_SECONDS[unit.removesuffix("s")]


def load(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `env_file` where there is one, the environment, and `overrides` (from the command line); the later
    win. Raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**{"_env_file": env_file, **given})
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def changed(settings: Settings, **overrides: Any) -> Settings:
    """The same, but for what `overrides` (from the command line; None: not given) say. Raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return load(**{**settings.model_dump(include=settings.model_fields_set), **given}) if given else settings


def _explain(error: ValidationError) -> str:
    """One line per wrong variable: name, value, what is allowed."""
    lines = []
    for item in error.errors():
        name = str(item["loc"][0]).upper() if item["loc"] else ""
        message = item["msg"].removeprefix("Value error, ")
        shown = "***" if any(word in name for word in ("PASSWORD", "DSN", "TOKEN")) else repr(item.get("input"))
        lines.append(f"{name}={shown}: {message}" if name else message)
    return "\n".join(lines)


def hostname() -> str:
    """The name of this host, as exporters and logs use it."""
    return socket.gethostname()


def sudo_user() -> tuple[int, int] | None:
    """User and group id of who called sudo; None without sudo."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    return (int(user), int(group)) if os.getuid() == 0 and user.isdigit() and group.isdigit() else None


def child_environment(**variables: str) -> dict[str, str]:
    """The environment for a role started by another role, with `variables` on top."""
    return {**os.environ, **variables}
