"""What must not leave the host."""

from __future__ import annotations

import pytest

from services.doctor.mask import mask

SECRET = "s3cr3t-Value_9"


@pytest.mark.parametrize(
    "text",
    [
        f"PGPASSWORD={SECRET}",
        f'password: "{SECRET}"',
        f"postgresql://gpu:{SECRET}@db:5432/x",
        f"https://user:{SECRET}@host/path",
        f"Authorization: Basic {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"SLACK_TOKEN={SECRET} next",
        f"api-key = {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n(cut off",
        f"host=db password='{SECRET}' dbname=x",
    ],
)
def test_is_hidden(text: str) -> None:
    masked = mask(text)
    assert SECRET not in masked
    assert "***" in masked


def test_known_secrets_are_hidden_wherever_they_stand() -> None:
    assert mask("argv: psql -c x hunter22", ("hunter22",)) == "argv: psql -c x ***"


def test_the_rest_stays() -> None:
    text = "NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3\nLnkSta: Speed 8GT/s, Width x4\nurl http://db:5432/x"
    assert mask(text) == text
