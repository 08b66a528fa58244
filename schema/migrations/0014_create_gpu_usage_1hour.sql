-- What a GPU was used for, by whom: the aggregates keep the last status and tenant of each bucket, and a run of ten
-- minutes is not in an hour. Here an hour has a row for each status and tenant it had, from the minutes: exact to the
-- minute for as long as hours are kept. Nearly always one row a GPU and hour.
CREATE MATERIALIZED VIEW gpu_usage_1hour
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 hour', bucket) AS bucket,
    gpu_id,
    last_status_tag AS status_tag,
    last_status_memo AS status_memo,
    last_namespace AS namespace,
    last_pod AS pod,
    last_container AS container,
    min(bucket) AS since,
    max(bucket) AS until,
    sum(samples)::bigint AS samples,
    sum(sum_gpu_temp)::bigint AS sum_gpu_temp,
    sum(count_gpu_temp)::bigint AS count_gpu_temp,
    min(min_gpu_temp) AS min_gpu_temp,
    max(max_gpu_temp) AS max_gpu_temp,
    sum(sum_power_usage) AS sum_power_usage,
    sum(count_power_usage)::bigint AS count_power_usage,
    sum(sum_gpu_util)::bigint AS sum_gpu_util,
    sum(count_gpu_util)::bigint AS count_gpu_util
FROM gpu_metrics_1min
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;

SELECT set_chunk_time_interval('gpu_usage_1hour', INTERVAL '10 days');
ALTER MATERIALIZED VIEW gpu_usage_1hour SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = '',
    timescaledb.compress_orderby = 'gpu_id, bucket'
);

COMMENT ON VIEW gpu_usage_1hour IS 'Per GPU, hour, status and tenant; a minute belongs to the status and tenant it ended with.';
COMMENT ON COLUMN gpu_usage_1hour.bucket IS 'The hour (UTC).';
COMMENT ON COLUMN gpu_usage_1hour.gpu_id IS 'gpus.gpu_id.';
COMMENT ON COLUMN gpu_usage_1hour.status_tag IS 'What the operator said the host was doing; NULL: nothing.';
COMMENT ON COLUMN gpu_usage_1hour.status_memo IS 'The operator''s memo to the tag.';
COMMENT ON COLUMN gpu_usage_1hour.namespace IS 'Kubernetes namespace that held the GPU.';
COMMENT ON COLUMN gpu_usage_1hour.pod IS 'Pod that held the GPU; NULL: none.';
COMMENT ON COLUMN gpu_usage_1hour.container IS 'Container that held the GPU.';
COMMENT ON COLUMN gpu_usage_1hour.since IS 'The first minute of the hour in which it was so.';
COMMENT ON COLUMN gpu_usage_1hour.until IS 'The last such minute (its begin). There may be others between, of another status.';
COMMENT ON COLUMN gpu_usage_1hour.samples IS 'Samples.';
