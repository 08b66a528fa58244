"""Values of the GPU dashboard, computed a second time in Python."""

from __future__ import annotations

import pytest

from tests.integration.dashboards.dataset import A100_HOST, HOUR, MINUTE, P40_HOST, SECOND, a100
from tests.integration.dashboards.story import Story, between, panel
from tests.support.database import insert

pytestmark = pytest.mark.timescale

CARD_UID = "gpu-detail"


def test_a_pod_that_came_back_is_a_stay_again(story: Story) -> None:
    gpu = story.data.gpu_ids[a100(3)]
    end = story.data.end + 3 * MINUTE
    with story.connection.transaction(force_rollback=True):
        pods = ("a", "a", "b", None, "a")
        times = [story.data.end + MINUTE + number * 10 * SECOND for number in range(len(pods))]
        insert(
            story.connection,
            [
                {"time": time, "gpu_id": gpu, "pod": pod, "namespace": "n"}
                for time, pod in zip(times, pods, strict=True)
            ],
        )
        choice = {"host": A100_HOST, "gpu": str(gpu)}
        stays = between(story, panel(CARD_UID, "Tenants within the time range"), times[0], end, choice)
        bands = between(story, panel(CARD_UID, "Tenants"), times[0], end, choice)
    assert stays.rows == [
        ("n", "a", None, times[4], times[4], 1),
        ("n", "b", None, times[2], times[2], 1),
        ("n", "a", None, times[0], times[1], 2),
    ]
    assert bands.rows == [(times[0], "a"), (times[2], "b"), (times[3], None), (times[4], "a")]


def test_of_a_band_only_changes_are_sent(story: Story) -> None:
    """Six hours of one pod are thousands of rows, and one state."""
    gpu = story.data.gpu_ids[a100(1)]
    choice = {"host": A100_HOST, "gpu": str(gpu)}
    result = between(story, panel(CARD_UID, "Tenants"), story.data.end - 6 * HOUR, story.data.end, choice)
    pods = result.column("pod")
    assert len(pods) == 1
    assert pods != [None]


def test_a_band_without_any_state_still_has_a_row(story: Story) -> None:
    """An answer without rows is an error to Grafana."""
    gpu = next(row["gpu_id"] for row in story.data.rows if row["host"] == P40_HOST)
    choice = {"host": P40_HOST, "gpu": str(gpu)}
    result = between(story, panel(CARD_UID, "Tenants"), story.data.end - 6 * HOUR, story.data.end, choice)
    assert result.column("pod") == [None]
