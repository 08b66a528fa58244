"""Who used a GPU and for what, per hour: exact to the minute."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from typing import Any

import pytest

from services.store.connect import Connection
from services.store.policies import REFRESH
from tests.support.database import insert, refresh, register, rows_of, run_job, value_of

pytestmark = pytest.mark.timescale

MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)
START = dt.datetime(2026, 3, 1, 22, 0, tzinfo=dt.UTC)
SAID = ("status_tag", "status_memo", "namespace", "pod", "container")
Said = tuple[str | None, ...]
Sample = dict[str, Any]


def random_samples(source: random.Random, gpu: int) -> list[Sample]:
    """Five hours at 20 s, with silences, of tags, memos and pods that change at any sample; values may be missing."""
    said: Said = (None,) * len(SAID)
    samples: list[Sample] = []
    for step in range(900):
        if source.random() < 0.02:
            said = tuple(source.choice((None, "a", "b")) for _ in SAID)
        if step % 300 < 250:
            values = {"gpu_temp": source.randint(20, 90), "power_usage": source.uniform(50, 400), "gpu_util": 50}
            known = {name: value for name, value in values.items() if source.random() < 0.9}
            time = START + step * dt.timedelta(seconds=20)
            samples.append({"time": time, "gpu_id": gpu, **dict(zip(SAID, said, strict=True)), **known})
    return samples


def expected(samples: list[Sample]) -> dict[tuple[dt.datetime, Said], list[Sample]]:
    """(hour, what was said) -> samples; those of a minute belong to what its last sample says."""
    minutes: defaultdict[dt.datetime, list[Sample]] = defaultdict(list)
    for sample in samples:
        minutes[sample["time"].replace(second=0)].append(sample)
    found: defaultdict[tuple[dt.datetime, Said], list[Sample]] = defaultdict(list)
    for minute, rows in minutes.items():
        found[minute.replace(minute=0), tuple(rows[-1][name] for name in SAID)] += rows
    return found


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "when asked for"])
@pytest.mark.parametrize("seed", range(3))
def test_an_hour_has_a_row_for_each_status_and_tenant(connection: Connection, seed: int, stored: bool) -> None:
    samples = random_samples(random.Random(seed), register(connection, START))
    insert(connection, samples)
    if stored:
        refresh(connection)
    rows = rows_of(connection, "SELECT * FROM gpu_usage_1hour")
    wanted = expected(samples)
    assert len(wanted) > 15
    assert {(row["bucket"], tuple(row[name] for name in SAID)) for row in rows} == set(wanted)
    for row in rows:
        of = wanted[row["bucket"], tuple(row[name] for name in SAID)]
        temps = [sample["gpu_temp"] for sample in of if "gpu_temp" in sample]
        watts = [sample["power_usage"] for sample in of if "power_usage" in sample]
        assert (row["since"], row["until"]) == tuple(s["time"].replace(second=0) for s in (of[0], of[-1]))
        assert row["samples"] == len(of)
        assert (row["count_gpu_temp"], row["min_gpu_temp"], row["max_gpu_temp"]) == (
            len(temps), min(temps, default=None), max(temps, default=None),
        )  # fmt: skip
        assert row["sum_gpu_temp"] == (sum(temps) if temps else None)
        assert row["sum_power_usage"] == (pytest.approx(sum(watts)) if watts else None)
        assert row["count_power_usage"] == len(watts)
        assert row["count_gpu_util"] * 50 == (row["sum_gpu_util"] or 0)


def test_it_outlives_rows_and_minutes(connection: Connection, now: dt.datetime) -> None:
    hour = now.replace(minute=0, second=0, microsecond=0) - 50 * HOUR
    gpu = register(connection, hour)
    for number, tag in enumerate(("idle", "bench", "idle")):
        insert(connection, [{"time": hour + number * 10 * MINUTE, "gpu_id": gpu, "status_tag": tag}])
    insert(connection, [{"time": now, "gpu_id": gpu}])
    for level in ("gpu_metrics_1min", "gpu_usage_1hour"):
        run_job(connection, REFRESH, level)  # its policy reaches back as far as minutes are kept
    for relation in ("gpu_metrics", "gpu_metrics_1min"):
        connection.execute(f"SELECT drop_chunks('{relation}', older_than => now() - INTERVAL '1 day')".encode())
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics_1min WHERE bucket < now() - INTERVAL '1 day'") == 0
    found = rows_of(connection, "SELECT status_tag, since, until FROM gpu_usage_1hour WHERE bucket = %s ORDER BY 2",
                    (hour,))  # fmt: skip
    assert [tuple(row.values()) for row in found] == [
        ("idle", hour, hour + 20 * MINUTE),
        ("bench", hour + 10 * MINUTE, hour + 10 * MINUTE),
    ]
