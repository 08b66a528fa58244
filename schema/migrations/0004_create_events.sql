-- What happened to GPUs, and the large documents about them. Both are rare and kept for good: plain tables.

CREATE TABLE gpu_events (
    time        timestamptz NOT NULL,
    kind        text NOT NULL,
    gpu_id      integer REFERENCES gpus,
    gpu_uuid    text,
    instance_id smallint,
    hostname    text,
    source      text,
    code        integer NOT NULL DEFAULT 0,
    detail      jsonb,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- The identity of the event itself, so that a repeat is recognised even where gpu_id was not known the first time.
    CONSTRAINT gpu_events_identity UNIQUE NULLS NOT DISTINCT (time, kind, gpu_uuid, instance_id, source, code)
);
CREATE INDEX gpu_events_gpu ON gpu_events (gpu_id, time DESC) WHERE gpu_id IS NOT NULL;

COMMENT ON TABLE gpu_events IS 'XIDs, status changes, lost and returned GPUs and targets, counter resets. Insert with ON CONFLICT DO NOTHING.';
COMMENT ON COLUMN gpu_events.time IS 'When it happened (UTC).';
COMMENT ON COLUMN gpu_events.kind IS 'xid, status, gpu_lost, gpu_returned, target_down, target_up, counter_reset.';
COMMENT ON COLUMN gpu_events.gpu_id IS 'gpus.gpu_id; NULL: a whole target, or a GPU not in the inventory.';
COMMENT ON COLUMN gpu_events.gpu_uuid IS 'UUID as the event gave it.';
COMMENT ON COLUMN gpu_events.instance_id IS 'MIG GPU instance id; NULL: the whole GPU.';
COMMENT ON COLUMN gpu_events.hostname IS 'Host.';
COMMENT ON COLUMN gpu_events.source IS 'The scrape target.';
COMMENT ON COLUMN gpu_events.code IS 'The XID; 0 for other kinds.';
COMMENT ON COLUMN gpu_events.detail IS 'What else was told.';
COMMENT ON COLUMN gpu_events.received_at IS 'When it was written here.';

CREATE TABLE gpu_snapshots (
    hostname text NOT NULL,
    gpu_id   integer REFERENCES gpus,
    kind     text NOT NULL,
    time     timestamptz NOT NULL,
    hash     text NOT NULL,
    content  jsonb NOT NULL,
    CONSTRAINT gpu_snapshots_identity UNIQUE NULLS NOT DISTINCT (hostname, gpu_id, kind, time)
);

COMMENT ON TABLE gpu_snapshots IS 'Documents kept on change and on a slow clock, not once per sample.';
COMMENT ON COLUMN gpu_snapshots.hostname IS 'Host it was taken on.';
COMMENT ON COLUMN gpu_snapshots.gpu_id IS 'gpus.gpu_id; NULL: the document is about the whole host.';
COMMENT ON COLUMN gpu_snapshots.kind IS 'Which document: nvidia-smi (of `nvidia-smi -q -x`), ...';
COMMENT ON COLUMN gpu_snapshots.time IS 'When it was taken (UTC).';
COMMENT ON COLUMN gpu_snapshots.hash IS 'Of the content without what always changes: equal means nothing worth keeping has changed.';
COMMENT ON COLUMN gpu_snapshots.content IS 'The document; XML and text as a JSON string in an object.';
