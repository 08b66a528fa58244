-- The percentages the collector derives (services/collector/enrich.py), computed here the same way: two decimals,
-- NULL where a part is unknown or the whole is nothing.
CREATE FUNCTION percent(part double precision, whole double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT round((100.0 * part / nullif(whole, 0))::numeric, 2)::double precision
$$;

-- All in MiB. Without `total` the whole is used + free + reserved, as DCGM defines it.
CREATE FUNCTION memory_percent(used bigint, total bigint, free bigint, reserved bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT percent(used, coalesce(total, used + free + coalesce(reserved, 0)))
$$;

-- Samples with who was measured and where it stood at that time, and the two percentages of what was measured.
CREATE VIEW v_gpu_metrics AS
SELECT
    m.time,
    m.gpu_id,
    g.gpu_uuid,
    g.instance_id,
    g.instance_profile,
    g.model,
    g.device,
    g.serial,
    g.brand,
    h.hostname,
    h.gpu_index,
    h.pci_bus_id,
    h.driver_version,
    h.vbios_version,
    h.cluster,
    h.datacenter,
    h.rack,
    m.sm_clock,
    m.mem_clock,
    m.clocks_event_reasons,
    m.pstate,
    m.memory_temp,
    m.gpu_temp,
    m.fan_speed,
    m.power_usage,
    m.total_energy_consumption,
    m.power_limit,
    m.pcie_replay_counter,
    m.pcie_link_gen,
    m.pcie_link_width,
    m.gpu_util,
    m.mem_copy_util,
    m.enc_util,
    m.dec_util,
    m.xid_errors,
    m.power_violation,
    m.thermal_violation,
    m.sync_boost_violation,
    m.board_limit_violation,
    m.low_util_violation,
    m.reliability_violation,
    m.fb_free,
    m.fb_used,
    m.fb_reserved,
    m.ecc_sbe_vol_total,
    m.ecc_dbe_vol_total,
    m.ecc_sbe_agg_total,
    m.ecc_dbe_agg_total,
    m.retired_sbe,
    m.retired_dbe,
    m.retired_pending,
    m.uncorrectable_remapped_rows,
    m.correctable_remapped_rows,
    m.row_remap_failure,
    m.row_remap_pending,
    m.nvlink_crc_flit_error_count,
    m.nvlink_crc_data_error_count,
    m.nvlink_replay_error_count,
    m.nvlink_recovery_error_count,
    m.nvlink_bandwidth_total,
    m.vgpu_license_status,
    m.gr_engine_active,
    m.sm_active,
    m.sm_occupancy,
    m.tensor_active,
    m.dram_active,
    m.fp64_active,
    m.fp32_active,
    m.fp16_active,
    m.pcie_tx_bytes,
    m.pcie_rx_bytes,
    m.nvlink_tx_bytes,
    m.nvlink_rx_bytes,
    m.pod,
    m.namespace,
    m.container,
    m.status_tag,
    m.status_memo,
    m.counter_resets,
    m.extra,
    memory_percent(m.fb_used, (g.properties ->> 'fb_total')::bigint, m.fb_free, m.fb_reserved) AS memory_percent,
    percent(m.power_usage, m.power_limit) AS power_percent
FROM gpu_metrics m
JOIN gpus g USING (gpu_id)
LEFT JOIN gpu_history h ON h.gpu_id = m.gpu_id
    AND (m.time >= h.valid_from OR h.earliest)
    AND (m.time < h.valid_to OR h.valid_to IS NULL);

-- The newest samples of the GPUs that have been silent for more than an hour. A join could not leave out chunks and
-- would look into each of them for each GPU (measured: 8 ms a GPU with 336 chunks); here those that fell silent in
-- the same minute are fetched by one query with the times as constants.
CREATE FUNCTION silent_gpu_samples() RETURNS SETOF gpu_metrics
LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    silent record;
BEGIN
    FOR silent IN
        SELECT min(l.time) AS since, max(l.time) AS until
        FROM gpu_latest l
        WHERE l.time <= now() - INTERVAL '1 hour'
        GROUP BY date_trunc('minute', l.time)
    LOOP
        RETURN QUERY EXECUTE
            'SELECT m.* FROM gpu_metrics m JOIN gpu_latest l ON l.gpu_id = m.gpu_id AND l.time = m.time
             WHERE m.time BETWEEN $1 AND $2 AND l.time BETWEEN $1 AND $2'
            USING silent.since, silent.until;
    END LOOP;
END
$$;

-- One row per GPU: what it is, its newest sample and how old that is. A GPU that was lost so long ago that its rows
-- are gone keeps its row, without values.
--
-- The newest sample of a GPU that reports is found by gpu_latest and the primary key. Samples younger than an hour
-- are not compressed yet (COMPRESS_AFTER) and in few chunks; OFFSET 0 keeps the planner from scanning those instead.
-- The age is written as a difference on purpose: the planner then takes a third of the GPUs for silent and hashes
-- them, where statistics from before an outage would have it compare each with each.
CREATE VIEW v_latest_gpu_metrics AS
SELECT
    s.latest AS time,
    now() - s.latest AS age,
    g.gpu_id,
    g.gpu_uuid,
    g.instance_id,
    g.instance_profile,
    g.model,
    g.device,
    g.serial,
    g.brand,
    g.hostname,
    g.gpu_index,
    g.pci_bus_id,
    g.driver_version,
    g.vbios_version,
    g.cluster,
    g.datacenter,
    g.rack,
    s.sm_clock,
    s.mem_clock,
    s.clocks_event_reasons,
    s.pstate,
    s.memory_temp,
    s.gpu_temp,
    s.fan_speed,
    s.power_usage,
    s.total_energy_consumption,
    s.power_limit,
    s.pcie_replay_counter,
    s.pcie_link_gen,
    s.pcie_link_width,
    s.gpu_util,
    s.mem_copy_util,
    s.enc_util,
    s.dec_util,
    s.xid_errors,
    s.power_violation,
    s.thermal_violation,
    s.sync_boost_violation,
    s.board_limit_violation,
    s.low_util_violation,
    s.reliability_violation,
    s.fb_free,
    s.fb_used,
    s.fb_reserved,
    s.ecc_sbe_vol_total,
    s.ecc_dbe_vol_total,
    s.ecc_sbe_agg_total,
    s.ecc_dbe_agg_total,
    s.retired_sbe,
    s.retired_dbe,
    s.retired_pending,
    s.uncorrectable_remapped_rows,
    s.correctable_remapped_rows,
    s.row_remap_failure,
    s.row_remap_pending,
    s.nvlink_crc_flit_error_count,
    s.nvlink_crc_data_error_count,
    s.nvlink_replay_error_count,
    s.nvlink_recovery_error_count,
    s.nvlink_bandwidth_total,
    s.vgpu_license_status,
    s.gr_engine_active,
    s.sm_active,
    s.sm_occupancy,
    s.tensor_active,
    s.dram_active,
    s.fp64_active,
    s.fp32_active,
    s.fp16_active,
    s.pcie_tx_bytes,
    s.pcie_rx_bytes,
    s.nvlink_tx_bytes,
    s.nvlink_rx_bytes,
    s.pod,
    s.namespace,
    s.container,
    s.status_tag,
    s.status_memo,
    s.counter_resets,
    s.extra,
    memory_percent(s.fb_used, (g.properties ->> 'fb_total')::bigint, s.fb_free, s.fb_reserved) AS memory_percent,
    percent(s.power_usage, s.power_limit) AS power_percent
FROM gpus g
JOIN (
    SELECT l.gpu_id AS id, l.time AS latest, m.*
    FROM gpu_latest l
    LEFT JOIN LATERAL (
        SELECT r.* FROM gpu_metrics r
        WHERE r.gpu_id = l.gpu_id AND r.time = l.time AND r.time > now() - INTERVAL '1 hour'
        OFFSET 0
    ) m ON true
    WHERE now() - l.time < INTERVAL '1 hour'
    UNION ALL
    SELECT l.gpu_id, l.time, m.*
    FROM gpu_latest l
    LEFT JOIN silent_gpu_samples() m ON m.gpu_id = l.gpu_id AND m.time = l.time
    WHERE now() - l.time >= INTERVAL '1 hour'
) s ON s.id = g.gpu_id;

-- The fleet by cluster, data centre and model; counts and sums, so that lines add up. A GPU reports while its newest
-- sample is younger than five minutes (Prometheus' look-back); values are of GPUs that report, and NULL where none
-- has the metric.
CREATE VIEW v_fleet_health_summary AS
WITH newest_score AS (
    SELECT DISTINCT ON (gpu_id) gpu_id, score, grade
    FROM gpu_health_scores
    WHERE time > now() - INTERVAL '1 day'
    ORDER BY gpu_id, time DESC
), gpu AS (
    SELECT v.*, v.age < INTERVAL '5 minutes' AS reports, n.score, n.grade
    FROM v_latest_gpu_metrics v
    LEFT JOIN newest_score n USING (gpu_id)
)
SELECT
    cluster,
    datacenter,
    model,
    count(*) AS gpus,
    count(DISTINCT hostname) AS hosts,
    count(*) FILTER (WHERE reports) AS reporting,
    count(*) FILTER (WHERE NOT reports) AS silent,
    max(time) AS newest_sample,
    avg(gpu_temp) FILTER (WHERE reports) AS avg_gpu_temp,
    max(gpu_temp) FILTER (WHERE reports) AS max_gpu_temp,
    avg(gpu_util) FILTER (WHERE reports) AS avg_gpu_util,
    avg(memory_percent) FILTER (WHERE reports) AS avg_memory_percent,
    sum(power_usage::double precision) FILTER (WHERE reports) AS power_usage,
    sum(power_limit::double precision) FILTER (WHERE reports) AS power_limit,
    count(*) FILTER (WHERE reports AND xid_errors > 0) AS gpus_with_xid,
    count(*) FILTER (WHERE reports AND row_remap_pending = 1) AS gpus_with_row_remap_pending,
    count(*) FILTER (WHERE reports AND row_remap_failure = 1) AS gpus_with_row_remap_failure,
    count(score) AS gpus_scored,
    avg(score) AS avg_health_score,
    min(score) AS min_health_score,
    count(*) FILTER (WHERE grade IN ('excellent', 'good')) AS gpus_good,
    count(*) FILTER (WHERE grade IN ('fair', 'degraded')) AS gpus_to_watch,
    count(*) FILTER (WHERE grade IN ('poor', 'critical', 'failed')) AS gpus_to_replace
FROM gpu
GROUP BY cluster, datacenter, model;

COMMENT ON VIEW v_gpu_metrics IS 'Samples with the GPU and where it stood at that time.';
COMMENT ON VIEW v_latest_gpu_metrics IS 'One row per GPU: its newest sample and how old that is.';
COMMENT ON VIEW v_fleet_health_summary IS 'The fleet by cluster, data centre and model.';
SELECT describe_columns('v_gpu_metrics'), describe_columns('v_latest_gpu_metrics');
COMMENT ON COLUMN v_latest_gpu_metrics.age IS 'Now less the time of the newest sample.';
