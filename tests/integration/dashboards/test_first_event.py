"""A counter that appears with its first event: the event is in the bar."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.grafana_dashboards import Source, committed
from tests.support.prerequisites import missing

Series = dict[str, str]
Check = dict[str, object]
METRIC = "gpumon_sink_retries_total"
LABELS = '{job="sink", instance="a", sqlstate="57P01"}'


@pytest.fixture(scope="module")
def promtool() -> str:
    return shutil.which("promtool") or missing("prometheus", "needs promtool: apt-get install prometheus")


def expression() -> str:
    (retries,) = (q for d in committed() for q in d.queries() if q.source is Source.PROMETHEUS and q.title == "Retries")
    assert METRIC in retries.sql
    return retries.sql.replace("$__interval", "1m")


@pytest.mark.parametrize(
    ("up", "counter", "minutes"),
    [
        ("1+0x8", "_ _ _ 1 1 1 3 3 3", {2: None, 3: 1, 4: 0, 6: 2}),
        ("_ _ _ 1 1 1 1 1 1", "_ _ _ 7 7 7 7 7 7", {2: None, 3: 0, 4: 0}),  # Prometheus is new, not the events
        ("1+0x8", "4 4 4 0 0 1 1 1 1", {3: 0, 5: 1}),  # the process started again
    ],
    ids=["first event", "first scrape", "restart"],
)
def test_bars_of_a_counter(
    promtool: str, tmp_path: Path, up: str, counter: str, minutes: dict[int, float | None]
) -> None:
    """Scraped every 30 s; what counts is the minute before."""
    values = {'up{job="sink", instance="a"}': up, METRIC + LABELS: counter}
    series = [{"series": name, "values": " ".join(twice(each))} for name, each in values.items()]
    run_rules(promtool, tmp_path, series, {m: {} if v is None else {"57P01": v} for m, v in minutes.items()})


ALIVE = 'gpumon_sink_partitions_assigned{job="sink", instance="a"}'


def test_none_is_said_only_while_the_sink_was_scraped(promtool: str, tmp_path: Path) -> None:
    """Scraped in minutes 0 to 2 and 5 to 8, an event in minute 7; nobody looked in between."""
    values = {'up{job="sink", instance="a"}': "1 1 1 _ _ 1 1 1 1", ALIVE: "4 4 4 _ _ 4 4 4 4",
              METRIC + LABELS: "_ _ _ _ _ _ _ 1 1"}  # fmt: skip
    series = [{"series": name, "values": " ".join(twice(each))} for name, each in values.items()]
    none, event = {"none": 0.0}, {"57P01": 1.0}
    run_rules(promtool, tmp_path, series, {1: none, 2: none, 4: {}, 6: none, 7: event, 8: {"57P01": 0.0}})


def test_bands_end_where_scrapes_end(promtool: str, tmp_path: Path) -> None:
    """Prometheus was away for three minutes: nothing marks the series as ended."""
    (services,) = (q.sql for d in committed() for q in d.queries() if q.title == "Services")
    values = [*["1"] * 8, *["_"] * 6, *["1"] * 6]
    series = [{"series": 'up{job="sink", instance="a"}', "values": " ".join(values)}]
    labels = '{job="sink", instance="a"}'
    checks: list[Check] = [
        {"expr": services.replace("$__rate_interval", "1m"), "eval_time": at,
         "exp_samples": [{"labels": labels, "value": 1}] if up else []}
        for at, up in {"3m30s": True, "5m": False, "6m30s": False, "7m": True}.items()
    ]  # fmt: skip
    run(promtool, tmp_path, series, checks)


def run_rules(promtool: str, directory: Path, series: list[Series], minutes: dict[int, dict[str, float]]) -> None:
    """What the bars are at the middle of each minute, by SQLSTATE."""
    checks: list[Check] = [
        {
            "expr": expression(),
            "eval_time": f"{minute}m30s",
            "exp_samples": [{"labels": f'{{sqlstate="{state}"}}', "value": value} for state, value in bars.items()],
        }
        for minute, bars in minutes.items()
    ]
    run(promtool, directory, series, checks)


def run(promtool: str, directory: Path, series: list[Series], checks: list[Check]) -> None:
    test = {
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": checks}],
    }
    (directory / "bars.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", "bars.yml"], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def twice(values: str) -> list[str]:
    """A value for each half minute."""
    if "+0x" in values:
        first, _, count = values.partition("+0x")
        return [first] * (2 * int(count) + 2)
    return [value for value in values.split() for _ in range(2)]
