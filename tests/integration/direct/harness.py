"""A single box: the collector's policy, the direct bus, a spool, and a real database."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg
from pydantic import SecretStr

from services.collector.batch import Batch
from services.collector.deliver import PACE, Deliverer
from services.collector.spool import Spool
from services.direct.open import open_bus
from services.settings import Settings
from tests.support.messages import event

WITHIN = 60.0
"""Seconds for anything to happen: generous, the machine may be busy."""


class Box:
    """One scrape a second of `gpus` GPUs of its own; scrape n says `total_energy_consumption` n."""

    def __init__(self, dsn: str, directory: Path, *, timeout: float = 10.0, gpus: int = 8) -> None:
        self.dsn = dsn
        self.spool_dir = directory / "spool"
        self.settings = Settings(
            timescale_dsn=SecretStr(dsn),
            destination="timescaledb",
            kafka_delivery_timeout=timeout,
            spool_dir=self.spool_dir,
        )
        self.gpus = [f"GPU-{uuid.uuid4()}" for _ in range(gpus)]
        self.begin = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=1)
        self.bus = open_bus(self.settings)
        self.spool = Spool(self.spool_dir, 2**30)
        self.deliverer = Deliverer(self.bus, self.spool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deliverer.finish(0)
        self.bus.close()

    def value(self, number: int, gpu: str, **changes: Any) -> bytes:
        moment = (self.begin + dt.timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
        metrics = {"gpu_temp": number % 100, "total_energy_consumption": number}
        given = {"time": moment, "gpu": {"uuid": gpu, "hostname": "box"}, "metrics": metrics, **changes}
        return msgspec.json.encode(event(**given))

    def scrape(self, number: int) -> Batch:
        return Batch("box:9400", [("gpu-metrics-raw", gpu, self.value(number, gpu)) for gpu in self.gpus])

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            assert self.deliverer.offer(self.scrape(number))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Turn the policy until it holds."""
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {WITHIN:g} s ({self.bus.problem})"
            self.deliverer.step()
            time.sleep(PACE)

    def until_home(self) -> None:
        """Everything offered is in the database."""
        self.deliverer.step()
        self.until(lambda: self.spool.empty and not self.bus.outstanding, "the last event arriving")
        self.deliverer.step()

    def numbers(self) -> list[int]:
        """Scrapes in the table, one entry per row, in order."""
        query = (
            "SELECT total_energy_consumption FROM gpu_metrics JOIN gpus USING (gpu_id)"
            " WHERE gpu_uuid = ANY(%s) ORDER BY 1"
        )
        return [int(row[0]) for row in self.rows(query, [self.gpus])]

    def expected(self, *numbers: int) -> list[int]:
        return sorted(number for number in numbers for _ in self.gpus)

    def rows(self, query: str, given: Any = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(query, given).fetchall()
