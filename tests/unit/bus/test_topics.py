"""Topics are made once, retention is kept, partitions of an existing topic are left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from services.bus.clients import ErrorLog, group_consumer_config, producer_config
from services.bus.identity import NO_TOPIC_ID, has_controller, identify
from services.bus.topics import TopicsError, ensure, wait_for_cluster, wanted
from services.settings import Settings
from tests.support.clock import HandClock


class Done:
    def __init__(self, result: Any = None, error: KafkaError | None = None) -> None:
        self._result, self._error = result, error

    def result(self) -> Any:
        if self._error is not None:
            raise KafkaException(self._error)
        return self._result


class FakeAdmin:
    """Topics in a dictionary: name -> partitions."""

    def __init__(
        self, topics: dict[str, int], *, controller: int = 1, away: int = 0, refuse: int | None = None
    ) -> None:
        self.topics, self.configs = topics, dict[str, str]()
        self._controller, self._away, self._refuse = controller, away, refuse

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        if self._away:
            self._away -= 1
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        if topic is not None:
            self.topics.setdefault(topic, 4)
        topics = {name: SimpleNamespace(partitions=dict.fromkeys(range(count))) for name, count in self.topics.items()}
        return SimpleNamespace(controller_id=self._controller, brokers={1: None}, topics=topics, cluster_id="c-1")

    def create_topics(self, new: list[Any], operation_timeout: float) -> dict[str, Done]:
        if self._refuse is not None:
            return {each.topic: Done(error=KafkaError(self._refuse)) for each in new}
        for each in new:
            self.topics[each.topic] = each.num_partitions
            self.configs[each.topic] = each.config["retention.ms"]
        return {each.topic: Done() for each in new}

    def incremental_alter_configs(self, resources: list[Any]) -> dict[Any, Done]:
        for resource in resources:
            self.configs[resource.name] = resource.incremental_configs[0].value
        return {resource: Done() for resource in resources}

    def describe_topics(self, _topics: Any, request_timeout: float) -> dict[str, Done]:
        return {name: Done(SimpleNamespace(topic_id=f"id-of-{name}")) for name in self.topics}


SETTINGS = Settings(kafka_partitions=6, kafka_retention_hours=2)


def make(admin: FakeAdmin) -> None:
    ensure(admin, admin.list_topics(), wanted(SETTINGS), 1)  # type: ignore[arg-type]  # a hand-made fake


def test_missing_topics_are_made_and_a_second_time_changes_nothing() -> None:
    admin = FakeAdmin({})
    make(admin)
    expected = {"gpu-metrics-raw": 6, "gpu-events": 6, "gpu-metrics-invalid": 1}
    assert admin.topics == expected
    assert admin.configs["gpu-metrics-raw"] == str(2 * 3_600_000)
    before = dict(admin.configs)
    make(admin)
    assert (admin.topics, admin.configs) == (expected, before)


def test_an_existing_topic_gets_its_retention_but_keeps_its_partitions() -> None:
    admin = FakeAdmin({"gpu-metrics-raw": 3})
    make(admin)
    assert admin.topics["gpu-metrics-raw"] == 3
    assert admin.configs["gpu-metrics-raw"] == str(2 * 3_600_000)


def test_the_mock_cluster_is_asked_for_topics_instead() -> None:
    admin = FakeAdmin({}, controller=0, refuse=KafkaError._TIMED_OUT)
    make(admin)
    assert set(admin.topics) == {"gpu-metrics-raw", "gpu-events", "gpu-metrics-invalid"}


def test_another_one_being_faster_is_fine_and_a_refusal_is_told() -> None:
    make(FakeAdmin({}, refuse=KafkaError.TOPIC_ALREADY_EXISTS))
    with pytest.raises(TopicsError, match="cannot create gpu-metrics-raw"):
        make(FakeAdmin({}, refuse=KafkaError.INVALID_REPLICATION_FACTOR))


def test_waiting_ends_when_the_broker_answers_or_the_time_is_up() -> None:
    clock = HandClock()
    assert wait_for_cluster(FakeAdmin({}, away=3), 60, clock).cluster_id == "c-1"  # type: ignore[arg-type]  # a fake
    assert clock.now < 60
    with pytest.raises(KafkaException):
        wait_for_cluster(FakeAdmin({}, away=1000), 5, HandClock())  # type: ignore[arg-type]  # a hand-made fake


def test_identity_is_cluster_and_topic_id_where_there_is_one() -> None:
    real, mock = FakeAdmin({"t": 1}), FakeAdmin({"t": 1}, controller=0)
    assert has_controller(real.list_topics())
    assert identify(real, ["t"])["t"].topic_id == "id-of-t"  # type: ignore[arg-type]  # a hand-made fake
    identity = identify(mock, ["t"])["t"]  # type: ignore[arg-type]  # a hand-made fake
    assert (identity.cluster_id, identity.topic_id) == ("c-1", NO_TOPIC_ID)


def test_the_sinks_consumer_never_commits_or_moves_by_itself() -> None:
    for protocol in ("classic", "consumer"):
        config = group_consumer_config(Settings(kafka_group_protocol=protocol), "x")
        assert config["enable.auto.commit"] is False
        assert config["auto.offset.reset"] == "error"
        assert ("partition.assignment.strategy" in config) == (protocol == "classic")


def test_the_producer_is_idempotent() -> None:
    assert producer_config(Settings(), "x")["enable.idempotence"] is True


def test_an_error_that_repeats_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    report = ErrorLog(clock)
    for _ in range(100):
        report(KafkaError(KafkaError._TRANSPORT, "refused"))
    report(KafkaError(KafkaError._ALL_BROKERS_DOWN, "down"))
    clock.sleep(31)
    report(KafkaError(KafkaError._TRANSPORT, "refused"))
    assert [record.getMessage() for record in caplog.records] == [
        f"Kafka client: {t}" for t in ("refused", "down", "refused")
    ]
