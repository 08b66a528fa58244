"""`gpumon ollama-bench` against a real HTTP server that speaks Ollama's API."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.contract.event import Status
from services.host import status
from services.llm_bench import run as role
from services.llm_bench.files import Files
from services.llm_bench.prompts import PROMPTS
from services.llm_bench.results import COLUMNS, ENERGY_COLUMNS, Generation
from services.settings import Settings, load
from tests.support.ollama_server import FINAL, OllamaServer, tag
from tests.support.processes import free_port

RUNS = len(PROMPTS)
CODER, BIG, LLAMA = "qwen2.5-coder:1.5b", "deepseek-coder:6.7b", "llama3.2:3b"


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert status.read(tmp_path / "status.json") == Status(tag="prod", memo="before"), "the tag is not back"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path) -> Settings:
    status.write(tmp_path / "status.json", Status(tag="prod", memo="before"))
    return load(exporter_source="mock", pghost="127.0.0.1", pgport=free_port(), node_name="box")


def bench(settings: Settings, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    role.add_arguments(parser)
    quick = ["--pre-idle-sec", "0", "--cooldown-sec", "0", "--repeat", "1"]
    return role.run(parser.parse_args([*quick, *arguments]), settings)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_runs_smallest_first_and_writes_the_nine_columns(settings: Settings, tmp_path: Path) -> None:
    models = [tag(BIG, 3_800_000_000), tag(LLAMA, 2_000_000_000), tag(CODER, 986_000_000), tag("mistral:7b", 5)]
    with OllamaServer(models) as server:
        assert bench(settings, "--ollama-url", server.url, "--repeat", "2") == 0
        assert [request["model"] for request in server.requests] == [
            name for name in (CODER, LLAMA, BIG) for _ in range(2 * RUNS)
        ]
        assert server.unloaded == [CODER, LLAMA, BIG]
        assert server.requests[0]["options"] == {"num_predict": 512, "temperature": 0.0, "seed": 42}
        assert server.requests[0]["stream"] is True
        assert len({request["prompt"] for request in server.requests[: 2 * RUNS]}) == 2 * RUNS
    path = tmp_path / "bench_results" / "bench_qwen2.5-coder_1.5b.csv"
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert path.read_text().splitlines()[0] == (
        "model,run,prompt_id,load_s,prompt_tps,gen_tps,total_s,prompt_tokens,gen_tokens"
    )
    rows = table(path)
    assert [(row["run"], row["prompt_id"]) for row in rows] == [(run, p) for run in ("1", "2") for p in PROMPTS]
    assert list(rows[0].values()) == [CODER, "1", next(iter(PROMPTS)), "0.100", "200.00", "250.00", "0.700", "40", "90"]
    energies = table(path.with_name("energy_qwen2.5-coder_1.5b.csv"))
    assert len(energies) == 2 * RUNS
    assert tuple(energies[0]) == ENERGY_COLUMNS
    assert energies[0]["joules"] == ""
    assert "apart" in energies[0]["reason"]  # an answer of milliseconds, samples half a second apart


def test_tags_are_bench_with_the_model_while_it_runs(settings: Settings, tmp_path: Path) -> None:
    with OllamaServer([tag(CODER, 1)], {CODER: "slow"}) as server:
        seen: list[Status | None] = []

        def look() -> None:
            server.asked.wait(10)
            seen.append(status.read(tmp_path / "status.json"))
            server.release.set()

        watcher = threading.Thread(target=look)
        watcher.start()
        assert bench(settings, "--ollama-url", server.url) == 0
        watcher.join()
    assert seen == [Status(tag="bench", memo=f"ollama_{CODER}")]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cut", "the connection broke"),
        ("ends", "the stream ended after 3 tokens without its final object"),
        ("error", "Ollama reports after 3 tokens: an error was encountered while running the model"),
        ("garbage", "not a JSON object"),
        ("http500", "HTTP 500: CUDA error: out of memory"),
        ("hang", "no end after 0.5 s (--timeout)"),
    ],
)
def test_a_model_that_fails_is_recorded_and_the_others_go_on(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, reason: str
) -> None:
    with OllamaServer([tag(CODER, 1), tag(BIG, 2)], {CODER: how}) as server:
        assert bench(settings, "--ollama-url", server.url, "--json", "--timeout", "0.5") == 1
    document = told(capsys)
    assert document["result"] == "failed"
    failures = document["failures"]
    assert {failure["model"] for failure in failures} == {CODER}
    assert len(failures) == 4  # three in a row, then given up
    assert reason in failures[0]["reason"]
    assert failures[-1]["reason"] == f"given up: {RUNS - 3} runs not tried"
    assert [run["model"] for run in document["runs"]] == [BIG] * RUNS
    assert not (tmp_path / "bench_results" / "bench_qwen2.5-coder_1.5b.csv").exists()
    assert len(table(tmp_path / "bench_results" / "bench_deepseek-coder_6.7b.csv")) == RUNS


def final(**fields: Any) -> bytes:
    return b'{"response":"x","done":false}\n' + json.dumps({**FINAL, **fields}).encode() + b"\n"


@pytest.mark.parametrize(("answer", "reason"), [
    (b'{"done":true}\n', "its final object counts no generated tokens: eval_count is missing"),
    (final(eval_count=0), "its final object counts no generated tokens: eval_count is 0"),
    (final(eval_count=10**400), "its final object counts no generated tokens: eval_count is 1000"),
    (final(eval_count=10**12), "its final object counts no generated tokens: eval_count 1000000000000 is more than"),
    (b'{"done":"no"}\n', "not Ollama's final object: done is 'no'"),
    (b"[" * 200_000 + b"]" * 200_000, "not a JSON object: '[[["),
    (b'{"error":"\\u001b[2J boom\\ud800"}\n', "Ollama reports after 0 tokens: \\x1b[2J boom\\ud800"),
    (b'{"error":{"code":1}}\n', "Ollama reports after 0 tokens: (dict, no text)"),
], ids=["nothing", "zero", "huge", "many", "truthy", "deep", "unprintable", "object"])  # fmt: skip
def test_an_answer_that_is_none_is_a_failure_and_the_next_model_is_measured(
    settings: Settings, capsys: pytest.CaptureFixture[str], answer: bytes, reason: str
) -> None:
    with OllamaServer([tag(CODER, 1), tag(BIG, 2)]) as server:
        server.lines[CODER] = answer
        assert bench(settings, "--ollama-url", server.url, "--json") == 1
    document = told(capsys)
    assert document["failures"][0]["reason"].startswith(reason)
    assert [run["model"] for run in document["runs"]] == [BIG] * RUNS


def test_durations_that_cannot_be_are_empty_cells(settings: Settings, tmp_path: Path) -> None:
    with OllamaServer([tag(CODER, 1)]) as server:
        server.lines[CODER] = final(eval_duration=1, total_duration=10**18, load_duration=10**400)
        assert bench(settings, "--ollama-url", server.url) == 0
    row = table(tmp_path / "bench_results" / "bench_qwen2.5-coder_1.5b.csv")[0]
    assert (row["load_s"], row["gen_tps"], row["total_s"], row["gen_tokens"]) == ("", "", "", "90")


@pytest.mark.parametrize("name", ["evil\ncoder:1", "coder:" + "x" * 1100])
def test_a_name_that_cannot_be_a_memo_is_a_failure_and_the_others_are_measured(
    settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with OllamaServer([tag(CODER, 1), tag(name, 2)]) as server:
        assert bench(settings, "--ollama-url", server.url, "--json") == 1
    document = told(capsys)
    [failure] = document["failures"]
    assert failure["model"] != name
    assert [run["model"] for run in document["runs"]] == [CODER] * RUNS


def test_an_error_nobody_expected_comes_after_the_summary(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Files):
        def measured(self, generation: Generation) -> None:
            super().measured(generation)
            if generation.model == BIG:
                raise RuntimeError("bug")

    monkeypatch.setattr(role, "Files", Broken)
    with OllamaServer([tag(CODER, 1), tag(BIG, 2)]) as server, pytest.raises(RuntimeError, match="bug"):
        bench(settings, "--ollama-url", server.url)
    assert "result: failed" in capsys.readouterr().out
    [summary] = (tmp_path / "logs").glob("ollama-bench-*.json")
    document = json.loads(summary.read_text())
    assert len(document["runs"]) == RUNS + 1
    assert document["failures"][0]["reason"] == "RuntimeError('bug')"


def test_a_model_that_is_not_installed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with OllamaServer([tag(CODER, 1)]) as server:
        assert bench(settings, "--ollama-url", server.url, "--json", "--models", CODER, "gone:7b") == 1
    document = told(capsys)
    [failure] = document["failures"]
    assert (failure["model"], failure["reason"]) == ("gone:7b", "not installed; `ollama pull gone:7b`")
    assert len(document["runs"]) == RUNS


def test_a_model_removed_in_between_is_tried_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with OllamaServer([tag(CODER, 1)]) as server:
        listed = server.models
        server.models = Once(listed)
        assert bench(settings, "--ollama-url", server.url, "--json") == 1
        assert len(server.requests) == 1
    reasons = [failure["reason"] for failure in told(capsys)["failures"]]
    assert reasons[0] == f"model '{CODER}' not found (HTTP 404); `ollama pull {CODER}`"


class Once(list[dict[str, Any]]):
    """Its items are there the first time one looks."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__(items)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        items = list(super().__iter__())
        self.clear()
        return iter(items)


def test_no_server(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert bench(settings, "--ollama-url", f"127.0.0.1:{port}") == 2
    assert f"nobody answers at http://127.0.0.1:{port} (Connection refused)" in capsys.readouterr().err


def test_another_server_at_that_address(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with OllamaServer([{"nonsense": 1}]) as server:
        assert bench(settings, "--ollama-url", server.url) == 2
    assert "does not answer as Ollama does" in capsys.readouterr().err


def test_nothing_to_measure(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with OllamaServer([tag("mistral:7b", 1)]) as server:
        assert bench(settings, "--ollama-url", server.url) == 2
    assert "matches --coding-regex" in capsys.readouterr().err


def test_dry_run_runs_nothing(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [tag(CODER, 986_000_000, "sha256:a"), tag("copy-coder:1b", 986_000_000, "sha256:a"),
              tag("qwen3-coder:480b-cloud", 382, remote_host="https://ollama.com:443")]  # fmt: skip
    with OllamaServer(models) as server:
        assert bench(settings, "--ollama-url", server.url, "--dry-run") == 0
        assert server.requests == []
    out = capsys.readouterr().out
    assert "1 models" in out
    assert f"GB  (same as {CODER})" in out
    assert "qwen3-coder:480b-cloud (runs in the cloud, not on this host)" in out
    assert not (tmp_path / "bench_results").exists()


def test_no_csv(settings: Settings, tmp_path: Path) -> None:
    with OllamaServer([tag(CODER, 1)]) as server:
        assert bench(settings, "--ollama-url", server.url, "--no-csv") == 0
    assert not (tmp_path / "bench_results").exists()
    assert len(list((tmp_path / "logs").glob("ollama-bench-*.json"))) == 1


def test_a_directory_that_cannot_be_written(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    with OllamaServer([tag(CODER, 1)]) as server:
        assert bench(settings, "--ollama-url", server.url, "--out-dir", "taken/results") == 1
    out = capsys.readouterr().out
    assert out.count("cannot be written (Not a directory)") == 1
    assert "result: completed" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(
    settings: Settings, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    with OllamaServer([tag(CODER, 1), tag(BIG, 2)], {BIG: "hang"}) as server:

        def send() -> None:
            while not any(request["model"] == BIG for request in server.requests):
                threading.Event().wait(0.02)
            os.kill(os.getpid(), number)

        sender = threading.Thread(target=send)
        sender.start()
        assert bench(settings, "--ollama-url", server.url, "--json") == 128 + number
        sender.join()
    document = told(capsys)
    assert document["result"] == "interrupted"
    assert [run["model"] for run in document["runs"]] == [CODER] * RUNS


def test_joules_per_token_from_live_readings(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a second between samples, an answer of more than two: the simulated boards' counters tell the joules."""
    with OllamaServer([tag(CODER, 1)], {CODER: "slow"}) as server:
        timer = threading.Timer(2.5, server.release.set)
        timer.start()
        assert bench(settings, "--ollama-url", server.url, "--json", "--no-csv", "--gpu", "0") == 0
        timer.join()
    document = told(capsys)
    assert document["samples_from"] == "live readings"
    energy = document["runs"][0]["energy"]
    assert energy["method"] == "counter"
    seconds = document["runs"][0]["end"] - document["runs"][0]["begin"]
    assert 30 * seconds < energy["joules"] < 700 * seconds  # between idle and the limit of any board
    assert energy["per_token"] == pytest.approx(energy["joules"] / 90)
    heat = document["heat"][CODER]
    assert heat["spent"]["per_token"] > 0
    assert heat["peak"] > 0


def test_an_ollama_elsewhere_has_no_joules(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    session = role._Session(argparse.Namespace(ollama_url="http://gpu-7:11434", exporter=None, gpu_host=None), settings)
    assert session._monitor() is None
