"""Basic authentication: who is let in, what it costs, and what is kept."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter

import bcrypt
import pytest

from services.exporter.web.basic_auth import KEPT, BasicAuth

CHEAP = 4
"""bcrypt's lowest cost: 1 ms."""
HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(CHEAP)).decode()


def header(user: str = "prometheus", password: str | bytes = "secret") -> str:
    raw = password if isinstance(password, bytes) else password.encode()
    return "Basic " + base64.b64encode(user.encode() + b":" + raw).decode()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Hash -> how often bcrypt was run against it."""
    counted: Counter[bytes] = Counter()
    real = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        counted[hashed] += 1
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    return counted


def ask(auth: BasicAuth, *headers: str | None) -> list[bool]:
    async def all_of_them() -> list[bool]:
        return [await auth.allows(text) for text in headers]

    return asyncio.run(all_of_them())


def test_the_right_password_only() -> None:
    auth = BasicAuth({"prometheus": HASH, "other": bcrypt.hashpw(b"else", bcrypt.gensalt(CHEAP)).decode()})
    told = ask(auth, header(), header(password="wrong"), header("nobody"), header("other"), header("other", "else"))
    assert told == [True, False, False, False, True]


@pytest.mark.parametrize("form", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_all_makers(form: str) -> None:
    assert ask(BasicAuth({"prometheus": form + HASH[4:]}), header()) == [True]


@pytest.mark.parametrize(
    "value",
    [
        None, "", "Basic", "Basic ", "Bearer abc", "Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Digest username=prometheus",
    ],
)  # fmt: skip
def test_what_is_no_credential_is_refused_without_a_check(value: str | None, checks: Counter[bytes]) -> None:
    assert ask(BasicAuth({"prometheus": HASH}), value) == [False]
    assert not checks


def test_scheme_in_any_case_and_a_password_with_colons() -> None:
    auth = BasicAuth({"p": bcrypt.hashpw("a:b:ü".encode(), bcrypt.gensalt(CHEAP)).decode()})
    assert ask(auth, header("p", "a:b:ü").replace("Basic", "bASIC")) == [True]


def test_an_answer_is_kept_right_or_wrong(checks: Counter[bytes]) -> None:
    auth = BasicAuth({"prometheus": HASH})
    assert ask(auth, *[header()] * 5) == [True] * 5
    assert checks[HASH.encode()] == 1
    assert ask(auth, *[header(password="wrong")] * 5) == [False] * 5
    assert checks[HASH.encode()] == 2


def test_no_password_is_kept() -> None:
    auth = BasicAuth({"prometheus": HASH})
    ask(auth, header(password="a password that is long enough"))
    assert b"long enough" not in repr(vars(auth)).encode()
    assert all(len(digest) == 32 for digest in auth._answers)


def test_an_unknown_user_costs_a_check_of_the_same_price(checks: Counter[bytes]) -> None:
    costly = bcrypt.hashpw(b"x", bcrypt.gensalt(CHEAP + 1)).decode()
    auth = BasicAuth({"prometheus": HASH, "costly": costly})
    ask(auth, header("nobody"))
    (dummy,) = checks
    assert dummy.split(b"$")[2] == b"05"
    assert ask(auth, header("nobody"), header("nobody", "")) == [False, False]


def test_guesses_do_not_fill_the_memory() -> None:
    auth = BasicAuth({"prometheus": HASH})
    ask(auth, *(header(password=str(number)) for number in range(KEPT + 20)))
    assert len(auth._answers) == KEPT


def test_many_at_once_check_once(checks: Counter[bytes]) -> None:
    auth = BasicAuth({"prometheus": HASH})

    async def at_once() -> list[bool]:
        return await asyncio.gather(*(auth.allows(header()) for _ in range(20)))

    assert asyncio.run(at_once()) == [True] * 20
    assert checks[HASH.encode()] == 1


def test_bytes_beyond_bcrypts_72_do_not_count() -> None:
    auth = BasicAuth({"p": bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(CHEAP)).decode()})
    assert ask(auth, header("p", "a" * 100), header("p", "a" * 71)) == [True, False]


def test_a_password_with_a_nul_is_just_wrong() -> None:
    assert ask(BasicAuth({"prometheus": HASH}), header(password=b"sec\x00ret")) == [False]
