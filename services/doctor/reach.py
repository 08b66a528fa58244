"""Do Kafka, TimescaleDB and the exporter answer: each asked in its own protocol, with a short time limit."""

from __future__ import annotations

from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import conninfo_to_dict

from services.doctor.evidence import Reach
from services.settings import Settings

SECONDS: Final = 5


def all_of(settings: Settings) -> tuple[Reach, ...]:
    """Kafka only where events go there."""
    exporter = f"http://{settings.exporter_host}:{settings.exporter_port}/health"
    kafka = (kafka_answers(settings.kafka_bootstrap),) if settings.destination == "kafka" else ()
    return (*kafka, database_answers(settings.dsn), exporter_answers(exporter))


def kafka_answers(bootstrap: str) -> Reach:
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "socket.timeout.ms": SECONDS * 1000,
        "log_level": 0,
        "error_cb": lambda _error: None,  # librdkafka would write each attempt to stderr
    }
    client = AdminClient(config)
    try:
        brokers = client.list_topics(timeout=SECONDS).brokers
    except KafkaException as error:
        return Reach("Kafka", bootstrap, problem=error.args[0].str())
    return Reach("Kafka", bootstrap, detail=f"{len(brokers)} brokers")


def database_answers(dsn: str) -> Reach:
    """Never shows the password: the address is put together from what may be seen."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        return Reach("TimescaleDB", "TIMESCALE_DSN", problem=f"not a connection string: {error}")
    address = f"{given.get('host')}:{given.get('port') or 5432}/{given.get('dbname')}"
    try:
        with psycopg.connect(dsn, connect_timeout=SECONDS) as connection:
            row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
            version = connection.info.server_version // 10000
    except psycopg.Error as error:
        return Reach("TimescaleDB", address, problem=str(error).strip().partition("\n")[0])
    if row is None:
        return Reach("TimescaleDB", address, problem="PostgreSQL answers, but has no extension timescaledb")
    return Reach("TimescaleDB", address, detail=f"TimescaleDB {row[0]} on PostgreSQL {version}")


def exporter_answers(url: str) -> Reach:
    try:
        with urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - http to the configured address only
            return Reach("exporter", url, detail=f"HTTP {answer.status}")
    except (URLError, OSError) as error:
        return Reach("exporter", url, problem=str(getattr(error, "reason", error)))
