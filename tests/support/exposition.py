"""Expositions in dcgm-exporter's form with values that change at every scrape: input of benchmarks and parser tests."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from services.contract.catalogue import METRICS, Kind, Metric

METRICS_PER_GPU = 45
"""What a health system has dcgm-exporter serve: its default list and most of the opt-in ones."""


def chosen(count: int = METRICS_PER_GPU) -> tuple[Metric, ...]:
    """The first `count` metrics, dcgm-exporter's default ones before the others."""
    return tuple(sorted(METRICS, key=lambda m: not m.default)[:count])


@dataclass
class Fleet:
    """GPUs of eight-GPU hosts behind one target. Counters grow, gauges move within their range."""

    gpus: int
    metrics: tuple[Metric, ...] = field(default_factory=chosen)
    seed: int = 1
    first_host: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._pods = [self._pod() for _ in range(self.gpus)]
        self._scrapes = 0
        self._uuids = [f"GPU-{self._random.getrandbits(128):032x}" for _ in range(self.gpus)]

    def _pod(self) -> str:
        return f"train-{self._random.getrandbits(40):010x}"

    def churn(self, share: float) -> None:
        """Gives this share of the GPUs to another pod: the label part of all their series changes."""
        for gpu in self._random.sample(range(self.gpus), round(self.gpus * share)):
            self._pods[gpu] = self._pod()

    def labels(self) -> list[str]:
        return [
            f'gpu="{i % 8}",UUID="{self._uuids[i]}",pci_bus_id="00000000:{i % 8 + 1:02X}:00.0",device="nvidia{i % 8}",'
            f'modelName="NVIDIA A100-SXM4-80GB",Hostname="node-{self.first_host + i // 8}",'
            f'DCGM_FI_DRIVER_VERSION="580.105.08",container="main",namespace="research",pod="{self._pods[i]}"'
            for i in range(self.gpus)
        ]

    def body(self) -> bytes:
        """The next scrape."""
        self._scrapes += 1
        labels, lines = self.labels(), []
        for metric in self.metrics:
            lines += [f"# HELP {metric.dcgm} {metric.help}", f"# TYPE {metric.dcgm} {metric.exposition_type}"]
            lines += [f"{metric.dcgm}{{{text}}} {self._value(metric, i)}" for i, text in enumerate(labels)]
        return ("\n".join(lines) + "\n").encode()

    def _value(self, metric: Metric, gpu: int) -> str:
        if metric.kind is Kind.COUNTER:
            return str(gpu * 1000 + self._scrapes * 123_457)
        if metric.column == "xid_errors":
            return "0"
        if metric.kind is Kind.PROPERTY:
            return str(int(metric.high))
        share = self._random.random()
        if metric.sql.is_integer:
            return str(int(metric.low + share * (min(metric.high, 2**34) - metric.low)))
        return f"{metric.low + share * (metric.high - metric.low):f}"
