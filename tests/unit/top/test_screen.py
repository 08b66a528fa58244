"""The screen as text, at many sizes: nothing runs over, nothing unknown is zero, what is wrong is in words."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from services.contract.event import Status
from services.exporter.reading import Process
from services.top import figures, table
from services.top.screen import ORDERS, State, draw, press
from services.top.stream import plain
from tests.unit.top.rows import BENCH, BUSY, NOW, frame, row, state


def text_of(of: State, width: int = 100, height: int = 30, now: float = NOW) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, legacy_windows=False)
    console.print(draw(of, width, height, now), end="")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 120, 200])
@pytest.mark.parametrize("height", [5, 12, 24, 60])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8, 300])
def test_it_fills_the_terminal_and_never_runs_over(width: int, height: int, gpus: int) -> None:
    processes = (Process(1, "me", "python3 train.py " * 20, 512),)
    lines = text_of(state(*(row(i, processes=processes) for i in range(gpus))), width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width
    assert lines[-1].startswith("q quit"[:width])


def test_a_card_shows_the_figures_and_unknown_ones_as_a_dash() -> None:
    lines = text_of(state(row(pci_bus_id="00000000:31:00.0", status=BENCH), row(1)))
    text = "\n".join(lines)
    for said in ("71 C", "180/250 W", "97 %", "8.0/22.5 GiB 36 %", "SM 1303 MHz", "P0", "fan -", "ECC -", "● ok",
                 "00000000:31:00.0", "[bench: gpu-burn]"):  # fmt: skip
        assert said in text, said


def test_a_gpu_that_tells_nothing_shows_no_number() -> None:
    (head, line) = plain(state(row(values={})), NOW)
    assert "0" not in line.replace("P40", "").removeprefix("box").split("no values")[0].split("Tesla")[1]
    assert line.count("-") == len(table.FIGURES)
    assert "TEMP" in head


def test_zero_is_shown_as_zero() -> None:
    text = "\n".join(text_of(state(row(values={**BUSY, "gpu_util": 0, "fan_speed": 0}))))
    assert "util    0 %" in text
    assert "fan 0 %" in text


def test_a_lost_gpu_says_so_and_why_as_card_and_in_the_table() -> None:
    of = state(row(0), row(1, lost="GPU is lost", values={}))
    assert any("LOST: GPU is lost" in line for line in text_of(of))
    assert any("■ LOST" in line and "GPU is lost" in line for line in text_of(of, height=8))


def test_a_gpu_that_is_no_longer_there_is_lost() -> None:
    of = state(row(0), row(1))
    of.took(frame(row(0), time=NOW + 2))
    (line,) = [line for line in plain(of, NOW + 2) if "LOST" in line]
    assert "not reported since" in line
    of.took(frame(row(0), row(1), time=NOW + 4))
    assert not any("LOST" in line for line in plain(of, NOW + 4))


def test_a_mig_instance_that_was_reconfigured_is_not_lost() -> None:
    of = state(row(0), row(0, instance_id=7))
    of.took(frame(row(0)))
    assert len(of.judged(NOW)) == 1


def test_of_a_limited_list_those_that_dropped_out_are_not_lost() -> None:
    of = state()
    of.took(frame(row(0), total=2))
    of.took(frame(row(1), total=2))
    assert [line.row.index for line in of.judged(NOW)] == [1]


def test_a_failing_source_is_shown_in_place_with_the_age_of_what_is_left() -> None:
    of = state(row())
    of.failed("host:9400: Connection refused")
    lines = text_of(of, now=NOW + 7)
    assert lines[1] == "■ host:9400: Connection refused (trying again; what is shown is 7 s old)"
    assert any("71 C" in line for line in lines)
    assert any("STALE" in line for line in text_of(of, now=NOW + 11))
    of.took(frame(row()))
    assert "refused" not in text_of(of)[1]


def test_before_the_first_look_it_says_whom_it_asks() -> None:
    of = state()
    assert text_of(of)[1] == "asking nvml ..."
    of.failed("no driver")
    assert text_of(of)[1] == "■ no driver (trying again)"


def test_the_summary_counts_lights_in_words() -> None:
    of = state(row(0), row(1, values={**BUSY, "gpu_temp": 85}), row(2, lost="x", values={}))
    assert text_of(of)[1].strip().split("  ") == ["● 1 ok", "▲ 1 HOT", "■ 1 LOST"]


def test_many_gpus_scroll() -> None:
    of = state(*(row(i) for i in range(40)))
    text_of(of, height=14)
    assert of.page == 10
    for key, first in (("down", 1), ("pgdn", 11), ("up", 10), ("end", 30), ("pgdn", 30), ("home", 0), ("up", 0)):
        assert press(of, key)
        lines = text_of(of, height=14)
        assert of.offset == first, key
        assert f"GPUs {first + 1}-{first + 10} of 40" in lines[-1]
        assert lines[3].split()[0] == str(first)


def test_sorting_goes_round_with_lost_gpus_in_front() -> None:
    hot, cool = row(1, values={**BUSY, "gpu_temp": 80}), row(0, values={**BUSY, "gpu_temp": 30})
    of = state(cool, hot, row(2, values={}), row(3, lost="x", values={}))
    assert [line.row.index for line in of.judged(NOW)] == [0, 1, 2, 3]
    press(of, "s")
    assert of.order == "temp"
    assert [line.row.index for line in of.judged(NOW)] == [3, 1, 0, 2]
    for _ in range(len(ORDERS) - 1):
        press(of, "s")
    assert of.order == "index"


@pytest.mark.parametrize("key", ["q", "Q", "\x03", "\x04"])
def test_leaving(key: str) -> None:
    assert press(state(), key) is False
    assert press(state(), "x") is True


def test_processes_are_listed_by_memory_and_the_rest_is_counted() -> None:
    many = tuple(Process(pid, "me", f"job {pid}", pid, "C") for pid in range(1, 31))
    lines = text_of(state(row(processes=many)), height=20)
    start = next(i for i, line in enumerate(lines) if "PID" in line)
    assert lines[start + 1].split() == ["0", "30", "me", "C", "30", "MiB", "job", "30"]
    shown = sum("job" in line for line in lines)
    assert any(line == f"... {30 - shown} more" for line in lines)


def test_a_process_of_which_little_is_known() -> None:
    lines = text_of(state(row(processes=(Process(7, None, None, None),))))
    assert any(line.split() == ["0", "7", "-", "C", "-", "-"] for line in lines)
    assert any("no processes" in line for line in text_of(state(row(processes=()))))
    assert not any("process" in line for line in text_of(state(row(processes=None))))


def test_sparklines_have_gaps_where_a_look_failed() -> None:
    of = state(row())
    of.failed("x")
    of.took(frame(row()))
    assert figures.trend(row(), of.history, "gpu_util", 5) == "  █ █"
    assert figures.trend(row(), of.history, "gpu_temp", 3) == "▅ ▅"
    assert figures.trend(row(), of.history, "power_usage", 3) == "▆ ▆"


def test_columns_of_higher_rank_stay_when_it_gets_narrow() -> None:
    def heads(width: int | None, hosts: list[str]) -> list[str]:
        return [c.head for c in table.columns(width, hosts) if c.head]

    assert heads(200, ["a"]) == ["GPU", "NAME", "STATE", *(c.head for c in table.FIGURES)]
    assert heads(80, ["a"]) == ["GPU", "NAME", "STATE", "TEMP", "POWER", "UTIL", "MEM"]
    assert heads(80, ["a", "b"]) == ["HOST", "GPU", "NAME", "STATE", "TEMP", "POWER", "UTIL"]
    assert heads(30, ["a", "b"]) == ["HOST", "GPU", "STATE", "TEMP"]
    assert heads(None, []) == ["HOST", "GPU", "NAME", "STATE", *(c.head for c in table.FIGURES)]


@pytest.mark.parametrize("model", ["Tesla P40", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"])
def test_on_80_columns_the_model_is_whole(model: str) -> None:
    lines = text_of(state(*(row(i, model=model, status=BENCH) for i in range(8))), width=80, height=24)
    assert sum(model.removeprefix("NVIDIA ") in line for line in lines) == 8


def test_the_column_of_names_takes_what_they_need() -> None:
    short, long = (table.columns(120, ["a"], [name]) for name in ("Tesla P40", "RTX 6000 Ada Generation"))
    assert [c.width for c in (short[1], long[1])] == [9, 17]
    assert len(short) >= len(long)


@pytest.mark.parametrize("height", [24, 60])
def test_a_status_that_all_share_is_said_once(height: int) -> None:
    lost = row(8, lost="GPU is lost", values={})
    text = text_of(state(*(row(i, status=BENCH) for i in range(8)), lost), height=height)
    assert text[1].endswith("[bench: gpu-burn]")
    assert sum("gpu-burn" in line for line in text) == 1


def test_statuses_that_differ_are_said_of_each() -> None:
    prod = Status(tag="prod")
    text = text_of(state(row(0, status=BENCH), row(1, "attic", status=prod), row(2, "loft")), height=8)
    assert "[" not in text[1]
    assert [line.rpartition("[")[2] for line in text if "[" in line] == ["prod]", "bench: gpu-burn]"]


def test_the_plain_table_says_the_status_of_each_gpu() -> None:
    assert all(
        line.endswith("[bench: gpu-burn]") for line in plain(state(*(row(i, status=BENCH) for i in (0, 1))), NOW)[1:]
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (30, 8)])
def test_the_question_mark_shows_the_keys(width: int, height: int) -> None:
    of = state(row())
    assert "? help" in text_of(of)[-1]
    assert press(of, "?")
    lines = text_of(of, width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "71 C" not in text
    assert "quit" in text
    if height >= 24:
        for each in (*ORDERS, "HOT", "LOST", "STALE", "any key"):
            assert each in text, each
    assert press(of, "s")
    assert of.order == "index", "the key that closes the help does nothing else"
    assert "71 C" in "\n".join(text_of(of))


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_leaving_from_the_help(key: str) -> None:
    of = state(row())
    press(of, "?")
    assert press(of, key) is False


def test_the_plain_table_cuts_nothing() -> None:
    name = "a-very-long-host-name.of.a.data.centre.example"
    assert plain(state(row(host=name)), NOW)[1].startswith(f"{name} ")
