"""Ollama's final object -> figures -> files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.host.series import Sample
from services.host.telemetry import Gpu, Telemetry
from services.llm_bench.bench import Results
from services.llm_bench.files import Files
from services.llm_bench.joules import Spent, of_model, spent
from services.llm_bench.prompts import PROMPTS, prompt
from services.llm_bench.report import report_of, text
from services.llm_bench.results import COLUMNS, Failure, Generation, Table, Timing, Wall, file_names, row, timing_of
from services.llm_bench.told import one_line

FINAL: dict[str, Any] = {
    "done": True,
    "total_duration": 4_648_158_584,
    "load_duration": 4_071_084,
    "prompt_eval_count": 36,
    "prompt_eval_duration": 439_038_000,
    "eval_count": 180,
    "eval_duration": 4_196_918_000,
}


def generation(
    timing: Timing | None = None, begin: float = 100.0, end: float = 110.0, model: str = "m:1"
) -> Generation:
    return Generation(model, 1, "sql", timing or timing_of(FINAL), begin, end)


def test_nanoseconds_become_seconds_and_rates() -> None:
    timing = timing_of(FINAL)
    assert (timing.load_s, timing.total_s) == (0.004071084, 4.648158584)
    assert timing.prompt_tps == pytest.approx(36 / 0.439038)
    assert timing.gen_tps == pytest.approx(180 / 4.196918)
    assert row(generation()) == ["m:1", "1", "sql", "0.004", "82.00", "42.89", "4.648", "36", "180"]


@pytest.mark.parametrize("final", [{}, {"eval_count": 0, "eval_duration": 0}, {"eval_count": "5", "eval_duration": 1},
                                   {"eval_count": -5, "eval_duration": 9}, {"eval_count": True}])  # fmt: skip
def test_what_ollama_does_not_say_is_empty_and_not_zero(final: dict[str, Any]) -> None:
    timing = timing_of(final)
    assert timing.gen_tps is None
    assert row(generation(timing))[3:8] == ["", "", "", "", ""]


def test_no_duration_is_no_infinite_speed() -> None:
    timing = timing_of({"eval_count": 5, "eval_duration": 0})
    assert (timing.gen_tokens, timing.gen_tps) == (5, None)


def test_numbers_no_ollama_sends() -> None:
    """Ten to the four hundredth is an int in JSON, and no float."""
    timing = timing_of({"eval_count": 10**400, "eval_duration": 10**400, "total_duration": 2**63})
    assert (timing.gen_tokens, timing.gen_tps, timing.total_s) == (None, None, None)


WALL = Wall(request=4.7, stream=4.2)


def test_figures_that_agree_with_our_clock_stay() -> None:
    assert timing_of(FINAL, WALL) == timing_of(FINAL)
    all_at_once = Wall(request=4.7, stream=0.001)  # a proxy that hands it on in one piece
    assert timing_of(FINAL, all_at_once).doubts == ()


@pytest.mark.parametrize(("lie", "empty", "doubt"), [
    ({"eval_duration": 1}, "gen_tps", "eval_duration 1e-09 s, but the tokens came in for 4.2 s"),
    ({"eval_duration": 900_000_000}, "gen_tps", "eval_duration 0.9 s, but the tokens came in for 4.2 s"),
    ({"eval_duration": 6_000_000_000}, "gen_tps", "eval_duration 6 s is longer than the request, 4.7 s"),
    ({"eval_count": 10**9}, "gen_tokens", "eval_count 1000000000 is more than 4.7 s can hold"),
    ({"prompt_eval_duration": 1}, "prompt_tps", "prompt_eval_duration 1e-09 s for 36 tokens is no time"),
    ({"prompt_eval_count": 10**9}, "prompt_tokens", "prompt_eval_count 1000000000 is more than 4.7 s can hold"),
    ({"load_duration": 10**18}, "load_s", "load_duration 1e+09 s is longer than the request, 4.7 s"),
    ({"total_duration": 10**18}, "total_s", "total_duration 1e+09 s is longer than the request, 4.7 s"),
])  # fmt: skip
def test_figures_that_contradict_our_clock_are_left_empty(lie: dict[str, int], empty: str, doubt: str) -> None:
    timing = timing_of({**FINAL, **lie}, WALL)
    assert getattr(timing, empty) is None
    assert timing.doubts == (doubt,)


def test_no_time_for_that_many_tokens_where_all_came_at_once() -> None:
    timing = timing_of({**FINAL, "eval_duration": 1}, Wall(0.01, 0.0))
    assert timing.gen_tps is None
    assert "eval_duration 1e-09 s for 180 tokens is no time" in timing.doubts


@pytest.mark.parametrize(("text", "shown"), [
    ("CUDA error:\n out of memory", "CUDA error: out of memory"), ("\x1b[2J boom\ud800", "\\x1b[2J boom\\ud800"),
    ({"a": 1}, "(dict, no text)"), ("x" * 400, "x" * 300 + "..."),
])  # fmt: skip
def test_what_a_server_says_is_one_line_that_can_be_shown(text: object, shown: str) -> None:
    assert one_line(text) == shown


def test_names_of_files() -> None:
    assert file_names({"qwen2.5-coder:7b": "a", "hf.co/user/Model-GGUF:Q4_K_M": "b", "../../etc/x": "c"}) == {
        "qwen2.5-coder:7b": "qwen2.5-coder_7b",
        "hf.co/user/Model-GGUF:Q4_K_M": "hf.co_user_Model-GGUF_Q4_K_M",
        "../../etc/x": ".._.._etc_x",
    }


def test_two_models_never_share_a_file() -> None:
    names = file_names({"a/b:1": "sha256:1111111111111111", "a_b:1": "sha256:2222222222222222"})
    assert names == {"a/b:1": "a_b_1_111111111111", "a_b:1": "a_b_1_222222222222"}
    hostile = file_names({"a/b:1": "sha256:../../x", "a_b:1": "sha256:../../x", "c" * 900: "d1", "c" * 901: "d2"})
    assert len({name.lower() for name in hostile.values()}) == 4
    assert not any("/" in name or len(name) > 120 for name in hostile.values())


def test_an_earlier_result_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bench_x.csv"
    path.write_text("old")
    Table(path, COLUMNS)
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    [kept] = [p for p in tmp_path.iterdir() if p != path]
    assert kept.read_text() == "old"
    assert kept.name.startswith("bench_x.2")


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    told: list[str] = []
    files = Files(tmp_path / "taken", {"m:1": "d"}, told.append)
    files.measured(generation())
    files.measured(generation())
    assert files.failed
    assert len(told) == 1


def test_each_run_asks_something_the_server_has_not_read_yet() -> None:
    prompts = [prompt(prompt_id, run) for prompt_id in PROMPTS for run in (1, 2, 3)]
    assert len({text.splitlines()[0] + text[-20:] for text in prompts}) == len(prompts)
    assert prompt("sql", 2).splitlines()[0] != prompt("sql", 1).splitlines()[0]


def drawing(watts: float, index: int = 0, *, counter: bool = True) -> list[Sample]:
    return [Sample(90.0 + n, 50.0 + index, watts, None, int(n * watts * 1000) if counter else None) for n in range(60)]


def test_joules_of_all_gpus_together() -> None:
    both = [drawing(200), drawing(50, 1)]
    used = spent(both, 100.0, 110.0, 180)
    assert used.joules == pytest.approx(2500)
    assert used.per_token == pytest.approx(2500 / 180)
    assert used.method == "counter"


def test_one_gpu_with_a_counter_and_one_without() -> None:
    assert spent([drawing(200), drawing(50, counter=False)], 100.0, 110.0, 1).method == "counter+power"


def test_unknown_stays_unknown_with_the_reason() -> None:
    assert spent([], 100.0, 110.0, 5) == Spent(None, None, None, "no samples of a GPU")
    silent = [Sample(90.0 + n) for n in range(60)]
    assert spent([drawing(200), silent], 100.0, 110.0, 5).reason == "neither an energy counter nor power readings"
    assert spent([drawing(200)], 100.0, 101.0, 5).reason == "1.0 s are less than two samples, 1.0 s apart"
    without = spent([drawing(200)], 100.0, 110.0, None)
    assert (without.per_token, without.reason) == (None, "number of tokens unknown")
    assert without.joules == pytest.approx(2000)
    assert spent([drawing(200)], 100.0, 110.0, 0).reason == "no token was generated"


def test_a_model_from_its_first_run_to_its_last() -> None:
    runs = [generation(begin=100.0, end=104.0), generation(begin=104.5, end=110.0)]
    heat = of_model([drawing(200), drawing(50, 1)], runs, failed=False)
    assert heat.spent.joules == pytest.approx(2500)
    assert heat.spent.per_token == pytest.approx(2500 / 360)
    assert heat.watts == pytest.approx(250)
    assert heat.peak == 51


def test_a_failure_in_between_does_not_count() -> None:
    runs = [generation(begin=100.0, end=104.0), generation(begin=110.0, end=114.0)]
    assert of_model([drawing(200)], runs, failed=True).spent.joules == pytest.approx(1600)


def telemetry() -> Telemetry:
    gpus = {"GPU-1": Gpu("GPU-1", 0), "GPU-2": Gpu("GPU-2", 1)}
    return Telemetry("live readings", gpus, {"GPU-1": drawing(200), "GPU-2": drawing(50, 1)})


def test_the_summary() -> None:
    results = Results([generation()], [Failure("gone:7b", None, None, "not installed")])
    report = report_of(results, telemetry(), [], [0], interrupted=False)
    assert report.energies[0].joules == pytest.approx(2000)
    lines = text(report).splitlines()
    assert lines[1].split() == ["m:1", "1", "0", "0.0", "82.0", "42.9", "180", "11.11", "200.0", "50"]
    assert lines[2].split() == ["gone:7b", "0", "1", "-", "-", "-", "-", "-", "-", "-"]
    assert report.result == "failed"


def test_the_summary_tells_what_was_left_out() -> None:
    lied = generation(timing_of({**FINAL, "eval_duration": 1}, WALL))
    shown = text(report_of(Results([generation(), lied]), None, [], [], interrupted=False))
    assert "m:1: 1 figures of Ollama left empty, they contradict the clock; run 1 sql: eval_duration 1e-09" in shown
    assert shown.splitlines()[1].split()[5] == "42.9"


def test_the_summary_without_telemetry_says_why() -> None:
    report = report_of(Results([generation()]), None, ["no live readings: no driver"], [], interrupted=False)
    shown = text(report)
    assert "joules of m:1 unknown: no samples of a GPU" in shown
    assert "no live readings: no driver" in shown
    assert shown.splitlines()[1].split()[-3:] == ["unknown"] * 3
