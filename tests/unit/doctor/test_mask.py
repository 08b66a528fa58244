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
        f"mysql -h db -u root -p{SECRET} -e x",
        f"tool --password {SECRET} run",
        f"curl -u admin:{SECRET} http://x",
        f"Authorization: token {SECRET}",
        f"PASSWD {SECRET}",
        f"pwd={SECRET}",
        f"https://blob/x?sv=1&sig={SECRET}&se=2",
        f"root=/dev/sda rd.luks.key={SECRET} quiet",
        f"PGPASS {SECRET}",
        f"postgresql://u:{SECRET}/with/slash@db/x",
        "remote: ghp_0123456789abcdefABCDEF",
        "AWS AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_is_hidden(text: str) -> None:
    masked = mask(text)
    assert SECRET not in masked
    assert "***" in masked


def test_known_secrets_are_hidden_wherever_they_stand() -> None:
    assert mask("argv: psql -c x hunter22", ("hunter22",)) == "argv: psql -c x ***"


def test_the_rest_stays() -> None:
    text = (
        "NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3\nLnkSta: Speed 8GT/s, Width x4\nurl http://db:5432/x\n"
        "tcp LISTEN 127.0.0.1:5432 users\nkeyboard: none of these words\n"
    )
    assert mask(text) == text
