"""Where events go, by DESTINATION: Kafka, or straight into TimescaleDB for a single box that wants no broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.collector.deliver import Bus
from services.collector.publish import Publisher, collector_config
from services.direct.bus import DirectBus
from services.direct.open import check, open_bus
from services.settings import Settings

log = logging.getLogger("collector")


@contextmanager
def opened(settings: Settings) -> Iterator[Bus]:
    """The bus, for a while. Raises PublishError where settings make none."""
    if settings.destination == "kafka":
        yield Publisher(collector_config(settings))
        return
    bus = open_bus(settings)
    try:
        yield bus
    finally:
        bus.close()


def look(settings: Settings) -> None:
    """Before a long run: a destination that is away for a while is no error, one that can never take events is. Raises
    services.direct.open.NotUsableError."""
    if settings.destination == "kafka":
        return  # librdkafka says what it meets
    problem = check(settings)
    if problem is not None:
        log.warning("TimescaleDB cannot be reached: events are spooled until it can", extra={"reason": problem})


def words(bus: Bus, settings: Settings) -> str | None:
    """What the destination said last, or who did not answer."""
    if isinstance(bus, DirectBus):
        return bus.problem
    return f"no acknowledgement from KAFKA_BOOTSTRAP={settings.kafka_bootstrap}"
