"""What the sink says of itself."""

from __future__ import annotations

from itertools import pairwise

import annotated_types
import pytest
from prometheus_client import CollectorRegistry

from services.settings import Settings
from services.sink.metrics import SinkMetrics
from services.sink.validate import Reason


def test_dead_letters_are_counted_from_zero() -> None:
    """A series that begins at 1 has no increase: the first dead letter would not be seen."""
    registry = CollectorRegistry()
    SinkMetrics(registry)
    counted = [registry.get_sample_value("gpumon_sink_dead_letters_total", {"reason": str(r)}) for r in Reason]
    assert counted == [0] * len(Reason)


def bounds(metric: str) -> list[float]:
    """Upper bounds of a histogram's buckets, but the last."""
    registry = CollectorRegistry()
    SinkMetrics(registry)
    (family,) = [f for f in registry.collect() if f.name == f"gpumon_sink_{metric}"]
    return sorted(float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket"))[:-1]


HISTOGRAMS = ("freshness_seconds", "batch_rows", "batch_bytes", "batch_age_seconds", "decode_seconds", "seal_seconds",
              "copy_seconds", "commit_seconds")  # fmt: skip


@pytest.mark.parametrize("metric", HISTOGRAMS)
def test_a_bucket_tells_a_value_to_about_a_factor_of_two(metric: str) -> None:
    """A quantile may be off by a bucket. Hours of a backlog are told to a factor of three."""
    found = bounds(metric)
    for low, high in pairwise(found):
        assert high <= (2.5 if high <= 60 or "seconds" not in metric else 3) * low * 1.001, (low, high)
    assert 10 <= len(found) <= 30, "each is a series"


def test_buckets_reach_the_largest_batch() -> None:
    (most,) = [m.le for m in Settings.model_fields["batch_size"].metadata if isinstance(m, annotated_types.Le)]
    assert bounds("batch_rows")[-1] == most


def test_a_batch_that_waited_its_time_is_not_told_to_be_twice_as_old() -> None:
    """Just over BATCH_TIMEOUT is where nearly all batches of a quiet pipeline are."""
    timeout = Settings.model_fields["batch_timeout"].default
    assert min(b for b in bounds("batch_age_seconds") if b > timeout) <= 1.1 * timeout
