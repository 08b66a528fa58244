"""`docker/.env.example` lists every setting, with its true default, and nothing that nobody reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.settings import Settings

DOCKER = Path(__file__).parents[3] / "docker"
LINE = re.compile(r"^(?P<off>#?)(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)$")
COMPOSE_ITSELF = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}


def entries() -> dict[str, tuple[bool, str]]:
    """Variable -> (active, value)."""
    found: dict[str, tuple[bool, str]] = {}
    for line in (DOCKER / ".env.example").read_text().splitlines():
        if match := LINE.match(line):
            assert match["name"] not in found, f"{match['name']} is listed twice"
            found[match["name"]] = (not match["off"], match["value"])
    return found


def interpolated() -> set[str]:
    """Variables that docker-compose.yml reads by `${...}`."""
    return set(re.findall(r"\$\{([A-Z0-9_]+)", (DOCKER / "docker-compose.yml").read_text()))


def test_it_lists_exactly_the_settings_and_what_compose_reads() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    assert set(entries()) == settings | interpolated() | COMPOSE_ITSELF


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_default_shown_is_the_default(name: str) -> None:
    active, shown = entries()[name.upper()]
    assert not active, "a default that is written down active would hide a later change of the default"
    default = Settings.model_fields[name].default
    if default in (None, ()):
        assert shown == ""
    else:
        # Read back the way the environment is read, so that 10 and 10.0, a path and its text compare equal.
        read = Settings.model_validate({name: shown}), Settings.model_validate({name: default})
        assert getattr(read[0], name) == getattr(read[1], name)


def test_no_secret_has_a_value() -> None:
    secrets = {name: value for name, (_, value) in entries().items() if "PASSWORD" in name or name.endswith("DSN")}
    assert len(secrets) >= 5
    assert set(secrets.values()) == {""}


def test_every_variable_is_explained() -> None:
    """A comment stands above each variable or above the group it belongs to."""
    previous = ""
    for line in (DOCKER / ".env.example").read_text().splitlines():
        if LINE.match(line):
            assert previous.startswith("#") or LINE.match(previous), f"nothing explains {line}"
        previous = line


def test_intervals_say_their_unit() -> None:
    text = (DOCKER / ".env.example").read_text()
    for name in ("COLLECTION_INTERVAL", "BATCH_TIMEOUT", "MAX_FUTURE", "POLL_INTERVAL", "KAFKA_DELIVERY_TIMEOUT"):
        above = text.split(f"#{name}=")[0].splitlines()[-1]
        assert "econds" in above, f"{name}: unit missing in {above!r}"
