"""The documentation's pictures of the dashboards."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.pictures.__main__ import IMAGES, MOST, PICTURES
from tests.support.grafana_dashboards import committed


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_there_and_load_at_once(name: str) -> None:
    path = IMAGES / f"dashboard-{name}.png"
    assert path.stat().st_size <= MOST
    with Image.open(path) as image:
        assert image.size == PICTURES[name].size


def test_pictures_are_of_committed_dashboards() -> None:
    boards = {board.uid: board for board in committed()}
    for picture in PICTURES.values():
        assert set(picture.chosen) <= {variable["name"] for variable in boards[picture.uid].variables}
