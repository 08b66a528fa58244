"""What the owner's own Prometheus must scrape to see a demo: jobs, named as in docker/prometheus.yml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

INTERVAL: Final = "5s"
"""Between scrapes: a demo is looked at for minutes, 15 s would show its beginning late."""
JOBS: Final = {"collector": "collector", "sink": "timescale-sink", "mock": "mock-dcgm"}
"""Role -> job: what docker/prometheus.yml calls them."""
_ABOUT: Final = """\
# gpumon demo. For a Prometheus on the same machine: alone, prometheus --config.file=THIS_FILE; of a configuration that
# is there: scrape_config_files: [THIS_FILE], or copy the jobs.
"""
_HOST_AS_INSTANCE: Final = {
    "source_labels": ["__metrics_path__"],
    "regex": "/hosts/(.+)/metrics",
    "target_label": "instance",
}
"""All hosts of the mock share one address: without it `up` would be one series for all."""


def configuration(groups: Sequence[Mapping[str, Any]], ports: Mapping[str, int]) -> str:
    """A whole prometheus.yml. `groups`: of the mock's file_sd; `ports`: of each role's /metrics.

    The targets stand in the file itself: it may be copied, and a Prometheus of another user cannot read our directory.
    """
    exporters = {"static_configs": [dict(group) for group in groups], "relabel_configs": [_HOST_AS_INSTANCE]}
    jobs = [_job("dcgm", exporters)]
    jobs += [_job(job, {"static_configs": [{"targets": [f"127.0.0.1:{ports[role]}"]}]}) for role, job in JOBS.items()]
    return _ABOUT + yaml.safe_dump({"scrape_configs": jobs}, sort_keys=False)


def _job(name: str, targets: Mapping[str, Any]) -> dict[str, Any]:
    return {"job_name": name, "scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, **targets}
