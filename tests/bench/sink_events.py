"""A backlog for the sink's benchmark: events of 1,000 GPUs every 10 s, as the collector publishes them."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import msgspec
from confluent_kafka import Producer

from services.contract.catalogue import SAMPLED, Metric
from services.contract.event import SCHEMA_VERSION

GPUS = 1000
INTERVAL_SECONDS = 10
_ALSO = ("ecc_", "power_limit", "clocks_event", "pstate", "pcie_link", "sm_a", "sm_o", "fb_res", "thermal_v", "power_v")
USED = tuple(m for m in SAMPLED if m.default or m.column.startswith(_ALSO))
"""dcgm-exporter's defaults and what a health system opts in to: 38 metrics."""


def _value(metric: Metric, draw: random.Random) -> int | float:
    high = min(metric.high, 10**12 if metric.column == "total_energy_consumption" else 90)
    if metric.sql.is_integer:
        return draw.randrange(max(0, int(metric.low)), int(high) + 1)
    return round(draw.uniform(0, high), 3 if high > 1 else 6)


def gpu(number: int) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{number:08x}-2b3c-4d5e-8f90-{number:012x}",
        "hostname": f"node-{number // 8:04d}",
        "index": number % 8,
        "device": f"nvidia{number % 8}",
        "model": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": f"00000000:{number % 256:02X}:00.0",
        "driver_version": "570.86.15",
        "cluster": "c1",
        "properties": {"slowdown_temp": 87, "shutdown_temp": 92, "fb_total": 81559},
        "missing": {"fan_speed": "unsupported"},
    }


def produce(bootstrap: str, topic: str, events: int, end: dt.datetime, seed: int = 1) -> None:
    """The last event is of `end`. Values change with every sample."""
    draw = random.Random(seed)
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50})
    gpus = [gpu(number) for number in range(GPUS)]
    scrapes = events // GPUS
    for scrape in range(scrapes):
        time = end - dt.timedelta(seconds=(scrapes - 1 - scrape) * INTERVAL_SECONDS)
        text = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for number in range(GPUS):
            event = {
                "schema_version": SCHEMA_VERSION,
                "time": text,
                "gpu": gpus[number],
                "metrics": {m.column: _value(m, draw) for m in USED},
                "derived": {"memory_percent": 51.2, "power_percent": 44.1},
                "tenant": {"pod": f"train-{number % 50}", "namespace": "ml", "container": "main"},
                "source": f"http://node-{number // 8:04d}:9400/metrics",
            }
            producer.produce(topic, msgspec.json.encode(event), gpus[number]["uuid"])
        producer.poll(0)
        if scrape % 20 == 0:
            producer.flush()
    producer.flush()
