"""The bus that writes straight into the database, from the settings; and a look at the database before the start."""

from __future__ import annotations

import psycopg

from services.direct import trouble
from services.direct.bus import DirectBus
from services.direct.writer import DirectWriter, connect
from services.settings import Settings
from services.sink.validate import TimeLimits


class NotUsableError(Exception):
    """The database is there and cannot be written to as it is; the message says what to do."""


def open_bus(settings: Settings) -> DirectBus:
    """Connects when the first message is sent."""
    writer = DirectWriter(
        settings.dsn,
        topic=settings.kafka_topic,
        topic_events=settings.kafka_topic_events,
        limits=TimeLimits(settings.max_age, settings.max_future),
        timeout=settings.kafka_delivery_timeout,
    )
    return DirectBus(writer, timeout=settings.kafka_delivery_timeout, batch_size=settings.batch_size)


def check(settings: Settings) -> str | None:
    """None: the database takes events; else why it cannot be reached just now, which the spool bridges. Raises
    NotUsableError where waiting will not help: no schema, no rights."""
    try:
        with connect(settings.dsn, settings.kafka_delivery_timeout) as connection:
            for table in ("gpu_metrics", "gpu_events", "gpu_latest"):
                connection.execute("SELECT %s::regclass", [table])
            connection.execute("SELECT 'register_gpu(jsonb, timestamptz)'::regprocedure")
    except psycopg.Error as error:
        if trouble.reason(error) in (trouble.SCHEMA, trouble.PERMISSION):
            raise NotUsableError(trouble.explain(error)) from None
        return trouble.explain(error)
    return None
