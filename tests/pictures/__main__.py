"""Takes docs/images/dashboard-*.png in a running Grafana, of data of the mock.

Needs GPUMON_GRAFANA=http://user:password@host:port (a Grafana that reaches this machine) and Chromium.
Example: GPUMON_GRAFANA=http://admin:admin@127.0.0.1:3000 python -m tests.pictures --only fleet --out /tmp
"""

from __future__ import annotations

import argparse
import datetime as dt
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
from tests.support.real_grafana import RealGrafana, need_grafana

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
MOST: Final = 250_000
"""Bytes of a picture: a page of documentation loads at once."""
PATIENCE: Final = 60_000
"""ms of the page's own clock, which runs ahead while it waits for nothing: until every panel has its answer."""


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
    grafana = need_grafana()
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
        grafana.add_database(guest, server.dsn, "gpu-telemetry (mock)")
        document = {**board.document, "uid": guest, "title": guest, "id": None}
        grafana.call("POST", "/api/dashboards/db", {"dashboard": document})
        try:
            _photograph(grafana, picture, guest, path, browser)
        finally:
            grafana.call("DELETE", f"/api/dashboards/uid/{guest}")
            grafana.call("DELETE", f"/api/datasources/uid/{guest}")
    return _shrink(path)


def _photograph(grafana: RealGrafana, picture: Picture, guest: str, path: Path, browser: str) -> None:
    chosen = "".join(f"&var-{name}={value}" for name, value in picture.chosen.items())
    width, height = picture.size
    path.parent.mkdir(parents=True, exist_ok=True)
    with signed_in(*grafana.address, grafana.authorization) as base, tempfile.TemporaryDirectory() as profile:
        url = f"{base}/d/{guest}?kiosk&theme=light&refresh=&timezone=utc&var-GRAFANA_DS_UID={guest}{chosen}"
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--virtual-time-budget={PATIENCE}",
            f"--screenshot={path.resolve()}", url,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def _shrink(path: Path) -> int:
    """To at most 256 colours. Bytes. Raises ValueError above `MOST`."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(colors=160, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST:
        raise ValueError(f"{path}: {size} bytes, more than {MOST}")
    return size


if __name__ == "__main__":
    sys.exit(main())
