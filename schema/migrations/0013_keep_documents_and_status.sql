-- GPU events say what the operator said the host was doing; documents know their GPU by its UUID.

ALTER TABLE gpu_events ADD COLUMN status_tag text, ADD COLUMN status_memo text;

COMMENT ON TABLE gpu_events IS 'XIDs, status changes, lost and returned GPUs and targets, counter resets. Insert with ON CONFLICT DO NOTHING.';
COMMENT ON COLUMN gpu_events.kind IS 'xid, gpu_lost, gpu_returned, counter_reset, status, target_down, target_up.';
COMMENT ON COLUMN gpu_events.status_tag IS 'What the operator said the host was doing then: idle, prod, bench, ...; NULL: nothing, or the host is not the collector''s.';
COMMENT ON COLUMN gpu_events.status_memo IS 'The operator''s memo to the tag.';

-- By UUID, as in gpu_events: a document may come before the first sample, when its GPU has no gpu_id yet, and a repeat
-- must be recognised then too. It also holds for the MIG instances of its GPU, which have a gpu_id each.
ALTER TABLE gpu_snapshots ADD COLUMN gpu_uuid text;
UPDATE gpu_snapshots s SET gpu_uuid = g.gpu_uuid FROM gpus g WHERE g.gpu_id = s.gpu_id;
ALTER TABLE gpu_snapshots DROP CONSTRAINT gpu_snapshots_identity;
ALTER TABLE gpu_snapshots ADD CONSTRAINT gpu_snapshots_identity
    UNIQUE NULLS NOT DISTINCT (hostname, gpu_uuid, kind, time);

COMMENT ON TABLE gpu_snapshots IS 'Documents kept on change and on a slow clock, not once per sample. Insert with ON CONFLICT DO NOTHING.';
COMMENT ON COLUMN gpu_snapshots.gpu_id IS 'gpus.gpu_id; NULL: the whole host, or a GPU that was not in the inventory yet.';
COMMENT ON COLUMN gpu_snapshots.gpu_uuid IS 'UUID as the document gave it; NULL: the document is about the whole host.';

-- The newest document of the GPU, or of its host: two look-ups in the unique index, however many are kept.
CREATE OR REPLACE VIEW telemetry.gpu_telemetry AS
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
        SELECT found.content FROM (
            (SELECT s.time, s.content FROM gpu_snapshots s
             WHERE s.hostname = m.hostname AND s.gpu_uuid = m.gpu_uuid AND s.kind = 'nvidia-smi' AND s.time <= m.time
             ORDER BY s.time DESC LIMIT 1)
            UNION ALL
            (SELECT s.time, s.content FROM gpu_snapshots s
             WHERE s.hostname = m.hostname AND s.gpu_uuid IS NULL AND s.kind = 'nvidia-smi' AND s.time <= m.time
             ORDER BY s.time DESC LIMIT 1)
        ) found ORDER BY found.time DESC LIMIT 1
    ) AS raw_json
FROM v_gpu_metrics m;

-- Documents that only repeat the one before (the slow clock's) are kept as long as the samples they go with; the newest
-- of each GPU and those in which something changed are kept for good. The limit is that of the policy on gpu_metrics,
-- so RETENTION is said once; without that policy nothing is deleted.
CREATE PROCEDURE drop_repeated_snapshots(job_id integer DEFAULT NULL, config jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    keep interval := (
        SELECT (j.config ->> 'drop_after')::interval FROM timescaledb_information.jobs j
        WHERE j.proc_name = 'policy_retention' AND j.hypertable_schema = 'public' AND j.hypertable_name = 'gpu_metrics'
    );
BEGIN
    DELETE FROM gpu_snapshots s USING (
        SELECT d.ctid AS place, d.time, d.hash,
            lag(d.hash) OVER document AS before, lead(d.hash) OVER document AS after
        FROM gpu_snapshots d
        WINDOW document AS (PARTITION BY d.hostname, d.gpu_uuid, d.kind ORDER BY d.time)
    ) told
    WHERE s.ctid = told.place AND told.time < now() - keep AND told.hash = told.before AND told.after IS NOT NULL;
END
$$;

SELECT add_job('drop_repeated_snapshots', INTERVAL '1 day', initial_start => now() + INTERVAL '11 minutes');
