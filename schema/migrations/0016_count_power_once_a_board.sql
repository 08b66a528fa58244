-- dcgm-exporter repeats what is measured of a whole GPU with each of its MIG instances: a board of seven instances drew
-- seven times its power. Power and its limit count once a board, by what any of its rows says.
CREATE OR REPLACE VIEW v_fleet_health_summary AS
WITH newest_score AS (
    SELECT DISTINCT ON (gpu_id) gpu_id, score, grade
    FROM gpu_health_scores
    WHERE time > now() - INTERVAL '1 day'
    ORDER BY gpu_id, time DESC
), gpu AS (
    SELECT v.*, v.age < INTERVAL '5 minutes' AS reports, n.score, n.grade
    FROM v_latest_gpu_metrics v
    LEFT JOIN newest_score n USING (gpu_id)
), board AS (
    SELECT *,
        row_number() OVER (PARTITION BY gpu_uuid, cluster, datacenter, model ORDER BY gpu_id) = 1 AS counts,
        max(power_usage) FILTER (WHERE reports) OVER same AS board_power,
        max(power_limit) FILTER (WHERE reports) OVER same AS board_limit
    FROM gpu
    WINDOW same AS (PARTITION BY gpu_uuid, cluster, datacenter, model)
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
    sum(board_power::double precision) FILTER (WHERE counts) AS power_usage,
    sum(board_limit::double precision) FILTER (WHERE counts) AS power_limit,
    count(*) FILTER (WHERE reports AND xid_errors > 0) AS gpus_with_xid,
    count(*) FILTER (WHERE reports AND row_remap_pending = 1) AS gpus_with_row_remap_pending,
    count(*) FILTER (WHERE reports AND row_remap_failure = 1) AS gpus_with_row_remap_failure,
    count(score) AS gpus_scored,
    avg(score) AS avg_health_score,
    min(score) AS min_health_score,
    count(*) FILTER (WHERE grade IN ('excellent', 'good')) AS gpus_good,
    count(*) FILTER (WHERE grade IN ('fair', 'degraded')) AS gpus_to_watch,
    count(*) FILTER (WHERE grade IN ('poor', 'critical', 'failed')) AS gpus_to_replace
FROM board
GROUP BY cluster, datacenter, model;
