from __future__ import annotations

import numpy as np
import pytest

from mock_dcgm.errors import Errors

GPUS, DAYS = 2_000, 200


@pytest.fixture(scope="module")
def errors() -> Errors:
    made = Errors(np.arange(GPUS) < GPUS // 2, np.random.default_rng(11))
    made.counts.sbe_aggregate[:] = 0  # the past of the boards is not what is tested
    for _ in range(DAYS):
        made.advance(np.ones(GPUS, dtype=bool), None, 86_400.0)
    return made


def test_double_bit_errors_are_rare_and_leave_their_marks(errors: Errors) -> None:
    counts = errors.counts
    expected = 5.4e-5 * GPUS * DAYS  # 60 faults on 3,200 GPUs in 349 days
    assert counts.dbe_volatile.sum() == pytest.approx(expected, rel=0.6)
    remapped, retired = counts.remapped_uncorrectable, counts.retired_dbe
    assert (remapped + retired == counts.dbe_volatile).all()
    assert not remapped[GPUS // 2 :].any()
    assert not retired[: GPUS // 2].any()
    assert (counts.remap_pending == (remapped > 0)).all()
    assert (counts.retired_pending == retired).all()


def test_single_bit_errors_come_from_few_weak_boards(errors: Errors) -> None:
    counts = errors.counts.sbe_volatile
    weak = counts > DAYS
    assert 5 <= weak.sum() <= 40  # 1 % of the boards
    assert counts[weak].mean() == pytest.approx(20 * DAYS, rel=0.2)
    assert counts[~weak].mean() == pytest.approx(0.02 * DAYS, rel=0.2)
    assert (counts == errors.counts.sbe_aggregate).all()


def test_xids_are_those_of_double_bit_errors_and_of_software(errors: Errors) -> None:
    assert set(np.unique(errors.counts.xid).tolist()) <= {0, 13, 31, 48}
    assert 0.2 < (errors.counts.xid > 0).mean() < 0.5  # 0.002 a day for 200 days
    assert errors.counts.replays.sum() == pytest.approx(0.05 * GPUS * DAYS, rel=0.1)


def test_nothing_crashes_on_an_empty_gpu() -> None:
    errors = Errors(np.zeros(100, dtype=bool), np.random.default_rng(1))
    for _ in range(1_000):
        errors.advance(np.zeros(100, dtype=bool), None, 86_400.0)
    assert not np.isin(errors.counts.xid, (13, 31)).any()


def test_a_driver_reload_forgets_what_is_volatile_and_repairs_what_is_pending() -> None:
    errors = Errors(np.array([True, False]), np.random.default_rng(1))
    errors.double_bit(np.array([0, 1]), 2)
    errors.reload(np.array([True, True]))
    counts = errors.counts
    assert counts.dbe_volatile.tolist() == counts.xid.tolist() == [0, 0]
    assert counts.dbe_aggregate.tolist() == [2, 2]
    assert counts.remapped_uncorrectable.tolist() == [2, 0]
    assert counts.retired_dbe.tolist() == [0, 2]
    assert counts.remap_pending.tolist() == counts.retired_pending.tolist() == [0, 0]
