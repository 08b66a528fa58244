-- One row per GPU (or MIG instance) per scrape. Columns, types and comments follow services/contract/catalogue.py;
-- tests/integration/store/test_catalogue.py holds this file against it.
--
-- Primary key (time, gpu_id): rows arrive in time order, so the index grows at its right edge, which loads more than
-- twice as fast as (gpu_id, time) (docs/adr/0002-key-of-gpu-metrics.md). No foreign key to gpus: a check per row
-- would cost as much as the row, and the sink takes gpu_id from register_gpu().
CREATE TABLE gpu_metrics (
    time                        timestamptz NOT NULL,
    gpu_id                      integer NOT NULL,
    sm_clock                    smallint,
    mem_clock                   smallint,
    clocks_event_reasons        integer,
    pstate                      smallint,
    memory_temp                 smallint,
    gpu_temp                    smallint,
    fan_speed                   smallint,
    power_usage                 real,
    total_energy_consumption    bigint,
    power_limit                 real,
    pcie_replay_counter         bigint,
    pcie_link_gen               smallint,
    pcie_link_width             smallint,
    gpu_util                    smallint,
    mem_copy_util               smallint,
    enc_util                    smallint,
    dec_util                    smallint,
    xid_errors                  smallint,
    power_violation             bigint,
    thermal_violation           bigint,
    sync_boost_violation        bigint,
    board_limit_violation       bigint,
    low_util_violation          bigint,
    reliability_violation       bigint,
    fb_free                     integer,
    fb_used                     integer,
    fb_reserved                 integer,
    ecc_sbe_vol_total           bigint,
    ecc_dbe_vol_total           bigint,
    ecc_sbe_agg_total           bigint,
    ecc_dbe_agg_total           bigint,
    retired_sbe                 integer,
    retired_dbe                 integer,
    retired_pending             integer,
    uncorrectable_remapped_rows integer,
    correctable_remapped_rows   integer,
    row_remap_failure           smallint,
    row_remap_pending           smallint,
    nvlink_crc_flit_error_count bigint,
    nvlink_crc_data_error_count bigint,
    nvlink_replay_error_count   bigint,
    nvlink_recovery_error_count bigint,
    nvlink_bandwidth_total      bigint,
    vgpu_license_status         smallint,
    gr_engine_active            real,
    sm_active                   real,
    sm_occupancy                real,
    tensor_active               real,
    dram_active                 real,
    fp64_active                 real,
    fp32_active                 real,
    fp16_active                 real,
    pcie_tx_bytes               bigint,
    pcie_rx_bytes               bigint,
    nvlink_tx_bytes             bigint,
    nvlink_rx_bytes             bigint,
    pod                         text,
    namespace                   text,
    container                   text,
    status_tag                  text,
    status_memo                 text,
    counter_resets              jsonb,
    extra                       jsonb,
    PRIMARY KEY (time, gpu_id)
);

-- Half an hour: with compression after one hour and a policy every ten minutes each row is in the columnstore within
-- two hours. `gpumon migrate` sets CHUNK_INTERVAL for the chunks to come.
SELECT create_hypertable('gpu_metrics', by_range('time', INTERVAL '30 minutes'), create_default_indexes => false);

-- No segmentby: segments of one GPU in half an hour are too short to compress well. Ordered by GPU, batches of a
-- thousand rows hold few GPUs, and the minimum and maximum of gpu_id kept per batch let a query of one GPU skip the
-- others.
ALTER TABLE gpu_metrics SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = '',
    timescaledb.compress_orderby = 'gpu_id, time'
);

COMMENT ON TABLE gpu_metrics IS 'One row per GPU or MIG instance per scrape. NULL: the exporter gave no value; the reason is in gpus.missing.';
COMMENT ON COLUMN gpu_metrics.time IS 'When the scrape was made (UTC).';
COMMENT ON COLUMN gpu_metrics.gpu_id IS 'gpus.gpu_id: which GPU or MIG instance.';
COMMENT ON COLUMN gpu_metrics.sm_clock IS 'MHz; gauge; DCGM_FI_DEV_SM_CLOCK (100): SM clock frequency (in MHz).';
COMMENT ON COLUMN gpu_metrics.mem_clock IS 'MHz; gauge; DCGM_FI_DEV_MEM_CLOCK (101): Memory clock frequency (in MHz).';
COMMENT ON COLUMN gpu_metrics.clocks_event_reasons IS 'bitmask; gauge; DCGM_FI_DEV_CLOCKS_EVENT_REASONS (112): Current clocks event reasons (bitmask).';
COMMENT ON COLUMN gpu_metrics.pstate IS 'code; gauge; DCGM_FI_DEV_PSTATE (190): Performance state (P-State) 0-15, 0 is highest.';
COMMENT ON COLUMN gpu_metrics.memory_temp IS 'C; gauge; DCGM_FI_DEV_MEMORY_TEMP (140): Memory temperature (in C).';
COMMENT ON COLUMN gpu_metrics.gpu_temp IS 'C; gauge; DCGM_FI_DEV_GPU_TEMP (150): GPU temperature (in C).';
COMMENT ON COLUMN gpu_metrics.fan_speed IS '%; gauge; DCGM_FI_DEV_FAN_SPEED (191): Fan speed for the device (in %).';
COMMENT ON COLUMN gpu_metrics.power_usage IS 'W; gauge; DCGM_FI_DEV_POWER_USAGE (155): Power draw (in W).';
COMMENT ON COLUMN gpu_metrics.total_energy_consumption IS 'mJ; counter; DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION (156): Total energy consumption since boot (in mJ).';
COMMENT ON COLUMN gpu_metrics.power_limit IS 'W; gauge; DCGM_FI_DEV_POWER_MGMT_LIMIT (160): Current power limit for the device (in W).';
COMMENT ON COLUMN gpu_metrics.pcie_replay_counter IS 'count; counter; DCGM_FI_DEV_PCIE_REPLAY_COUNTER (202): Total number of PCIe retries.';
COMMENT ON COLUMN gpu_metrics.pcie_link_gen IS 'count; gauge; DCGM_FI_DEV_PCIE_LINK_GEN (237): PCIe current link generation.';
COMMENT ON COLUMN gpu_metrics.pcie_link_width IS 'count; gauge; DCGM_FI_DEV_PCIE_LINK_WIDTH (238): PCIe current link width.';
COMMENT ON COLUMN gpu_metrics.gpu_util IS '%; gauge; DCGM_FI_DEV_GPU_UTIL (203): GPU utilization (in %).';
COMMENT ON COLUMN gpu_metrics.mem_copy_util IS '%; gauge; DCGM_FI_DEV_MEM_COPY_UTIL (204): Memory utilization (in %).';
COMMENT ON COLUMN gpu_metrics.enc_util IS '%; gauge; DCGM_FI_DEV_ENC_UTIL (206): Encoder utilization (in %).';
COMMENT ON COLUMN gpu_metrics.dec_util IS '%; gauge; DCGM_FI_DEV_DEC_UTIL (207): Decoder utilization (in %).';
COMMENT ON COLUMN gpu_metrics.xid_errors IS 'code; gauge; DCGM_FI_DEV_XID_ERRORS (230): Value of the last XID error encountered.';
COMMENT ON COLUMN gpu_metrics.power_violation IS 'ns; counter; DCGM_FI_DEV_POWER_VIOLATION (240): Throttling duration due to power constraints (in ns).';
COMMENT ON COLUMN gpu_metrics.thermal_violation IS 'ns; counter; DCGM_FI_DEV_THERMAL_VIOLATION (241): Throttling duration due to thermal constraints (in ns).';
COMMENT ON COLUMN gpu_metrics.sync_boost_violation IS 'ns; counter; DCGM_FI_DEV_SYNC_BOOST_VIOLATION (242): Throttling duration due to sync-boost constraints (in ns).';
COMMENT ON COLUMN gpu_metrics.board_limit_violation IS 'ns; counter; DCGM_FI_DEV_BOARD_LIMIT_VIOLATION (243): Throttling duration due to board limit constraints (in ns).';
COMMENT ON COLUMN gpu_metrics.low_util_violation IS 'ns; counter; DCGM_FI_DEV_LOW_UTIL_VIOLATION (244): Throttling duration due to low utilization (in ns).';
COMMENT ON COLUMN gpu_metrics.reliability_violation IS 'ns; counter; DCGM_FI_DEV_RELIABILITY_VIOLATION (245): Throttling duration due to reliability constraints (in ns).';
COMMENT ON COLUMN gpu_metrics.fb_free IS 'MiB; gauge; DCGM_FI_DEV_FB_FREE (251): Framebuffer memory free (in MiB).';
COMMENT ON COLUMN gpu_metrics.fb_used IS 'MiB; gauge; DCGM_FI_DEV_FB_USED (252): Framebuffer memory used (in MiB).';
COMMENT ON COLUMN gpu_metrics.fb_reserved IS 'MiB; gauge; DCGM_FI_DEV_FB_RESERVED (253): Framebuffer memory reserved (in MiB).';
COMMENT ON COLUMN gpu_metrics.ecc_sbe_vol_total IS 'count; counter; DCGM_FI_DEV_ECC_SBE_VOL_TOTAL (310): Total number of single-bit volatile ECC errors.';
COMMENT ON COLUMN gpu_metrics.ecc_dbe_vol_total IS 'count; counter; DCGM_FI_DEV_ECC_DBE_VOL_TOTAL (311): Total number of double-bit volatile ECC errors.';
COMMENT ON COLUMN gpu_metrics.ecc_sbe_agg_total IS 'count; counter; DCGM_FI_DEV_ECC_SBE_AGG_TOTAL (312): Total number of single-bit persistent ECC errors.';
COMMENT ON COLUMN gpu_metrics.ecc_dbe_agg_total IS 'count; counter; DCGM_FI_DEV_ECC_DBE_AGG_TOTAL (313): Total number of double-bit persistent ECC errors.';
COMMENT ON COLUMN gpu_metrics.retired_sbe IS 'count; counter; DCGM_FI_DEV_RETIRED_SBE (390): Total number of retired pages due to single-bit errors.';
COMMENT ON COLUMN gpu_metrics.retired_dbe IS 'count; counter; DCGM_FI_DEV_RETIRED_DBE (391): Total number of retired pages due to double-bit errors.';
COMMENT ON COLUMN gpu_metrics.retired_pending IS 'count; gauge; DCGM_FI_DEV_RETIRED_PENDING (392): Total number of pages pending retirement.';
COMMENT ON COLUMN gpu_metrics.uncorrectable_remapped_rows IS 'count; counter; DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS (393): Number of remapped rows for uncorrectable errors';
COMMENT ON COLUMN gpu_metrics.correctable_remapped_rows IS 'count; counter; DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS (394): Number of remapped rows for correctable errors';
COMMENT ON COLUMN gpu_metrics.row_remap_failure IS 'flag; gauge; DCGM_FI_DEV_ROW_REMAP_FAILURE (395): Whether remapping of rows has failed';
COMMENT ON COLUMN gpu_metrics.row_remap_pending IS 'flag; gauge; DCGM_FI_DEV_ROW_REMAP_PENDING (396): Whether remapping of rows is pending';
COMMENT ON COLUMN gpu_metrics.nvlink_crc_flit_error_count IS 'count; counter; DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL (409): Total number of NVLink flow-control CRC errors.';
COMMENT ON COLUMN gpu_metrics.nvlink_crc_data_error_count IS 'count; counter; DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL (419): Total number of NVLink data CRC errors.';
COMMENT ON COLUMN gpu_metrics.nvlink_replay_error_count IS 'count; counter; DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL (429): Total number of NVLink retries.';
COMMENT ON COLUMN gpu_metrics.nvlink_recovery_error_count IS 'count; counter; DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL (439): Total number of NVLink recovery errors.';
COMMENT ON COLUMN gpu_metrics.nvlink_bandwidth_total IS 'count; gauge; DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL (449): Total number of NVLink bandwidth counters for all lanes.';
COMMENT ON COLUMN gpu_metrics.vgpu_license_status IS 'code; gauge; DCGM_FI_DEV_VGPU_LICENSE_STATUS (526): vGPU License status';
COMMENT ON COLUMN gpu_metrics.gr_engine_active IS 'ratio; gauge; DCGM_FI_PROF_GR_ENGINE_ACTIVE (1001): Ratio of time the graphics engine is active.';
COMMENT ON COLUMN gpu_metrics.sm_active IS 'ratio; gauge; DCGM_FI_PROF_SM_ACTIVE (1002): The ratio of cycles an SM has at least 1 warp assigned.';
COMMENT ON COLUMN gpu_metrics.sm_occupancy IS 'ratio; gauge; DCGM_FI_PROF_SM_OCCUPANCY (1003): The ratio of number of warps resident on an SM.';
COMMENT ON COLUMN gpu_metrics.tensor_active IS 'ratio; gauge; DCGM_FI_PROF_PIPE_TENSOR_ACTIVE (1004): Ratio of cycles the tensor (HMMA) pipe is active.';
COMMENT ON COLUMN gpu_metrics.dram_active IS 'ratio; gauge; DCGM_FI_PROF_DRAM_ACTIVE (1005): Ratio of cycles the device memory interface is active sending or receiving data.';
COMMENT ON COLUMN gpu_metrics.fp64_active IS 'ratio; gauge; DCGM_FI_PROF_PIPE_FP64_ACTIVE (1006): Ratio of cycles the fp64 pipes are active.';
COMMENT ON COLUMN gpu_metrics.fp32_active IS 'ratio; gauge; DCGM_FI_PROF_PIPE_FP32_ACTIVE (1007): Ratio of cycles the fp32 pipes are active.';
COMMENT ON COLUMN gpu_metrics.fp16_active IS 'ratio; gauge; DCGM_FI_PROF_PIPE_FP16_ACTIVE (1008): Ratio of cycles the fp16 pipes are active.';
COMMENT ON COLUMN gpu_metrics.pcie_tx_bytes IS 'B/s; gauge; DCGM_FI_PROF_PCIE_TX_BYTES (1009): The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads - in bytes per second.';
COMMENT ON COLUMN gpu_metrics.pcie_rx_bytes IS 'B/s; gauge; DCGM_FI_PROF_PCIE_RX_BYTES (1010): The rate of data received over the PCIe bus - including both protocol headers and data payloads - in bytes per second.';
COMMENT ON COLUMN gpu_metrics.nvlink_tx_bytes IS 'B/s; gauge; DCGM_FI_PROF_NVLINK_TX_BYTES (1011): The rate of data transmitted over NVLink, not including protocol headers, in bytes per second.';
COMMENT ON COLUMN gpu_metrics.nvlink_rx_bytes IS 'B/s; gauge; DCGM_FI_PROF_NVLINK_RX_BYTES (1012): The rate of data received over NVLink, not including protocol headers, in bytes per second.';
COMMENT ON COLUMN gpu_metrics.pod IS 'Kubernetes pod that held the GPU at this sample.';
COMMENT ON COLUMN gpu_metrics.namespace IS 'Kubernetes namespace of the pod.';
COMMENT ON COLUMN gpu_metrics.container IS 'Container in the pod.';
COMMENT ON COLUMN gpu_metrics.status_tag IS 'What the operator said the host was doing: idle, prod, bench, ...';
COMMENT ON COLUMN gpu_metrics.status_memo IS 'The operator''s memo to the tag.';
COMMENT ON COLUMN gpu_metrics.counter_resets IS 'Counter column -> the value it had reached before it started again; NULL: no counter restarted (docs/adr/0003-counter-resets.md).';
COMMENT ON COLUMN gpu_metrics.extra IS 'Series and labels the exporter gave and the catalogue does not know.';

-- gpu_latest is written at most once a second, so after a crash it may be behind the rows. Brings it up to date from
-- the rows newer than its newest time less ten minutes: twice MAX_FUTURE, by which clocks may differ. Returns how
-- many changed.
CREATE FUNCTION refresh_gpu_latest() RETURNS bigint
LANGUAGE sql AS $$
    WITH newest AS (
        SELECT m.gpu_id, max(m.time) AS time
        FROM gpu_metrics m
        WHERE m.time > (SELECT coalesce(max(l.time), '-infinity') - INTERVAL '10 minutes' FROM gpu_latest l)
        GROUP BY m.gpu_id
        ORDER BY m.gpu_id
    ), written AS (
        INSERT INTO gpu_latest AS l (gpu_id, time) SELECT n.gpu_id, n.time FROM newest n
        ON CONFLICT (gpu_id) DO UPDATE SET time = excluded.time WHERE l.time < excluded.time
        RETURNING 1
    )
    SELECT count(*) FROM written
$$;

-- Comments, units above all, of the columns of a view or aggregate over gpu_metrics and gpus: taken from the tables,
-- so that they are written down once. A prefix says what became of the values: avg_gpu_temp is 'C; avg of gpu_temp'.
CREATE FUNCTION describe_columns(relation regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    target record;
BEGIN
    FOR target IN
        WITH source AS (
            SELECT DISTINCT ON (a.attname) a.attname AS name, col_description(a.attrelid, a.attnum) AS comment
            FROM pg_attribute a
            WHERE a.attrelid IN ('gpu_metrics'::regclass, 'gpus'::regclass) AND a.attnum > 0
            ORDER BY a.attname, a.attrelid = 'gpu_metrics'::regclass DESC
        ), own (name, comment) AS (
            VALUES ('bucket', 'Start of the bucket (UTC).'),
                ('samples', 'count; samples in the bucket'),
                ('memory_percent', '%; framebuffer used, of fb_total'),
                ('power_percent', '%; power_usage of power_limit')
        )
        SELECT v.attname AS name, CASE
            WHEN own.name IS NOT NULL THEN own.comment
            WHEN v.attname = s.name THEN s.comment
            WHEN v.attname LIKE 'count%' THEN 'count; samples with ' || s.name
            ELSE split_part(s.comment, ';', 1) || '; ' || split_part(v.attname, '_', 1) || ' of ' || s.name
        END AS comment
        FROM pg_attribute v
        LEFT JOIN own ON own.name = v.attname
        LEFT JOIN source s ON v.attname = s.name
            OR regexp_replace(v.attname, '^(avg|sum|count|min|max|first|last|resets|or)_', '') = s.name
        WHERE v.attrelid = relation AND v.attnum > 0 AND (own.name IS NOT NULL OR s.name IS NOT NULL)
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, target.name, target.comment);
    END LOOP;
END
$$;
