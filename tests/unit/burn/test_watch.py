"""The temperature limit."""

from __future__ import annotations

from services.burn.watch import Watch
from services.host.live import Look
from services.host.series import Sample
from services.host.telemetry import Gpu


def look(time: float, temp: float | None, index: int = 0) -> Look:
    return Look(Gpu(f"GPU-{index}", index), Sample(time, temp))


def test_three_readings_in_a_row_above_the_limit() -> None:
    watch = Watch(90)
    assert watch.take([look(1, 91)]) is None
    assert watch.take([look(2, 92)]) is None
    assert watch.take([look(3, 93)]) == "GPU 0 is at 93 C, above 90 C in 3 readings in a row"


def test_one_good_reading_starts_again() -> None:
    watch = Watch(90)
    temps = [91, 92, 90, 91, 92]  # at the limit is not above it
    assert [watch.take([look(n, temp)]) for n, temp in enumerate(temps)] == [None] * 5


def test_the_same_reading_looked_at_again_is_one() -> None:
    watch = Watch(90)
    assert [watch.take([look(1, 95)]) for _ in range(5)] == [None] * 5


def test_gpus_are_watched_apart() -> None:
    watch = Watch(90)
    for time in range(2):
        assert watch.take([look(time, 95, 0), look(time, 50, 1)]) is None
    assert watch.take([look(2, 50, 0), look(2, 95, 1)]) is None
    assert watch.take([look(3, 95, 0), look(3, 95, 1)]) is None
    assert watch.take([look(4, 95, 0), look(4, 95, 1)]) is not None


def test_a_reading_without_a_temperature_says_nothing() -> None:
    watch = Watch(90)
    for time, temp in enumerate([95, None, 95]):
        assert watch.take([look(time, temp)]) is None
    assert watch.take([look(9, 95)]) is not None


def test_the_silence_of_each_gpu_is_counted_from_its_last_new_temperature() -> None:
    watch = Watch(90)
    assert watch.silence(0) == ("", 0)
    watch.hear([look(1, 50, 0), look(1, 50, 1)], 10)
    watch.hear([look(2, 50, 0), look(2, None, 1)], 11)
    assert watch.silence(12) == ("GPU 1", 2)
    watch.hear([look(3, 50, 1)], 12)  # GPU 0 is gone
    assert watch.silence(20) == ("GPU 0", 9)
    watch.hear([look(2, 50, 0), look(4, 50, 1)], 20)  # its old reading again
    assert watch.silence(20) == ("GPU 0", 9)
    watch.hear([look(5, 50, 0)], 21)
    assert watch.silence(21) == ("GPU 1", 1)


def test_a_gpu_that_never_told_one_is_silent_since_it_was_seen() -> None:
    watch = Watch(90)
    watch.hear([look(1, None)], 10)
    watch.hear([look(2, None)], 11)
    assert watch.silence(15) == ("GPU 0", 5)
