"""Text of others on a terminal: visible, in one line, not without end, without our secrets."""

from __future__ import annotations

import pytest

from services.grafana.address import parse
from services.grafana.client import Grafana
from services.grafana.errors import GrafanaError
from services.grafana.reasons import redirected
from services.grafana.words import LINE, fit, hidden, listed, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain  and\nlong\t", "plain and long"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\udcff", "\\udcff"),
        ("監視 °C", "監視 °C"),
        ("", ""),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert fit(f"a   {text.strip()}").startswith("a   ")
    assert "\n" not in fit(text)


def test_lengths() -> None:
    assert visible("x" * 100, 100) == "x" * 100
    assert visible("x" * 101, 100) == f"{'x' * 99}…"
    assert len(visible("\x1b" * 10_000)) == 100
    assert len(fit("x" * 100_000)) == LINE
    assert listed(["a", "b"]) == "a, b"
    assert listed(str(n) for n in range(25)).endswith("19 and 5 more")


def test_a_secret_is_hidden_before_anything_is_cut() -> None:
    """Half a secret is one too."""
    grafana = Grafana("http://h", None)
    grafana.hide("s3cret-s3cret")
    for before in range(280, 301):
        assert "s3c" not in grafana._short("x" * before + "s3cret-s3cret")


def test_the_longer_secret_is_hidden_first() -> None:
    assert hidden("abcdef", ["abc", "abcdef"]) == "***"


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("/d/x/y", "http://h:3000/d/x/y"),
        ("/grafana/d/x", "http://h:3000/grafana/d/x"),
        ("//evil/x", None),
        ("/\\evil", None),
        ("@evil", None),
        ("javascript:x", None),
        ("", None),
        (None, None),
    ],
)
def test_links_stay_with_the_server(path: str | None, link: str | None) -> None:
    assert Grafana("http://u:p@h:3000/grafana", None).link(path) == link


@pytest.mark.parametrize(
    ("url", "bare", "origin"),
    [
        ("http://h", "http://h", "http://h"),
        (" http://h:3000/ ", "http://h:3000", "http://h:3000"),
        ("https://u:p%40@my_host.example./a/b/", "https://my_host.example./a/b", "https://my_host.example."),
        ("http://[::1]:3000/x", "http://[::1]:3000/x", "http://[::1]:3000"),
        ("http://[fe80::1%25eth0]", "http://[fe80::1%25eth0]", "http://[fe80::1%25eth0]"),
        ("http://bücher.example", "http://bücher.example", "http://bücher.example"),
        (f"http://{'a' * 63}.example", f"http://{'a' * 63}.example", f"http://{'a' * 63}.example"),
    ],
)
def test_addresses(url: str, bare: str, origin: str) -> None:
    found = parse(url)
    assert (found.url, found.origin) == (bare, origin)
    assert found.login is None or found.login.password == "p@"


@pytest.mark.parametrize("url", ["http://u:pa/ss@h?x", "u:pa@ss@h:1", "https://u:pa\nss@h"])
def test_no_login_of_a_bad_address_is_shown(url: str) -> None:
    with pytest.raises(GrafanaError) as refused:
        parse(url)
    assert "pa" not in str(refused.value).partition(" is not")[0]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/grafana/api/health", "try --url http://h/grafana"),
        ("https://h/api/health", "try --url https://h"),
        ("http://h/api/health", "root_url"),
        ("", "root_url"),
        ("https://u:p@idp.example/sign-in?x=y#z", "(https://idp.example/sign-in)"),
    ],
)
def test_redirects(location: str, words: str) -> None:
    assert words in redirected(location, "http://h", "http://h")
