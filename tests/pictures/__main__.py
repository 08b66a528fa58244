"""Takes docs/images/dashboard-*.png in a running Grafana, of data of the mock.

Needs GPUMON_GRAFANA=http://user:password@host:port (an admin of a Grafana on this very machine, as the database listens
on 127.0.0.1 only; a data source and a dashboard are made there and deleted again) and Chromium.
Example: GPUMON_GRAFANA=http://admin:admin@127.0.0.1:3000 python -m tests.pictures --only fleet --out /tmp
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from services.embedded.timescale import EmbeddedTimescale
from services.store.connect import Connection
from tests.pictures import fleet, host
from tests.pictures.signed_in import signed_in
from tests.support.database import migrated
from tests.support.grafana_dashboards import committed
from tests.support.real_grafana import RealGrafana

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
MOST: Final = 250_000
"""Bytes of a picture: a page of documentation loads at once."""
PATIENCE: Final = 60_000
"""ms of the page's own clock, which runs ahead while it waits for nothing: until every panel has its answer."""
LIMIT: Final = 300
"""s for Chromium altogether: ten times what it takes."""
COLOURS: Final = 160
"""Below that the shades of areas and doughnuts fall together."""


@dataclass(frozen=True, slots=True)
class Picture:
    uid: str
    fill: Callable[[Connection, dt.datetime], Any]
    chosen: Mapping[str, str]
    size: tuple[int, int]
    """Pixels."""


PICTURES: Final = {
    "host": Picture("gpu-telemetry", host.fill, {"host": host.HOST}, (1500, 1330)),
    "fleet": Picture("gpu-fleet", fleet.fill, {}, (1500, 2040)),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(PICTURES))
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder (default: docs/images)")
    parser.add_argument("--browser", default="chromium", help="Chromium's command (default: %(default)s)")
    args = parser.parse_args()
    try:
        grafana = RealGrafana.of_environment()
    except ValueError as error:
        parser.error(str(error))
    for name in [args.only] if args.only else sorted(PICTURES):
        path = args.out / f"dashboard-{name}.png"
        sys.stdout.write(f"{path}: {_take(grafana, PICTURES[name], path, args.browser)} bytes\n")
    return 0


def _take(grafana: RealGrafana, picture: Picture, path: Path, browser: str) -> int:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    end = now - dt.timedelta(seconds=now.second % 10)
    guest = f"pictures-{uuid.uuid4().hex[:8]}"
    (board,) = (board for board in committed() if board.uid == picture.uid)
    with EmbeddedTimescale() as server, migrated(server.dsn) as connection:
        picture.fill(connection, end)
        connection.close()
        with grafana.database(guest, server.dsn, "gpu-telemetry (mock)"), tempfile.TemporaryDirectory() as folder:
            document = {**board.document, "uid": guest, "title": guest, "id": None}
            saved = grafana.call("POST", "/api/dashboards/db", {"dashboard": document})
            try:
                if saved.get("status") != "success":
                    raise RuntimeError(f"Grafana does not take {picture.uid}: {saved}")
                _photograph(grafana, picture, guest, taken := Path(folder) / path.name, browser)
            finally:
                grafana.call("DELETE", f"/api/dashboards/uid/{guest}")
            return _shrink(taken, path)


def _photograph(grafana: RealGrafana, picture: Picture, guest: str, path: Path, browser: str) -> None:
    chosen = "".join(f"&var-{name}={value}" for name, value in picture.chosen.items())
    width, height = picture.size
    with signed_in(*grafana.address, grafana.authorization) as base, tempfile.TemporaryDirectory() as profile:
        url = f"{base}/d/{guest}?kiosk&theme=light&refresh=&timezone=utc&var-GRAFANA_DS_UID={guest}{chosen}"
        command = [
            browser, "--headless=new", "--no-sandbox",  # as root Chromium has no sandbox
            "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--virtual-time-budget={PATIENCE}",
            f"--screenshot={path.resolve()}", url,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)


def _shrink(taken: Path, path: Path) -> int:
    """To `COLOURS`, in its place. Bytes. Raises ValueError above `MOST`."""
    with Image.open(taken) as image:
        image.convert("RGB").quantize(colors=COLOURS, dither=Image.Dither.NONE).save(taken, optimize=True)
    size = taken.stat().st_size
    if size > MOST:
        raise ValueError(f"{path}: {size} bytes, more than {MOST}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(taken, path)
    return size


if __name__ == "__main__":
    sys.exit(main())
