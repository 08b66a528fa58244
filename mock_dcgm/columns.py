"""State -> what a driver would report: catalogue columns, rounded as the driver rounds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mock_dcgm.errors import Counts
from mock_dcgm.faults import Effects
from mock_dcgm.models import GpuModel
from mock_dcgm.physics import Limits, State
from mock_dcgm.workload import Activity

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_PCIE_RATE_GEN3_X16 = 12.8e9  # bytes per second and direction that transfers reach; doubles with each generation
_COPY_UTIL_PER_DRAM = 1.31  # MEM_COPY_UTIL over DRAM_ACTIVE as measured on an H100 in training (48 % at 0.366)


def _whole(values: Floats) -> npt.NDArray[np.int64]:
    return np.rint(values).astype(np.int64)


def _ratio(values: Floats) -> Floats:
    """Six decimals, 0 to 1."""
    return np.minimum(values, 1.0).round(6)


@dataclass(slots=True)
class Reporter:
    """The fixed facts a report needs beside the state."""

    limits: Limits
    memory_offset: Floats
    memory_slope: Floats
    nvlink_rate: Floats
    """Bytes per second and direction, all links."""
    pcie_idle: Floats
    """Bytes per second on an idle link: 0.02 to 2 MB/s on real boards, a trait of the host's polling."""

    @classmethod
    def of(cls, models: list[GpuModel], limits: Limits, rng: np.random.Generator) -> Reporter:
        memory = np.array([m.memory_temp or (0.0, 0.0) for m in models])
        return cls(
            limits=limits,
            memory_offset=memory[:, 0],
            memory_slope=memory[:, 1],
            nvlink_rate=np.array([m.nvlinks * m.nvlink_link_rate for m in models]),
            pcie_idle=np.exp(rng.uniform(np.log(2e4), np.log(2e6), len(models))),
        )

    def report(
        self, state: State, counts: Counts, activity: Activity, effects: Effects | None, rng: np.random.Generator
    ) -> dict[str, Column]:
        """Column -> one value per GPU. Columns a board lacks hold numbers too: the layout says whose count."""
        return {
            **self._board(state, effects),
            **self._work(activity, rng),
            **self._memory(state),
            **_errors(state, counts),
        }

    def _board(self, state: State, effects: Effects | None) -> dict[str, Column]:
        limits = self.limits
        gen, width = limits.pcie_gen, limits.pcie_width
        if effects is not None:
            gen = np.minimum(gen, effects.link_gen)
            width = np.where(np.isfinite(effects.link_gen), width / 4, width)
        asleep = (state.reasons & 1) & (limits.mem_clock_idle < limits.mem_clock_max)  # HBM boards stay in P0
        return {
            "sm_clock": _whole(state.sm_clock),
            "mem_clock": _whole(state.mem_clock),
            "clocks_event_reasons": state.reasons,
            "pstate": 8 * asleep,
            "gpu_temp": _whole(state.temperature),
            "memory_temp": _whole(self.memory_offset + self.memory_slope * (state.sink + state.runaway)),
            "slowdown_temp": _whole(limits.slowdown_temp),
            "shutdown_temp": _whole(limits.shutdown_temp),
            "power_usage": state.power,
            "total_energy_consumption": np.floor(state.energy + 1e-3).astype(np.int64),
            "power_limit": state.power_limit,
            "pcie_max_link_gen": _whole(limits.pcie_gen),
            "pcie_max_link_width": _whole(limits.pcie_width),
            "pcie_link_gen": _whole(gen),
            "pcie_link_width": _whole(width),
        }

    def _work(self, activity: Activity, rng: np.random.Generator) -> dict[str, Column]:
        nothing = np.zeros(len(activity.util), dtype=np.int64)
        chatter = self.pcie_idle * np.exp(rng.standard_normal(len(activity.util)) * 0.05)
        rate = _PCIE_RATE_GEN3_X16 * 2.0 ** (self.limits.pcie_gen - 3.0) * activity.pcie
        nvlink = self.nvlink_rate * activity.nvlink
        return {
            "gpu_util": _whole(100.0 * activity.util),
            "mem_copy_util": _whole(np.minimum(100.0 * _COPY_UTIL_PER_DRAM * activity.dram, 100.0)),
            "enc_util": nothing,
            "dec_util": nothing,
            **work_ratios(activity),
            "pcie_tx_bytes": _whole(chatter + rate),
            "pcie_rx_bytes": _whole(0.9 * chatter + 1.5 * rate),
            "nvlink_tx_bytes": _whole(nvlink),
            "nvlink_rx_bytes": _whole(nvlink),
            "nvlink_bandwidth_total": _whole(2.0 * nvlink / 1e6),  # a rate in MB/s, whatever its TYPE says
        }

    def _memory(self, state: State) -> dict[str, Column]:
        limits, used = self.limits, _whole(state.memory)
        total, reserved = _whole(limits.memory_total), _whole(limits.memory_reserved)
        return {"fb_total": total, "fb_free": total - reserved - used, "fb_used": used, "fb_reserved": reserved}


def work_ratios(activity: Activity) -> dict[str, Column]:
    """The profiling ratios: of a GPU, or of a MIG instance."""
    return {
        "gr_engine_active": _ratio(activity.util),
        "sm_active": _ratio(activity.sm),
        "sm_occupancy": _ratio(0.35 * activity.sm),
        "tensor_active": _ratio(activity.tensor),
        "dram_active": _ratio(activity.dram),
        "fp64_active": np.zeros(len(activity.util)),
        "fp32_active": _ratio(0.12 * activity.sm),
        "fp16_active": _ratio(0.05 * activity.sm),
    }


def _errors(state: State, counts: Counts) -> dict[str, Column]:
    never = np.zeros(len(counts.xid), dtype=np.int64)
    return {
        "pcie_replay_counter": counts.replays,
        "xid_errors": counts.xid,
        "power_violation": _whole(state.power_violation),
        "thermal_violation": _whole(state.thermal_violation),
        "sync_boost_violation": never,
        "board_limit_violation": never,
        "low_util_violation": _whole(state.low_util_violation),
        "reliability_violation": never,
        "ecc_sbe_vol_total": counts.sbe_volatile,
        "ecc_dbe_vol_total": counts.dbe_volatile,
        "ecc_sbe_agg_total": counts.sbe_aggregate,
        "ecc_dbe_agg_total": counts.dbe_aggregate,
        "retired_sbe": counts.retired_sbe,
        "retired_dbe": counts.retired_dbe,
        "retired_pending": counts.retired_pending,
        "uncorrectable_remapped_rows": counts.remapped_uncorrectable,
        "correctable_remapped_rows": counts.remapped_correctable,
        "row_remap_failure": counts.remap_failed,
        "row_remap_pending": counts.remap_pending,
        "nvlink_crc_flit_error_count": counts.nvlink_crc,
        "nvlink_crc_data_error_count": never,
        "nvlink_replay_error_count": counts.nvlink_replay,
        "nvlink_recovery_error_count": never,
        "vgpu_license_status": never,
    }
