"""Which models are measured."""

from __future__ import annotations

import re

import pytest

from services.llm_bench.selection import BASELINE, CODING, Model, full_name, model_of, select

GB = 10**9
CODER = Model("qwen2.5-coder:7b", 5 * GB, "sha256:a")
STAR = Model("starcoder2:3b", 2 * GB, "sha256:b")
LLAMA = Model("codellama:13b", 7 * GB, "sha256:c")
GENERAL = Model("llama3.1:8b", 5 * GB, "sha256:d")
OTHER = Model("mistral:7b", 4 * GB, "sha256:e")
ALL = [LLAMA, CODER, OTHER, STAR, GENERAL]
REGEX = re.compile(CODING)


def names(models: list[Model]) -> list[str]:
    return [model.name for model in models]


def test_coding_models_and_baselines_smallest_first() -> None:
    chosen = select(ALL, coding=REGEX, baseline=BASELINE)
    assert names(chosen.models) == ["starcoder2:3b", "llama3.1:8b", "qwen2.5-coder:7b", "codellama:13b"]
    assert ("gemma2:9b", "baseline, not installed") in chosen.left_out
    assert chosen.missing == []


def test_one_digest_is_measured_once() -> None:
    alias = Model("my-coder:latest", CODER.size, CODER.digest)
    chosen = select([*ALL, alias], coding=REGEX, baseline=())
    assert names(chosen.models).count("my-coder:latest") + names(chosen.models).count("qwen2.5-coder:7b") == 1
    assert chosen.aliases == {"my-coder:latest": ["qwen2.5-coder:7b"]}


def test_a_baseline_that_is_a_coding_model_too_keeps_its_name_and_is_measured_once() -> None:
    alias = Model("a-coder:latest", CODER.size, CODER.digest)
    chosen = select([alias, CODER], coding=REGEX, baseline=("qwen2.5-coder:7b",))
    assert names(chosen.models) == ["qwen2.5-coder:7b"]
    assert chosen.aliases == {"qwen2.5-coder:7b": ["a-coder:latest"]}


def test_models_asked_for_and_no_others() -> None:
    chosen = select(ALL, coding=REGEX, baseline=BASELINE, asked=["mistral:7b", "gone", "codellama:13b"])
    assert names(chosen.models) == ["mistral:7b", "codellama:13b"]
    assert chosen.missing == ["gone:latest"]


def test_another_regex() -> None:
    assert names(select(ALL, coding=re.compile("^mistral"), baseline=()).models) == ["mistral:7b"]


def test_cloud_models_are_left_out() -> None:
    cloud = model_of(
        {"name": "qwen3-coder:480b-cloud", "size": 382, "digest": "x", "remote_host": "https://ollama.com"}
    )
    chosen = select([cloud, STAR], coding=REGEX, baseline=())
    assert names(chosen.models) == ["starcoder2:3b"]
    assert chosen.left_out == [("qwen3-coder:480b-cloud", "runs in the cloud, not on this host")]


@pytest.mark.parametrize(("name", "full"), [
    ("llama3", "llama3:latest"), ("llama3:8b", "llama3:8b"), ("hf.co/user/Coder-GGUF", "hf.co/user/Coder-GGUF:latest"),
    ("host:5000/user/coder", "host:5000/user/coder:latest"),
])  # fmt: skip
def test_a_name_without_a_tag_is_latest(name: str, full: str) -> None:
    assert full_name(name) == full


@pytest.mark.parametrize("item", [None, "x", {}, {"name": "x"}, {"name": "x", "size": "big", "digest": "d"},
                                  {"name": "x", "size": float("inf"), "digest": "d"},
                                  {"name": "x", "size": float("nan"), "digest": "d"},
                                  {"name": "x", "size": 10**400, "digest": "d"}, {"name": 5, "size": 1, "digest": "d"},
                                  {"name": "x", "size": 1, "digest": None}])  # fmt: skip
def test_what_is_no_model(item: object) -> None:
    with pytest.raises(ValueError, match="not a model"):
        model_of(item)


def test_names_that_cannot_be_a_memo_are_told_and_not_measured() -> None:
    evil, long = Model("evil\ncoder:1", 1, "x"), Model("coder:" + "x" * 1100, 1, "y")
    chosen = select([evil, CODER, long], coding=REGEX, baseline=())
    assert names(chosen.models) == [CODER.name]
    shown = dict(chosen.unusable)
    assert set(shown) == {"evil coder:1", "coder:" + "x" * 54 + "..."}
    assert "control characters" in shown["evil coder:1"]


def test_servers_before_the_field_name_gave_model() -> None:
    assert model_of({"model": "x:1", "size": 1, "digest": "d"}).name == "x:1"
