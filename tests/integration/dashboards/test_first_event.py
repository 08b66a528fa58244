"""A counter that appears with its first event: the event is in the bar."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.grafana_dashboards import Source, committed
from tests.support.prerequisites import missing

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
    checks = [
        {
            "expr": expression(),
            "eval_time": f"{minute}m30s",
            "exp_samples": [] if value is None else [{"labels": '{sqlstate="57P01"}', "value": value}],
        }
        for minute, value in minutes.items()
    ]
    test = {
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": checks}],
    }
    (tmp_path / "bars.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", "bars.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def twice(values: str) -> list[str]:
    """A value for each half minute."""
    if "+0x" in values:
        first, _, count = values.partition("+0x")
        return [first] * (2 * int(count) + 2)
    return [value for value in values.split() for _ in range(2)]
