"""gpu_burn's output: progress overwritten in place, errors that start again at every tenth, verdicts."""

from __future__ import annotations

import pytest

from services.burn.gpu_burn import PROGRESS, Findings, chunks


def fed(text: str) -> Findings:
    findings = Findings()
    lines, rest = chunks(text)
    for line in [*lines, rest]:
        findings.take(line)
    return findings


ONE = "\r{percent}%  proc'd: 40 (9000 Gflop/s)   errors: {errors}   temps: 61 C   power: 240 W "


def test_sound_gpus() -> None:
    text = (
        "GPU 0: Tesla P40 (UUID: GPU-1)\nGPU 1: Tesla P40 (UUID: GPU-2)\nBurning for 10 seconds.\n"
        "\r10.0%  proc'd: 40 (9000 Gflop/s) - 41 (9001 Gflop/s)   errors: 0 - 0   temps: 61 C - -- "
        "\n\tSummary at:   Sun Jan  4 00:00:00 JST 2026\n\n"
        "\nKilling processes with SIGTERM (soft kill)\nFreed memory for dev 0\nUninitted cublas\ndone\n\n"
        "Tested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n"
    )
    findings = fed(text)
    assert findings.verdicts == {0: "OK", 1: "OK"}
    assert findings.errors == {0: 0, 1: 0}
    assert findings.faults == []


def test_a_faulty_gpu_beside_a_sound_one() -> None:
    text = (
        "\r50.0%  proc'd: 40 (9000 Gflop/s) - 41 (9001 Gflop/s)   errors: 0 - 12  (WARNING!)  temps: 61 C - 60 C \n"
        "\tGPU 0: OK\n\tGPU 1: FAULTY\n"
    )
    findings = fed(text)
    assert findings.verdicts == {0: "OK", 1: "FAULTY"}
    assert findings.faults == ["GPU 1: FAULTY, 12 wrong results"]


def test_errors_are_added_up_over_the_tenths() -> None:
    steps = [("5.0", "3  (WARNING!)"), ("9.0", "5  (WARNING!)"), ("11.0", "0 "), ("15.0", "2  (WARNING!)")]
    findings = fed("".join(ONE.format(percent=percent, errors=errors) for percent, errors in steps))
    assert findings.errors == {0: 7}


def test_a_process_that_died() -> None:
    findings = fed("\r50.0%  proc'd: -1 (0 Gflop/s) - 41 (9001 Gflop/s)   errors: -1  (DIED!)- 0   temps: 61 C - 60 C ")
    assert findings.faults == ["GPU 0: its process died"]
    assert findings.errors == {0: 0, 1: 0}


def test_three_gpus_with_notes_between_the_dashes() -> None:
    line = "\r9.0%  proc'd: 1 (1 G) - 1 (1 G) - 1 (1 G)   errors: 3  (WARNING!)- 0 - 4  (WARNING!)  temps: --"
    assert fed(line).errors == {0: 3, 1: 0, 2: 4}


def test_output_without_temperatures_or_power() -> None:
    """The torch load's line, and gpu_burn's before it knew power."""
    assert fed("12.0%  proc'd: 40 (9000 Gflop/s)   errors: 4\n").errors == {0: 4}


def test_the_list_of_gpus_is_no_verdict() -> None:
    assert fed("GPU 0: Tesla P40 (UUID: GPU-1)\nGPU 1: OKAY\n").verdicts == {}


def test_lines_arrive_in_pieces() -> None:
    lines, rest = chunks("\r1.0%  proc'd: 1\r2.0%  pro")
    assert (lines, rest) == (["1.0%  proc'd: 1"], "2.0%  pro")
    assert chunks(rest + "c'd: 2\n") == (["2.0%  proc'd: 2"], "")


def test_what_progress_is() -> None:
    assert PROGRESS.match("100.0%  proc'd: 40 (9000 Gflop/s)")
    assert not PROGRESS.match("GPU 0: OK")


LISTED = "GPU 0: Tesla P40 (UUID: GPU-1)\nGPU 1: Tesla P40 (UUID: GPU-2)\n"


@pytest.mark.parametrize(("text", "doubts"), [
    ("", ["no verdict on any GPU"]),
    (LISTED, ["no verdict on GPU 0, GPU 1"]),
    (LISTED + "Tested 1 GPUs:\n\tGPU 0: OK\n", ["no verdict on GPU 1"]),
    (LISTED + "Tested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n", []),
    ("Tested 2 GPUs:\n\tGPU 0: OK\n", ["no verdict on GPU 1"]),
    ("\r50.0%  proc'd: 4 (9 Gflop/s) - 4 (9 Gflop/s)   errors: 0 - 0  temps: --\n\tGPU 0: OK\n",
     ["no verdict on GPU 1"]),
    ("Couldn't init a GPU test: Error in \"alloc\": out of memory\n" * 2,
     ["no verdict on any GPU", "Couldn't init a GPU test: Error in \"alloc\": out of memory"]),
    ("Couldn't init a GPU test: x\nTested 1 GPUs:\n\tGPU 0: OK\n", ["Couldn't init a GPU test: x"]),
])  # fmt: skip
def test_only_a_verdict_on_every_gpu_it_names_proves_something(text: str, doubts: list[str]) -> None:
    assert fed(text).doubts == doubts


def test_gpus_that_were_not_asked_for_need_no_verdict() -> None:
    findings = Findings(chosen=True)
    for line in (LISTED + "Tested 1 GPUs:\n\tGPU 0: OK\n").splitlines():
        findings.take(line)
    assert findings.doubts == []


def test_a_number_that_is_too_long_to_be_one() -> None:
    assert fed(f"1.0%  proc'd: 4   errors: {'9' * 5000}  temps: --\nGPU {'1' * 5000}: OK\n").verdicts == {}
