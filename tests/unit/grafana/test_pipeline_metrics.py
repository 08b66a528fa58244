"""The pipeline's dashboard asks for metrics that the services have, by labels that these have."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from grafana import style
from grafana.pipeline import NO_EXPORTER, NO_MOCK
from mock_dcgm.server import Telemetry
from services.collector.deliver import Counts
from services.collector.metrics import CollectorMetrics
from services.exporter.own_series import FAMILIES
from services.sink.metrics import SinkMetrics
from tests.support.grafana_dashboards import committed

(PIPELINE,) = [dashboard for dashboard in committed() if dashboard.uid == "gpu-pipeline"]
OF_PROMETHEUS = {"up"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def _collector() -> list[Metric]:
    """The families of a collector without targets."""
    shared = SimpleNamespace(refused=Counter(), samples=0, non_gpu=0, on_plan=0, cut=0, snapshots=Counter())
    spool = SimpleNamespace(bytes=0, max_bytes=1, records=0, oldest_age=0.0, full=False)
    parts: dict[str, Any] = {
        "pool": SimpleNamespace(workers=[]),
        "shared": shared,
        "deliverer": SimpleNamespace(counts=Counts(), waiting=0),
        "bus": SimpleNamespace(errors={}, outstanding=0),
        "spool": spool,
        "files": SimpleNamespace(problems={}),
    }
    return list(CollectorMetrics(**parts).collect())


def _known() -> set[str]:
    registry = CollectorRegistry()
    SinkMetrics(registry)
    families = [*_collector(), *registry.collect(), *Telemetry().registry.collect()]
    names = {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}
    return names | set(FAMILIES) | OF_PROMETHEUS


def _expressions() -> list[str]:
    return [query.sql for query in PIPELINE.queries()]


def test_every_metric_asked_for_exists() -> None:
    asked = {name for text in _expressions() for name in re.findall(r"\b(gpumon_\w+|up)\b", text)}
    assert len(asked) > 25
    assert asked - _known() == set()


def test_every_step_of_the_pipeline_is_shown() -> None:
    text = " ".join(_expressions())
    for part in ("collector_up", "samples_scraped", "lag_messages", "freshness_seconds", "batch_rows", "batches_total",
                 "dead_letters_total", "spool_bytes", "retries_total", "reading_age", "read_failures"):  # fmt: skip
        assert part in text, part


def test_gauges_over_time_end_where_samples_end() -> None:
    """A bare gauge is repeated for five minutes when Prometheus itself was away."""
    bare = []
    for panel in PIPELINE.panels():
        drawn = [t["expr"] for t in panel["targets"] if not t.get("instant") and "[$__interval]" not in t["expr"]]
        bare += [(panel["title"], m) for e in drawn for m in re.findall(r"\b(?:gpumon_\w+|up)\b(?!\[)", e)]
    assert bare == []


def test_where_a_histogram_is_shown_its_mean_comes_first() -> None:
    shown = [[t["expr"] for t in p["targets"]] for p in PIPELINE.panels() if "histogram_quantile" in str(p["targets"])]
    assert len(shown) == 3
    for expressions in shown:
        quantiles = {re.findall(r"(\w+)_bucket", e)[0] for e in expressions if "histogram_quantile" in e}
        first = [re.findall(r"(\w+)_sum.*\1_count", e) for e in expressions[: len(quantiles)]]
        assert {name for names in first for name in names} == quantiles


def test_nothing_is_called_none_without_a_look() -> None:
    """A text of a panel cannot tell no events from no scrapes."""
    texts = {panel["fieldConfig"]["defaults"]["noValue"] for panel in PIPELINE.panels()}
    assert style.NONE not in texts
    assert texts == {style.NO_VALUE, NO_EXPORTER, NO_MOCK}


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in PIPELINE.panels():
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            asked = set(re.findall(r"\{\{(\w+)\}\}", cast("str", target.get("legendFormat", ""))))
            assert asked <= kept, (panel["title"], target["expr"])
