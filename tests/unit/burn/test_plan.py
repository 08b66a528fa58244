"""The command line of `gpumon burn` -> what will be done."""

from __future__ import annotations

import argparse

import pytest

from services.burn.detached import arguments_again
from services.burn.plan import limit_of, plan_of
from services.burn.run import add_arguments, plan_text
from services.contract.event import Status
from services.host.status import StatusError
from services.settings import load


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


RUNBOOK = (
    "--pre-idle-sec", "180", "--pre-idle-memo", "pre gpu-burn idle (baseline)",
    "--sec", "900", "--pre-tag", "bench", "--pre-memo", "gpu-burn (max workload)",
    "--post-tag", "idle", "--post-memo", "post gpu-burn idle",
    "--cooldown-sec", "600", "--cooldown-memo", "cooldown idle (post gpu-burn)",
    "--final-tag", "prod", "--final-memo", "prod (normal usage)",
    "--tmux",
)  # fmt: skip


def test_the_runbooks_command() -> None:
    plan = plan_of(parsed(*RUNBOOK))
    assert [(p.name, p.status.tag, p.status.memo, p.seconds) for p in plan.phases] == [
        ("pre-idle", "idle", "pre gpu-burn idle (baseline)", 180),
        ("burn", "bench", "gpu-burn (max workload)", 900),
        ("cool-down", "idle", "cooldown idle (post gpu-burn)", 600),
    ]
    assert plan.final == Status(tag="prod", memo="prod (normal usage)")
    assert (plan.seconds, plan.burn_seconds) == (1680, 900)
    assert (plan.remaining("burn"), plan.remaining("cool-down")) == (600, 0)


def test_the_defaults_are_the_runbooks_but_for_the_final_tag() -> None:
    default, runbook = plan_of(parsed()), plan_of(parsed(*RUNBOOK))
    assert default.phases == runbook.phases
    assert default.final is None


def test_phases_of_no_length_are_left_out() -> None:
    plan = plan_of(parsed("--pre-idle-sec", "0", "--cooldown-sec", "0"))
    assert [phase.name for phase in plan.phases] == ["burn"]
    plan = plan_of(parsed("--pre-idle-sec", "0", "--cooldown-sec", "0", "--post-sec", "5"))
    assert [phase.name for phase in plan.phases] == ["burn", "post"]


@pytest.mark.parametrize(("arguments", "reason"), [
    (("--final-memo", "x"), "--final-memo needs --final-tag"),
    (("--pre-tag", ""), "the tag is empty"),
    (("--pre-memo", "two\nlines"), "control characters"),
])  # fmt: skip
def test_what_cannot_be_stored_is_refused_before_anything_starts(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(StatusError, match=reason):
        plan_of(parsed(*arguments))


@pytest.mark.parametrize("arguments", [
    ("--sec", "0"), ("--sec", "-1"), ("--sec", "inf"), ("--sec", "nan"), ("--sec", "x"), ("--pre-idle-sec", "-1"),
    ("--max-temp", "0"), ("--load", "fire"),
])  # fmt: skip
def test_numbers_that_make_no_sense(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "slowdowns", "expected"), [
    ((), [95.0, 92.0, None], (89.0, "3 C below the slowdown temperature the board tells")),
    ((), [None], (87.0, "default: the board does not tell its slowdown temperature")),
    ((), [], (87.0, "default: the board does not tell its slowdown temperature")),
    (("--max-temp", "85"), [95.0], (85.0, "--max-temp")),
])  # fmt: skip
def test_where_the_limit_comes_from(
    arguments: tuple[str, ...], slowdowns: list[float | None], expected: tuple[float, str]
) -> None:
    assert limit_of(plan_of(parsed(*arguments)), slowdowns) == expected


@pytest.mark.parametrize("arguments", [
    (), RUNBOOK, ("--load", "torch", "--json", "--exporter", "http://x/metrics"),
    ("--load-args", "-tc -m '90 %'", "--pre-memo", "it's \"hot\" $(date)", "--final-tag", "-x"[1:], "--max-temp", "80"),
])  # fmt: skip
def test_the_command_line_survives_tmux(arguments: tuple[str, ...]) -> None:
    args = parsed(*arguments)
    again = parsed(*arguments_again(args), "--name", "burn-1")
    args.tmux, args.name = False, "burn-1"
    assert vars(again) == vars(args)


def test_a_memo_that_looks_like_an_option_survives_tmux() -> None:
    args = parsed("--pre-memo=--sec 1")
    assert parsed(*arguments_again(args)).pre_memo == "--sec 1"


def test_the_plan_as_text() -> None:
    text = plan_text(plan_of(parsed(*RUNBOOK, "--load", "none")), load())
    assert text.splitlines()[0].startswith("run of 28:00, status in /")
    assert "  burn          900 s  bench  gpu-burn (max workload)" in text
    assert "prod  prod (normal usage)" in text
    assert "load: none" in text
    assert "post" not in [line.split()[0] for line in text.splitlines()]
    assert "limit: 3 C below the board's slowdown temperature, 87 C where it tells none" in text


def test_a_plan_that_would_fail_says_so_first() -> None:
    settings = load(gpu_burn="/no/such/gpu_burn")
    first, second, *_ = plan_text(plan_of(parsed()), settings).splitlines()
    assert first.startswith("WARNING: this run would fail: GPU_BURN=/no/such/gpu_burn: there is no such program")
    assert "make -C ~/projects/gpu-burn COMPUTE=61` for a P40" in first
    assert second.startswith("run of 28:00")
