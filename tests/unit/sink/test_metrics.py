"""What the sink says of itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.sink.metrics import SinkMetrics
from services.sink.validate import Reason


def test_dead_letters_are_counted_from_zero() -> None:
    """A series that begins at 1 has no increase: the first dead letter would not be seen."""
    registry = CollectorRegistry()
    SinkMetrics(registry)
    counted = [registry.get_sample_value("gpumon_sink_dead_letters_total", {"reason": str(r)}) for r in Reason]
    assert counted == [0] * len(Reason)
