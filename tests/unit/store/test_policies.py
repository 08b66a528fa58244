"""Policies from settings: windows that cannot erase history, whatever the retentions are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.settings import load, seconds
from services.store.connect import StoreError
from services.store.policies import (
    COMPRESS_SCHEDULE,
    COMPRESSION,
    DAY,
    HOUR,
    LEVELS,
    REFRESH,
    RETENTION,
    Policy,
    desired,
    refresh_starts,
)


def by_relation(kind: str, policies: tuple[Policy, ...]) -> dict[str, Policy]:
    return {policy.relation: policy for policy in policies if policy.kind == kind}


def test_defaults() -> None:
    settings = load()
    policies = desired(settings)
    compression, retention, refresh = (by_relation(kind, policies) for kind in (COMPRESSION, RETENTION, REFRESH))
    assert compression["gpu_metrics"].config == {"compress_after": HOUR}
    assert {name: policy.config["drop_after"] / DAY for name, policy in retention.items()} == {
        "gpu_metrics": 7,
        "gpu_metrics_1min": 30,
        "gpu_metrics_1hour": 365,
        "gpu_metrics_1day": 3650,
        "gpu_usage_1hour": 365,
        "gpu_health_scores": 365,
        "gpu_failure_predictions": 3650,
    }
    assert refresh["gpu_usage_1hour"].config == {"start_offset": 30 * DAY - HOUR, "end_offset": 300}
    assert refresh["gpu_metrics_1min"].config == {"start_offset": 7 * DAY - HOUR, "end_offset": 60}


def test_a_row_is_in_the_columnstore_within_two_hours() -> None:
    settings = load()
    latest = seconds(settings.chunk_interval) + seconds(settings.compress_after) + COMPRESS_SCHEDULE
    assert latest <= 2 * HOUR


def test_settings_reach_the_policies() -> None:
    settings = load(compress_after="2 hours", retention="14 days", max_age=86400)
    policies = desired(settings)
    assert by_relation(COMPRESSION, policies)["gpu_metrics"].config == {"compress_after": 2 * HOUR}
    assert by_relation(RETENTION, policies)["gpu_metrics"].config == {"drop_after": 14 * DAY}
    assert by_relation(REFRESH, policies)["gpu_metrics_1min"].config["start_offset"] == 14 * DAY - HOUR


def test_late_rows_are_refreshed_as_long_as_the_sink_takes_them() -> None:
    settings = load()
    for policy in by_relation(REFRESH, desired(settings)).values():
        assert policy.config["start_offset"] >= settings.max_age


retentions = st.lists(st.floats(4 * DAY, 4000 * DAY), min_size=4, max_size=4).map(sorted)


@given(retentions)
def test_no_refresh_reaches_what_its_source_may_have_dropped(kept: list[float]) -> None:
    raw, minutes, hours, days = kept
    starts = refresh_starts(raw, (minutes, hours, days)) if hours >= 5 * DAY else ()
    for start, source in zip(starts, (raw, minutes, hours), strict=False):
        assert start < source


@given(retentions)
def test_each_level_reaches_back_over_what_changed_below_unless_its_source_is_gone(kept: list[float]) -> None:
    raw, minutes, hours, days = kept
    if hours < 5 * DAY:
        return
    starts = refresh_starts(raw, (minutes, hours, days))
    sources = (raw, minutes, hours)
    for level, ((_, bucket, _), start) in enumerate(zip(LEVELS, starts, strict=True)):
        assert start >= 4 * bucket
        if level and start < sources[level] - HOUR:
            assert start >= starts[level - 1] + 2 * bucket


def test_retention_too_short_to_build_days_from_is_refused() -> None:
    with pytest.raises(StoreError, match=r"RETENTION_1HOUR of 86400 s is too short to build gpu_metrics_1day"):
        refresh_starts(DAY, (DAY, DAY, DAY))


def test_no_two_policies_start_together() -> None:
    policies = desired(load())
    for one, other in itertools.combinations(policies, 2):
        shorter = min(one.schedule, other.schedule)
        assert (one.delay - other.delay) % shorter >= 1, (str(one), str(other))
