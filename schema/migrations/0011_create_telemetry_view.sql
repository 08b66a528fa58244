-- The table that the host kit's runbooks and dashboards query, as a view: their SELECTs run word for word. Reset is a
-- command (`gpumon reset`), since a view cannot be truncated.
CREATE SCHEMA IF NOT EXISTS telemetry;

CREATE VIEW telemetry.gpu_telemetry AS
SELECT
    m.time AS ts,
    m.hostname AS host,
    m.gpu_uuid,
    m.pci_bus_id,
    m.model AS gpu_name,
    m.gpu_temp AS temp_c,
    m.status_tag,
    m.status_memo,
    (
        SELECT s.content FROM gpu_snapshots s
        WHERE s.hostname = m.hostname AND s.kind = 'nvidia-smi' AND s.time <= m.time
            AND (s.gpu_id = m.gpu_id OR s.gpu_id IS NULL)
        ORDER BY s.time DESC LIMIT 1
    ) AS raw_json
FROM v_gpu_metrics m;

COMMENT ON VIEW telemetry.gpu_telemetry IS 'Samples under the names of the host kit.';
COMMENT ON COLUMN telemetry.gpu_telemetry.ts IS 'When the sample was taken (UTC).';
COMMENT ON COLUMN telemetry.gpu_telemetry.host IS 'Host the GPU was in.';
COMMENT ON COLUMN telemetry.gpu_telemetry.gpu_uuid IS 'UUID as the driver gives it.';
COMMENT ON COLUMN telemetry.gpu_telemetry.pci_bus_id IS 'PCI domain:bus:device.function at that time.';
COMMENT ON COLUMN telemetry.gpu_telemetry.gpu_name IS 'Product name.';
COMMENT ON COLUMN telemetry.gpu_telemetry.temp_c IS 'C; GPU temperature.';
COMMENT ON COLUMN telemetry.gpu_telemetry.status_tag IS 'What the operator said the host was doing: idle, prod, bench, ...';
COMMENT ON COLUMN telemetry.gpu_telemetry.status_memo IS 'The operator''s memo to the tag.';
COMMENT ON COLUMN telemetry.gpu_telemetry.raw_json IS 'The newest `nvidia-smi -q -x` document kept at or before the sample; NULL: none.';
