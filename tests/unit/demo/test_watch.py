"""The demo's arithmetic: what it reads from /metrics, and what it calls ok."""

from __future__ import annotations

import argparse
import math
import socket
from pathlib import Path

import pytest

from services.demo.ledger import Balance, shortfalls, verdict
from services.demo.process import free_port
from services.demo.run import _check
from services.demo.session import _has_begun, _plan
from services.demo.watch import Progress, Readings, _of_collector, histogram_quantile
from services.settings import load
from tests.support.processes import free_port as a_port

TEXT = """\
# TYPE rows_total counter
rows_total{partition="0"} 3
rows_total{partition="1"} 4
# TYPE fresh histogram
fresh_bucket{le="0.5"} 5
fresh_bucket{le="1.0"} 10
fresh_bucket{le="+Inf"} 10
fresh_count 10
fresh_sum 5
"""


def test_totals_add_up_over_series_and_can_be_narrowed() -> None:
    readings = Readings.parse(TEXT)
    assert readings.total("rows_total") == 7
    assert readings.total("rows_total", partition="1") == 4
    assert readings.total("nothing") == 0


def test_a_silent_service_has_no_samples() -> None:
    assert Readings.parse(None).samples == ()


@pytest.mark.parametrize(("q", "expected"), [(0.5, 0.5), (0.75, 0.75), (0.25, 0.25), (1.0, 1.0)])
def test_quantile_interpolates_inside_its_bucket(q: float, expected: float) -> None:
    assert Readings.parse(TEXT).quantile("fresh", q) == pytest.approx(expected)


def test_quantile_without_observations_is_unknown_and_beyond_the_buckets_is_the_last_bound() -> None:
    assert histogram_quantile({}, 0.5) is None
    assert histogram_quantile({1.0: 0, math.inf: 0}, 0.5) is None
    assert histogram_quantile({1.0: 1, math.inf: 10}, 0.99) == 1.0


GOOD = Balance(published=10, rows=10, dead_letters=0, gpus=2)


@pytest.mark.parametrize(
    ("balance", "last", "drained", "says"),
    [
        pytest.param(GOOD, {}, True, [], id="all rows"),
        pytest.param(Balance(10, 9, 0, 2), {}, True, ["10 events were published, 9 rows"], id="a row is missing"),
        pytest.param(Balance(0, 0, 0, 0), {}, True, ["nothing was published"], id="nothing published"),
        pytest.param(Balance(10, 10, 1, 2), {}, True, ["1 dead letters"], id="a dead letter"),
        pytest.param(GOOD, {"evicted": 1}, True, ["dropped 1 messages"], id="evicted by the broker"),
        pytest.param(GOOD, {}, False, ["not written all in time"], id="not drained"),
        pytest.param(GOOD, {"targets": 2, "targets_down": 2}, True, ["all 2 targets were down"], id="all down"),
        pytest.param(GOOD, {"targets": 2, "targets_down": 1}, True, [], id="one answers"),
    ],
)
def test_ok_only_when_every_event_is_a_row(
    balance: Balance, last: dict[str, float], drained: bool, says: list[str]
) -> None:
    progress = Progress(at=0, **last)
    assert verdict(balance, progress, drained=drained)["ok"] is (not says)
    found = shortfalls(balance, progress, drained=drained)
    assert len(found) == len(says)
    assert all(part in text for part, text in zip(says, found, strict=True))


def test_a_target_whose_last_scrape_failed_is_down() -> None:
    says = 'gpumon_collector_targets 3\ngpumon_collector_up{target="a"} 0\ngpumon_collector_up{target="b"} 1\n'
    now = _of_collector(Readings.parse(says), Progress(at=0))
    assert (now.targets, now.targets_down) == (3, 1), "one of them was not scraped yet"
    assert "targets down 1 of 3" in now.line(Progress(at=0))


@pytest.mark.parametrize(
    ("balance", "last", "begun"),
    [
        (Balance(0, 0, 0, 0), {}, False),
        (GOOD, {}, True),
        (Balance(0, 0, 0, 0), {"scraped": 50}, True),
        (Balance(0, 0, 0, 0), {"targets": 2, "targets_down": 2}, True),
    ],
    ids=["not yet", "published", "scraped, and lost", "nothing to scrape"],
)
def test_a_stop_before_the_first_scrape_is_no_failure(balance: Balance, last: dict[str, float], begun: bool) -> None:
    assert _has_begun(balance, Progress(at=0, **last)) is begun


def test_line_shows_rates_and_says_unknown_where_it_is() -> None:
    line = Progress(at=2, scraped=100, rows=20, lag=3).line(Progress(at=1, scraped=50, rows=10))
    assert "50 samples/s" in line
    assert "10 rows/s" in line
    assert "p50     ?" in line
    assert "dead letters" not in line


def _arguments(**given: object) -> argparse.Namespace:
    return argparse.Namespace(
        **{"gpus": 8, "hosts": None, "interval": 1.0, "seconds": None, "data_dir": None, "seed": None, **given}
    )


def test_hosts_follow_from_gpus(tmp_path: Path) -> None:
    settings = load()
    assert [_plan(_arguments(gpus=n), settings, tmp_path).hosts for n in (1, 8, 64)] == [1, 2, 8]


@pytest.mark.parametrize("given", [{"gpus": 0}, {"hosts": 9}, {"interval": 0.0}, {"seconds": -1.0}])
def test_impossible_arguments_are_refused(given: dict[str, object]) -> None:
    assert _check(_arguments(**given)) is not None


def test_preferred_port_is_left_to_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", a_port())) as holder:
        taken = holder.getsockname()[1]
        assert free_port(taken) not in (taken, 0)


def test_preferred_port_is_taken_where_it_is_free() -> None:
    preferred = a_port()
    assert free_port(preferred) == preferred
