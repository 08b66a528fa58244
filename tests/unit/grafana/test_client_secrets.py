"""A server may repeat what it was sent, in the way JSON, a URL or HTML write it."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest

from services.grafana.client import Grafana

SECRET = 'pa"ss\\w&rd'


@pytest.mark.parametrize(
    "form", [SECRET, json.dumps({"password": SECRET}), quote(SECRET, safe=""), f"<b>{html.escape(SECRET)}</b>"]
)
def test_a_secret_that_was_sent_is_hidden_in_every_form(form: str) -> None:
    grafana = Grafana("http://127.0.0.1:3000", None)
    grafana.hide(SECRET)
    cleaned = grafana._clean(f"server says {form}")
    assert "***" in cleaned
    assert "w&rd" not in cleaned
    assert "w%26rd" not in cleaned
    assert "w&amp;rd" not in cleaned
