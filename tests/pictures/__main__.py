"""Draws docs/images/dashboard-*.png. Example: python -m tests.pictures --only fleet --out /tmp."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.embedded.timescale import EmbeddedTimescale
from services.store.connect import Connection
from tests.pictures import fleet, host
from tests.pictures.page import Page, save
from tests.support.database import migrated
from tests.support.grafana_dashboards import committed

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
MOST: Final = 250_000
"""Bytes of a picture: a page of documentation loads at once."""


@dataclass(frozen=True, slots=True)
class Picture:
    uid: str
    fill: Callable[[Connection, dt.datetime], Any]
    chosen: Mapping[str, str | None]
    """Variables; None: All."""
    upto: str
    """Title of the row at which the picture ends."""


PICTURES: Final = {
    "host": Picture("gpu-telemetry", host.fill, {"host": host.HOST}, "Clocks"),
    "fleet": Picture("gpu-fleet", fleet.fill, {}, "Inventory"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--only", choices=sorted(PICTURES))
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder (default: docs/images)")
    args = parser.parse_args()
    for name in [args.only] if args.only else sorted(PICTURES):
        path = args.out / f"dashboard-{name}.png"
        sys.stdout.write(f"{path}: {_draw(PICTURES[name], path)} bytes\n")
    return 0


def _draw(picture: Picture, path: Path) -> int:
    boards = {board.uid: board for board in committed()}
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    end = now - dt.timedelta(seconds=now.second % 10)
    with EmbeddedTimescale() as server, migrated(server.dsn) as connection:
        picture.fill(connection, end)
        page = Page(connection, boards[picture.uid], end, picture.chosen)
        path.parent.mkdir(parents=True, exist_ok=True)
        return save(page.figure(picture.upto), path, MOST)


if __name__ == "__main__":
    sys.exit(main())
