-- Per GPU and minute. Averages are not stored but sums and counts, so that coarser levels and any window are exact.
--
-- measured gauges   sum_, count_, min_, max_
-- codes             max_, last_       flags   max_       bitmasks   or_ (every bit that was set)
-- counters          first_, last_, resets_: the increase over any run of buckets is
--                       last(last_x) - first(first_x) + sum(resets_x)
--                   also over restarts of the counter. resets_ adds up the values reached before the restarts; where
--                   the very first sample came right after one, first_ has the value before it added, so that the
--                   difference holds (docs/adr/0003-counter-resets.md).
-- NULL: no sample of the bucket had a value.
--
-- Real-time (materialized_only = false): the newest minutes are computed from the rows when asked for, so a dashboard
-- is as fresh as the table. Rows later than the refresh has come are seen after the next refresh.
CREATE MATERIALIZED VIEW gpu_metrics_1min
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 minute', time) AS bucket,
    gpu_id,
    count(*) AS samples,
    sum(sm_clock) AS sum_sm_clock,
    count(sm_clock) AS count_sm_clock,
    min(sm_clock) AS min_sm_clock,
    max(sm_clock) AS max_sm_clock,
    sum(mem_clock) AS sum_mem_clock,
    count(mem_clock) AS count_mem_clock,
    min(mem_clock) AS min_mem_clock,
    max(mem_clock) AS max_mem_clock,
    bit_or(clocks_event_reasons) AS or_clocks_event_reasons,
    max(pstate) AS max_pstate,
    last(pstate, time) FILTER (WHERE pstate IS NOT NULL) AS last_pstate,
    sum(memory_temp) AS sum_memory_temp,
    count(memory_temp) AS count_memory_temp,
    min(memory_temp) AS min_memory_temp,
    max(memory_temp) AS max_memory_temp,
    sum(gpu_temp) AS sum_gpu_temp,
    count(gpu_temp) AS count_gpu_temp,
    min(gpu_temp) AS min_gpu_temp,
    max(gpu_temp) AS max_gpu_temp,
    sum(fan_speed) AS sum_fan_speed,
    count(fan_speed) AS count_fan_speed,
    min(fan_speed) AS min_fan_speed,
    max(fan_speed) AS max_fan_speed,
    sum(power_usage::double precision) AS sum_power_usage,
    count(power_usage) AS count_power_usage,
    min(power_usage) AS min_power_usage,
    max(power_usage) AS max_power_usage,
    first(total_energy_consumption + coalesce((counter_resets->>'total_energy_consumption')::bigint, 0), time)
        FILTER (WHERE total_energy_consumption IS NOT NULL) AS first_total_energy_consumption,
    last(total_energy_consumption, time)
        FILTER (WHERE total_energy_consumption IS NOT NULL) AS last_total_energy_consumption,
    sum((counter_resets->>'total_energy_consumption')::bigint)::bigint AS resets_total_energy_consumption,
    sum(power_limit::double precision) AS sum_power_limit,
    count(power_limit) AS count_power_limit,
    min(power_limit) AS min_power_limit,
    max(power_limit) AS max_power_limit,
    first(pcie_replay_counter + coalesce((counter_resets->>'pcie_replay_counter')::bigint, 0), time)
        FILTER (WHERE pcie_replay_counter IS NOT NULL) AS first_pcie_replay_counter,
    last(pcie_replay_counter, time) FILTER (WHERE pcie_replay_counter IS NOT NULL) AS last_pcie_replay_counter,
    sum((counter_resets->>'pcie_replay_counter')::bigint)::bigint AS resets_pcie_replay_counter,
    sum(pcie_link_gen) AS sum_pcie_link_gen,
    count(pcie_link_gen) AS count_pcie_link_gen,
    min(pcie_link_gen) AS min_pcie_link_gen,
    max(pcie_link_gen) AS max_pcie_link_gen,
    sum(pcie_link_width) AS sum_pcie_link_width,
    count(pcie_link_width) AS count_pcie_link_width,
    min(pcie_link_width) AS min_pcie_link_width,
    max(pcie_link_width) AS max_pcie_link_width,
    sum(gpu_util) AS sum_gpu_util,
    count(gpu_util) AS count_gpu_util,
    min(gpu_util) AS min_gpu_util,
    max(gpu_util) AS max_gpu_util,
    sum(mem_copy_util) AS sum_mem_copy_util,
    count(mem_copy_util) AS count_mem_copy_util,
    min(mem_copy_util) AS min_mem_copy_util,
    max(mem_copy_util) AS max_mem_copy_util,
    sum(enc_util) AS sum_enc_util,
    count(enc_util) AS count_enc_util,
    min(enc_util) AS min_enc_util,
    max(enc_util) AS max_enc_util,
    sum(dec_util) AS sum_dec_util,
    count(dec_util) AS count_dec_util,
    min(dec_util) AS min_dec_util,
    max(dec_util) AS max_dec_util,
    max(xid_errors) AS max_xid_errors,
    last(xid_errors, time) FILTER (WHERE xid_errors IS NOT NULL) AS last_xid_errors,
    first(power_violation + coalesce((counter_resets->>'power_violation')::bigint, 0), time)
        FILTER (WHERE power_violation IS NOT NULL) AS first_power_violation,
    last(power_violation, time) FILTER (WHERE power_violation IS NOT NULL) AS last_power_violation,
    sum((counter_resets->>'power_violation')::bigint)::bigint AS resets_power_violation,
    first(thermal_violation + coalesce((counter_resets->>'thermal_violation')::bigint, 0), time)
        FILTER (WHERE thermal_violation IS NOT NULL) AS first_thermal_violation,
    last(thermal_violation, time) FILTER (WHERE thermal_violation IS NOT NULL) AS last_thermal_violation,
    sum((counter_resets->>'thermal_violation')::bigint)::bigint AS resets_thermal_violation,
    first(sync_boost_violation + coalesce((counter_resets->>'sync_boost_violation')::bigint, 0), time)
        FILTER (WHERE sync_boost_violation IS NOT NULL) AS first_sync_boost_violation,
    last(sync_boost_violation, time) FILTER (WHERE sync_boost_violation IS NOT NULL) AS last_sync_boost_violation,
    sum((counter_resets->>'sync_boost_violation')::bigint)::bigint AS resets_sync_boost_violation,
    first(board_limit_violation + coalesce((counter_resets->>'board_limit_violation')::bigint, 0), time)
        FILTER (WHERE board_limit_violation IS NOT NULL) AS first_board_limit_violation,
    last(board_limit_violation, time) FILTER (WHERE board_limit_violation IS NOT NULL) AS last_board_limit_violation,
    sum((counter_resets->>'board_limit_violation')::bigint)::bigint AS resets_board_limit_violation,
    first(low_util_violation + coalesce((counter_resets->>'low_util_violation')::bigint, 0), time)
        FILTER (WHERE low_util_violation IS NOT NULL) AS first_low_util_violation,
    last(low_util_violation, time) FILTER (WHERE low_util_violation IS NOT NULL) AS last_low_util_violation,
    sum((counter_resets->>'low_util_violation')::bigint)::bigint AS resets_low_util_violation,
    first(reliability_violation + coalesce((counter_resets->>'reliability_violation')::bigint, 0), time)
        FILTER (WHERE reliability_violation IS NOT NULL) AS first_reliability_violation,
    last(reliability_violation, time) FILTER (WHERE reliability_violation IS NOT NULL) AS last_reliability_violation,
    sum((counter_resets->>'reliability_violation')::bigint)::bigint AS resets_reliability_violation,
    sum(fb_free) AS sum_fb_free,
    count(fb_free) AS count_fb_free,
    min(fb_free) AS min_fb_free,
    max(fb_free) AS max_fb_free,
    sum(fb_used) AS sum_fb_used,
    count(fb_used) AS count_fb_used,
    min(fb_used) AS min_fb_used,
    max(fb_used) AS max_fb_used,
    sum(fb_reserved) AS sum_fb_reserved,
    count(fb_reserved) AS count_fb_reserved,
    min(fb_reserved) AS min_fb_reserved,
    max(fb_reserved) AS max_fb_reserved,
    first(ecc_sbe_vol_total + coalesce((counter_resets->>'ecc_sbe_vol_total')::bigint, 0), time)
        FILTER (WHERE ecc_sbe_vol_total IS NOT NULL) AS first_ecc_sbe_vol_total,
    last(ecc_sbe_vol_total, time) FILTER (WHERE ecc_sbe_vol_total IS NOT NULL) AS last_ecc_sbe_vol_total,
    sum((counter_resets->>'ecc_sbe_vol_total')::bigint)::bigint AS resets_ecc_sbe_vol_total,
    first(ecc_dbe_vol_total + coalesce((counter_resets->>'ecc_dbe_vol_total')::bigint, 0), time)
        FILTER (WHERE ecc_dbe_vol_total IS NOT NULL) AS first_ecc_dbe_vol_total,
    last(ecc_dbe_vol_total, time) FILTER (WHERE ecc_dbe_vol_total IS NOT NULL) AS last_ecc_dbe_vol_total,
    sum((counter_resets->>'ecc_dbe_vol_total')::bigint)::bigint AS resets_ecc_dbe_vol_total,
    first(ecc_sbe_agg_total + coalesce((counter_resets->>'ecc_sbe_agg_total')::bigint, 0), time)
        FILTER (WHERE ecc_sbe_agg_total IS NOT NULL) AS first_ecc_sbe_agg_total,
    last(ecc_sbe_agg_total, time) FILTER (WHERE ecc_sbe_agg_total IS NOT NULL) AS last_ecc_sbe_agg_total,
    sum((counter_resets->>'ecc_sbe_agg_total')::bigint)::bigint AS resets_ecc_sbe_agg_total,
    first(ecc_dbe_agg_total + coalesce((counter_resets->>'ecc_dbe_agg_total')::bigint, 0), time)
        FILTER (WHERE ecc_dbe_agg_total IS NOT NULL) AS first_ecc_dbe_agg_total,
    last(ecc_dbe_agg_total, time) FILTER (WHERE ecc_dbe_agg_total IS NOT NULL) AS last_ecc_dbe_agg_total,
    sum((counter_resets->>'ecc_dbe_agg_total')::bigint)::bigint AS resets_ecc_dbe_agg_total,
    first(retired_sbe + coalesce((counter_resets->>'retired_sbe')::bigint, 0), time)
        FILTER (WHERE retired_sbe IS NOT NULL) AS first_retired_sbe,
    last(retired_sbe, time) FILTER (WHERE retired_sbe IS NOT NULL) AS last_retired_sbe,
    sum((counter_resets->>'retired_sbe')::bigint)::bigint AS resets_retired_sbe,
    first(retired_dbe + coalesce((counter_resets->>'retired_dbe')::bigint, 0), time)
        FILTER (WHERE retired_dbe IS NOT NULL) AS first_retired_dbe,
    last(retired_dbe, time) FILTER (WHERE retired_dbe IS NOT NULL) AS last_retired_dbe,
    sum((counter_resets->>'retired_dbe')::bigint)::bigint AS resets_retired_dbe,
    sum(retired_pending) AS sum_retired_pending,
    count(retired_pending) AS count_retired_pending,
    min(retired_pending) AS min_retired_pending,
    max(retired_pending) AS max_retired_pending,
    first(uncorrectable_remapped_rows + coalesce((counter_resets->>'uncorrectable_remapped_rows')::bigint, 0), time)
        FILTER (WHERE uncorrectable_remapped_rows IS NOT NULL) AS first_uncorrectable_remapped_rows,
    last(uncorrectable_remapped_rows, time)
        FILTER (WHERE uncorrectable_remapped_rows IS NOT NULL) AS last_uncorrectable_remapped_rows,
    sum((counter_resets->>'uncorrectable_remapped_rows')::bigint)::bigint AS resets_uncorrectable_remapped_rows,
    first(correctable_remapped_rows + coalesce((counter_resets->>'correctable_remapped_rows')::bigint, 0), time)
        FILTER (WHERE correctable_remapped_rows IS NOT NULL) AS first_correctable_remapped_rows,
    last(correctable_remapped_rows, time)
        FILTER (WHERE correctable_remapped_rows IS NOT NULL) AS last_correctable_remapped_rows,
    sum((counter_resets->>'correctable_remapped_rows')::bigint)::bigint AS resets_correctable_remapped_rows,
    max(row_remap_failure) AS max_row_remap_failure,
    max(row_remap_pending) AS max_row_remap_pending,
    first(nvlink_crc_flit_error_count + coalesce((counter_resets->>'nvlink_crc_flit_error_count')::bigint, 0), time)
        FILTER (WHERE nvlink_crc_flit_error_count IS NOT NULL) AS first_nvlink_crc_flit_error_count,
    last(nvlink_crc_flit_error_count, time)
        FILTER (WHERE nvlink_crc_flit_error_count IS NOT NULL) AS last_nvlink_crc_flit_error_count,
    sum((counter_resets->>'nvlink_crc_flit_error_count')::bigint)::bigint AS resets_nvlink_crc_flit_error_count,
    first(nvlink_crc_data_error_count + coalesce((counter_resets->>'nvlink_crc_data_error_count')::bigint, 0), time)
        FILTER (WHERE nvlink_crc_data_error_count IS NOT NULL) AS first_nvlink_crc_data_error_count,
    last(nvlink_crc_data_error_count, time)
        FILTER (WHERE nvlink_crc_data_error_count IS NOT NULL) AS last_nvlink_crc_data_error_count,
    sum((counter_resets->>'nvlink_crc_data_error_count')::bigint)::bigint AS resets_nvlink_crc_data_error_count,
    first(nvlink_replay_error_count + coalesce((counter_resets->>'nvlink_replay_error_count')::bigint, 0), time)
        FILTER (WHERE nvlink_replay_error_count IS NOT NULL) AS first_nvlink_replay_error_count,
    last(nvlink_replay_error_count, time)
        FILTER (WHERE nvlink_replay_error_count IS NOT NULL) AS last_nvlink_replay_error_count,
    sum((counter_resets->>'nvlink_replay_error_count')::bigint)::bigint AS resets_nvlink_replay_error_count,
    first(nvlink_recovery_error_count + coalesce((counter_resets->>'nvlink_recovery_error_count')::bigint, 0), time)
        FILTER (WHERE nvlink_recovery_error_count IS NOT NULL) AS first_nvlink_recovery_error_count,
    last(nvlink_recovery_error_count, time)
        FILTER (WHERE nvlink_recovery_error_count IS NOT NULL) AS last_nvlink_recovery_error_count,
    sum((counter_resets->>'nvlink_recovery_error_count')::bigint)::bigint AS resets_nvlink_recovery_error_count,
    sum(nvlink_bandwidth_total::double precision) AS sum_nvlink_bandwidth_total,
    count(nvlink_bandwidth_total) AS count_nvlink_bandwidth_total,
    min(nvlink_bandwidth_total) AS min_nvlink_bandwidth_total,
    max(nvlink_bandwidth_total) AS max_nvlink_bandwidth_total,
    max(vgpu_license_status) AS max_vgpu_license_status,
    last(vgpu_license_status, time) FILTER (WHERE vgpu_license_status IS NOT NULL) AS last_vgpu_license_status,
    sum(gr_engine_active::double precision) AS sum_gr_engine_active,
    count(gr_engine_active) AS count_gr_engine_active,
    min(gr_engine_active) AS min_gr_engine_active,
    max(gr_engine_active) AS max_gr_engine_active,
    sum(sm_active::double precision) AS sum_sm_active,
    count(sm_active) AS count_sm_active,
    min(sm_active) AS min_sm_active,
    max(sm_active) AS max_sm_active,
    sum(sm_occupancy::double precision) AS sum_sm_occupancy,
    count(sm_occupancy) AS count_sm_occupancy,
    min(sm_occupancy) AS min_sm_occupancy,
    max(sm_occupancy) AS max_sm_occupancy,
    sum(tensor_active::double precision) AS sum_tensor_active,
    count(tensor_active) AS count_tensor_active,
    min(tensor_active) AS min_tensor_active,
    max(tensor_active) AS max_tensor_active,
    sum(dram_active::double precision) AS sum_dram_active,
    count(dram_active) AS count_dram_active,
    min(dram_active) AS min_dram_active,
    max(dram_active) AS max_dram_active,
    sum(fp64_active::double precision) AS sum_fp64_active,
    count(fp64_active) AS count_fp64_active,
    min(fp64_active) AS min_fp64_active,
    max(fp64_active) AS max_fp64_active,
    sum(fp32_active::double precision) AS sum_fp32_active,
    count(fp32_active) AS count_fp32_active,
    min(fp32_active) AS min_fp32_active,
    max(fp32_active) AS max_fp32_active,
    sum(fp16_active::double precision) AS sum_fp16_active,
    count(fp16_active) AS count_fp16_active,
    min(fp16_active) AS min_fp16_active,
    max(fp16_active) AS max_fp16_active,
    sum(pcie_tx_bytes::double precision) AS sum_pcie_tx_bytes,
    count(pcie_tx_bytes) AS count_pcie_tx_bytes,
    min(pcie_tx_bytes) AS min_pcie_tx_bytes,
    max(pcie_tx_bytes) AS max_pcie_tx_bytes,
    sum(pcie_rx_bytes::double precision) AS sum_pcie_rx_bytes,
    count(pcie_rx_bytes) AS count_pcie_rx_bytes,
    min(pcie_rx_bytes) AS min_pcie_rx_bytes,
    max(pcie_rx_bytes) AS max_pcie_rx_bytes,
    sum(nvlink_tx_bytes::double precision) AS sum_nvlink_tx_bytes,
    count(nvlink_tx_bytes) AS count_nvlink_tx_bytes,
    min(nvlink_tx_bytes) AS min_nvlink_tx_bytes,
    max(nvlink_tx_bytes) AS max_nvlink_tx_bytes,
    sum(nvlink_rx_bytes::double precision) AS sum_nvlink_rx_bytes,
    count(nvlink_rx_bytes) AS count_nvlink_rx_bytes,
    min(nvlink_rx_bytes) AS min_nvlink_rx_bytes,
    max(nvlink_rx_bytes) AS max_nvlink_rx_bytes,
    last(namespace, time) AS last_namespace,
    last(pod, time) AS last_pod,
    last(container, time) AS last_container,
    last(status_tag, time) AS last_status_tag,
    last(status_memo, time) AS last_status_memo
FROM gpu_metrics
GROUP BY 1, 2
WITH NO DATA;

SELECT set_chunk_time_interval('gpu_metrics_1min', INTERVAL '6 hours');
ALTER MATERIALIZED VIEW gpu_metrics_1min SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = '',
    timescaledb.compress_orderby = 'gpu_id, bucket'
);
