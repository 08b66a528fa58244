"""Message -> row: order of columns, NULLs, identity, time window, key."""

from __future__ import annotations

import calendar
import json
from typing import Any

import psycopg
import pytest

from services.contract.catalogue import SAMPLED, SqlType
from services.contract.event import Metrics
from services.contract.row import COLUMNS
from services.sink.inventory import Inventory
from services.sink.pgtime import from_unix, to_unix
from services.sink.rows import Row, RowMapper
from services.sink.validate import Invalid, Reason, TimeLimits
from tests.support.messages import UUID, encoded

NOW = float(calendar.timegm((2026, 11, 22, 3, 0, 10)))
LIMITS = TimeLimits(max_age=3600, max_future=60)


class OneGpu:
    """Stands in for the connection: register_gpu() gives 7."""

    class _Transaction:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def transaction(self) -> OneGpu._Transaction:
        return self._Transaction()

    def execute(self, _query: str, given: dict[str, Any] | None = None) -> OneGpu:
        if given is not None:
            self.asked.append(given)
        return self

    def fetchall(self) -> list[tuple[int]]:
        return [(7,) for _ in self.asked[-1]["identities"]]


def mapper_that_knows_the_gpu() -> RowMapper:
    inventory = Inventory()
    mapper = RowMapper(inventory, LIMITS)
    mapper.set_now(NOW)
    assert mapper.row(UUID.encode(), encoded()) is None
    inventory.register(OneGpu())  # type: ignore[arg-type]  # a hand-made fake of what register() uses
    return mapper


def row(**changes: Any) -> Row:
    found = mapper_that_knows_the_gpu().row(UUID.encode(), encoded(**changes))
    assert found is not None
    return found


def named(found: Row) -> dict[str, Any]:
    return dict(zip((column.name for column in COLUMNS), found, strict=True))


def refusal(key: bytes | None = UUID.encode(), value: bytes | None = None, **changes: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        mapper_that_knows_the_gpu().row(key, value if value is not None else encoded(**changes))
    return caught.value


def test_every_value_is_in_its_column_and_what_is_absent_is_none() -> None:
    metrics = {m.column: int(m.low) + 1 if m.sql.is_integer and m.high >= m.low + 1 else m.low for m in SAMPLED}
    found = named(row(metrics=metrics, tenant={"pod": "p", "namespace": "n"}, status={"tag": "prod", "memo": "m"}))
    assert {m.column: found[m.column] for m in SAMPLED} == metrics
    assert (found["gpu_id"], to_unix(found["time"])) == (7, NOW - 9.75)
    assert (found["pod"], found["namespace"], found["container"]) == ("p", "n", None)
    assert (found["status_tag"], found["status_memo"]) == ("prod", "m")
    assert found["counter_resets"] is None
    assert found["extra"] is None


def test_an_event_without_metrics_is_a_row_of_nulls_not_of_zeros() -> None:
    assert {named(row(metrics={}))[m.column] for m in SAMPLED} == {None}


def test_documents_are_jsonb_on_the_wire() -> None:
    found = named(row(resets={"total_energy_consumption": 5}, extra={"labels": {"a": "b"}}))
    assert found["counter_resets"] == b'\x01{"total_energy_consumption":5}'
    assert json.loads(found["extra"][1:]) == {"labels": {"a": "b"}}
    assert named(row(resets=None, extra=None))["extra"] is None


def test_null_documents_are_null() -> None:
    value = encoded()[:-1] + b',"extra":null,"resets":null,"tenant":null,"status":null}'
    found = mapper_that_knows_the_gpu().row(UUID.encode(), value)
    assert found is not None
    assert found[-7:] == (None,) * 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": "2026-11-22T01:59:00Z"}, Reason.TOO_OLD),
        ({"time": "2026-11-22T03:01:30Z"}, Reason.IN_FUTURE),
        ({"time": "3026-11-22T03:01:30Z"}, Reason.IN_FUTURE),
        ({"resets": [1]}, Reason.SCHEMA),
        ({"extra": "text"}, Reason.SCHEMA),
        ({"gpu": {"hostname": "h"}}, Reason.NO_IDENTITY),
        ({"gpu": {"uuid": "", "hostname": "h"}}, Reason.NO_IDENTITY),
        ({"gpu": "GPU-1"}, Reason.NO_IDENTITY),
        ({"gpu": {"uuid": UUID, "hostname": "h", "properties": {"fb_total": -1}}}, Reason.RANGE),
    ],
)
def test_refusals(changes: dict[str, Any], reason: Reason) -> None:
    assert refusal(**changes).reason is reason


@pytest.mark.parametrize("key", [None, b"", b"GPU-other"])
def test_the_key_must_be_the_uuid(key: bytes | None) -> None:
    assert refusal(key=key).reason is Reason.BAD_KEY


def test_a_message_without_value_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        mapper_that_knows_the_gpu().row(UUID.encode(), None)
    assert caught.value.reason is Reason.NOT_JSON


def test_the_window_moves_with_the_clock() -> None:
    mapper = mapper_that_knows_the_gpu()
    mapper.set_now(NOW + 7200)
    with pytest.raises(Invalid, match="older than MAX_AGE"):
        mapper.row(UUID.encode(), encoded())


def test_a_changed_identity_is_registered_again_and_so_is_changing_back() -> None:
    inventory, connection = Inventory(), OneGpu()
    mapper = RowMapper(inventory, LIMITS)
    mapper.set_now(NOW)
    moved = encoded(gpu={"uuid": UUID, "hostname": "node-2"})
    for value in (encoded(), moved, encoded()):
        assert mapper.row(UUID.encode(), value) is None
        inventory.register(connection)  # type: ignore[arg-type]  # a hand-made fake
        assert mapper.row(UUID.encode(), value) is not None
        inventory.forget_former()
    assert [json.loads(given["identities"][0])["hostname"] for given in connection.asked] == [
        "node-1",
        "node-2",
        "node-1",
    ]
    assert len(inventory.known) == 1, "one entry per GPU, however often it changes"


def test_an_identity_the_database_refuses_does_not_hurt_the_others() -> None:
    class Picky(OneGpu):
        def execute(self, query: str, given: dict[str, Any] | None = None) -> OneGpu:
            if given is not None and any("bad" in identity for identity in given["identities"]):
                raise psycopg.errors.UntranslatableCharacter("unsupported Unicode escape sequence")
            return super().execute(query, given)

    inventory = Inventory()
    mapper = RowMapper(inventory, LIMITS)
    mapper.set_now(NOW)
    bad = encoded(gpu={"uuid": UUID, "hostname": "bad"})
    assert mapper.row(UUID.encode(), encoded()) is None
    assert mapper.row(UUID.encode(), bad) is None
    inventory.register(Picky())  # type: ignore[arg-type]  # a hand-made fake
    assert mapper.row(UUID.encode(), encoded()) is not None
    with pytest.raises(Invalid) as caught:
        mapper.row(UUID.encode(), bad)
    assert (caught.value.reason, caught.value.sqlstate) == (Reason.DATABASE, "22P05")
    inventory.forget_former()
    assert inventory.waiting == 0


def test_changes_within_one_batch_are_registered_in_order_the_last_one_stays() -> None:
    inventory, connection = Inventory(), OneGpu()
    mapper = RowMapper(inventory, LIMITS)
    mapper.set_now(NOW)
    moved = encoded(gpu={"uuid": UUID, "hostname": "node-2"}, time="2026-11-22T03:00:01Z")
    back = encoded(time="2026-11-22T03:00:02Z")
    values = [encoded(), encoded(), moved, back]
    assert [mapper.row(UUID.encode(), value) for value in values] == [None] * 4
    inventory.register(connection)  # type: ignore[arg-type]  # a hand-made fake
    assert None not in [mapper.row(UUID.encode(), value) for value in values]
    (given,) = connection.asked
    assert [json.loads(identity)["hostname"] for identity in given["identities"]] == ["node-1", "node-2", "node-1"]
    assert given["seen"] == sorted(given["seen"])
    inventory.forget_former()
    assert mapper.row(UUID.encode(), back) is not None
    assert mapper.row(UUID.encode(), moved) is None, "moving again is news"
    assert mapper.row(UUID.encode(), back) is None, "and so is coming back"
    assert inventory.waiting == 2


def test_nothing_is_forgotten_when_the_database_is_away() -> None:
    class Away(OneGpu):
        def execute(self, _query: str, given: dict[str, Any] | None = None) -> OneGpu:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    inventory = Inventory()
    inventory.meet(b'{"uuid":"GPU-1","hostname":"h"}', from_unix(NOW), Metrics())
    with pytest.raises(psycopg.OperationalError):
        inventory.register(Away())  # type: ignore[arg-type]  # a hand-made fake
    assert inventory.waiting == 1


@pytest.mark.parametrize("metric", SAMPLED, ids=lambda m: m.column)
def test_no_value_that_passes_validation_overflows_its_column(metric: Any) -> None:
    largest = {SqlType.SMALLINT: 2**15 - 1, SqlType.INTEGER: 2**31 - 1, SqlType.BIGINT: 2**63 - 1, SqlType.REAL: 3e38}
    assert -largest[metric.sql] <= metric.low <= metric.high <= largest[metric.sql]


def test_what_the_exporter_does_not_expose_is_told_to_the_inventory() -> None:
    connection, inventory = OneGpu(), Inventory()
    mapper = RowMapper(inventory, LIMITS)
    mapper.set_now(NOW)
    gpu = {"uuid": UUID, "hostname": "h", "properties": {"fb_total": 1}, "missing": {"memory_temp": "unsupported"}}
    mapper.row(UUID.encode(), encoded(gpu=gpu))
    inventory.register(connection)  # type: ignore[arg-type]  # a hand-made fake of what register() uses
    missing = json.loads(connection.asked[0]["identities"][0])["missing"]
    assert missing["memory_temp"] == "unsupported"
    assert missing["fan_speed"] == "not_exposed"
    assert missing["slowdown_temp"] == "not_exposed"
    assert not {"gpu_temp", "power_usage", "fb_total"} & missing.keys()
