from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.collector.exporters import Exporters, MockKafka


@pytest.fixture
def exporters() -> Iterator[Exporters]:
    with Exporters() as server:
        yield server


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    cluster = MockKafka()
    yield cluster
    cluster.close()
