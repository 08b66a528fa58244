"""`python -m grafana.build` writes the dashboards' JSON beside this file; `--check` only says whether it is up to date.

Example: python -m grafana.build --check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import fleet, gpu, host, pipeline

FOLDER: Final = Path(__file__).parent
DASHBOARDS: Final = MappingProxyType[str, Callable[[], Dashboard]](
    {
        "gpu-telemetry.json": host.build,
        "gpu-fleet.json": fleet.build,
        "gpu-detail.json": gpu.build,
        "gpu-pipeline.json": pipeline.build,
    }
)
"""File -> what builds it. The names of files are the dashboards' uids."""


def text(dashboard: Dashboard) -> str:
    """The file as committed: sorted, so that a diff shows what changed and nothing else."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(dashboard) + "\n"


def outdated(folder: Path) -> list[str]:
    """Files that differ from what the code builds, or are missing."""
    return [
        name
        for name, build in DASHBOARDS.items()
        if not (folder / name).exists() or (folder / name).read_text() != text(build())
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m grafana.build", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check: bool = parser.parse_args(arguments).check
    stale = outdated(FOLDER)
    for name in stale:
        if check:
            sys.stderr.write(f"grafana/{name} is not what the code builds: run `make dashboards`\n")
        else:
            (FOLDER / name).write_text(text(DASHBOARDS[name]()))
            sys.stdout.write(f"wrote grafana/{name}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
