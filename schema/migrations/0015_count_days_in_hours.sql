-- A day of an aggregate is 24 hours in UTC. "1 day" is a day of the session's time zone, and one of those has 25 hours:
-- the day before then lay outside the window, and what had grown in it was counted twice.
CREATE OR REPLACE FUNCTION gpu_increases_1day(since timestamptz, until timestamptz) RETURNS TABLE (
    bucket timestamptz,
    gpu_id integer,
    total_energy_consumption_increase bigint,
    pcie_replay_counter_increase bigint,
    power_violation_increase bigint,
    thermal_violation_increase bigint,
    sync_boost_violation_increase bigint,
    board_limit_violation_increase bigint,
    low_util_violation_increase bigint,
    reliability_violation_increase bigint,
    ecc_sbe_vol_total_increase bigint,
    ecc_dbe_vol_total_increase bigint,
    ecc_sbe_agg_total_increase bigint,
    ecc_dbe_agg_total_increase bigint,
    retired_sbe_increase bigint,
    retired_dbe_increase bigint,
    uncorrectable_remapped_rows_increase bigint,
    correctable_remapped_rows_increase bigint,
    nvlink_crc_flit_error_count_increase bigint,
    nvlink_crc_data_error_count_increase bigint,
    nvlink_replay_error_count_increase bigint,
    nvlink_recovery_error_count_increase bigint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT * FROM (
    SELECT
        a.bucket,
        a.gpu_id,
        counter_increase(first_total_energy_consumption, last_total_energy_consumption, resets_total_energy_consumption, last_value(last_total_energy_consumption) OVER before),
        counter_increase(first_pcie_replay_counter, last_pcie_replay_counter, resets_pcie_replay_counter, last_value(last_pcie_replay_counter) OVER before),
        counter_increase(first_power_violation, last_power_violation, resets_power_violation, last_value(last_power_violation) OVER before),
        counter_increase(first_thermal_violation, last_thermal_violation, resets_thermal_violation, last_value(last_thermal_violation) OVER before),
        counter_increase(first_sync_boost_violation, last_sync_boost_violation, resets_sync_boost_violation, last_value(last_sync_boost_violation) OVER before),
        counter_increase(first_board_limit_violation, last_board_limit_violation, resets_board_limit_violation, last_value(last_board_limit_violation) OVER before),
        counter_increase(first_low_util_violation, last_low_util_violation, resets_low_util_violation, last_value(last_low_util_violation) OVER before),
        counter_increase(first_reliability_violation, last_reliability_violation, resets_reliability_violation, last_value(last_reliability_violation) OVER before),
        counter_increase(first_ecc_sbe_vol_total, last_ecc_sbe_vol_total, resets_ecc_sbe_vol_total, last_value(last_ecc_sbe_vol_total) OVER before),
        counter_increase(first_ecc_dbe_vol_total, last_ecc_dbe_vol_total, resets_ecc_dbe_vol_total, last_value(last_ecc_dbe_vol_total) OVER before),
        counter_increase(first_ecc_sbe_agg_total, last_ecc_sbe_agg_total, resets_ecc_sbe_agg_total, last_value(last_ecc_sbe_agg_total) OVER before),
        counter_increase(first_ecc_dbe_agg_total, last_ecc_dbe_agg_total, resets_ecc_dbe_agg_total, last_value(last_ecc_dbe_agg_total) OVER before),
        counter_increase(first_retired_sbe, last_retired_sbe, resets_retired_sbe, last_value(last_retired_sbe) OVER before),
        counter_increase(first_retired_dbe, last_retired_dbe, resets_retired_dbe, last_value(last_retired_dbe) OVER before),
        counter_increase(first_uncorrectable_remapped_rows, last_uncorrectable_remapped_rows, resets_uncorrectable_remapped_rows, last_value(last_uncorrectable_remapped_rows) OVER before),
        counter_increase(first_correctable_remapped_rows, last_correctable_remapped_rows, resets_correctable_remapped_rows, last_value(last_correctable_remapped_rows) OVER before),
        counter_increase(first_nvlink_crc_flit_error_count, last_nvlink_crc_flit_error_count, resets_nvlink_crc_flit_error_count, last_value(last_nvlink_crc_flit_error_count) OVER before),
        counter_increase(first_nvlink_crc_data_error_count, last_nvlink_crc_data_error_count, resets_nvlink_crc_data_error_count, last_value(last_nvlink_crc_data_error_count) OVER before),
        counter_increase(first_nvlink_replay_error_count, last_nvlink_replay_error_count, resets_nvlink_replay_error_count, last_value(last_nvlink_replay_error_count) OVER before),
        counter_increase(first_nvlink_recovery_error_count, last_nvlink_recovery_error_count, resets_nvlink_recovery_error_count, last_value(last_nvlink_recovery_error_count) OVER before)
    FROM gpu_metrics_1day a
    WHERE a.bucket >= since - INTERVAL '240 hours' AND a.bucket < until
    WINDOW before AS (
        PARTITION BY a.gpu_id ORDER BY a.bucket RANGE BETWEEN INTERVAL '240 hours' PRECEDING AND INTERVAL '24 hours' PRECEDING
    )
) AS increases
WHERE increases.bucket >= since
$$;
