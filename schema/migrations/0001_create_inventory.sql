-- Which GPUs there are, what they are and were, and when each was last seen.

CREATE TABLE gpus (
    gpu_id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gpu_uuid         text NOT NULL,
    instance_id      smallint,
    instance_profile text,
    hostname         text NOT NULL,
    gpu_index        smallint,
    device           text,
    model            text,
    pci_bus_id       text,
    driver_version   text,
    vbios_version    text,
    serial           text,
    brand            text,
    nvml_version     text,
    cluster          text,
    datacenter       text,
    rack             text,
    labels           jsonb,
    properties       jsonb,
    missing          jsonb,
    first_seen       timestamptz NOT NULL,
    changed_at       timestamptz NOT NULL,
    CONSTRAINT gpus_identity UNIQUE NULLS NOT DISTINCT (gpu_uuid, instance_id)
);
CREATE INDEX gpus_hostname ON gpus (hostname);

COMMENT ON TABLE gpus IS 'Inventory: one row per GPU or MIG instance, as it was told last. Written by register_gpu() only.';
COMMENT ON COLUMN gpus.gpu_id IS 'Short key of this database; rows of gpu_metrics carry it instead of the UUID.';
COMMENT ON COLUMN gpus.gpu_uuid IS 'UUID as the driver gives it: GPU-... or MIG-....';
COMMENT ON COLUMN gpus.instance_id IS 'MIG GPU instance id (GPU_I_ID); NULL: the whole GPU.';
COMMENT ON COLUMN gpus.instance_profile IS 'MIG profile, for example 1g.5gb.';
COMMENT ON COLUMN gpus.hostname IS 'Host the GPU is in.';
COMMENT ON COLUMN gpus.gpu_index IS 'Index of the GPU on its host, as nvidia-smi counts.';
COMMENT ON COLUMN gpus.device IS 'Device name, for example nvidia0.';
COMMENT ON COLUMN gpus.model IS 'Product name, for example NVIDIA H100 80GB HBM3.';
COMMENT ON COLUMN gpus.pci_bus_id IS 'PCI domain:bus:device.function.';
COMMENT ON COLUMN gpus.driver_version IS 'NVIDIA driver.';
COMMENT ON COLUMN gpus.vbios_version IS 'Video BIOS.';
COMMENT ON COLUMN gpus.serial IS 'Serial number of the board.';
COMMENT ON COLUMN gpus.brand IS 'Brand as NVML names it.';
COMMENT ON COLUMN gpus.nvml_version IS 'NVML library of the exporter.';
COMMENT ON COLUMN gpus.cluster IS 'From the configuration of the target or the collector.';
COMMENT ON COLUMN gpus.datacenter IS 'From the configuration of the target or the collector.';
COMMENT ON COLUMN gpus.rack IS 'From the configuration of the target or the collector.';
COMMENT ON COLUMN gpus.labels IS 'Labels of the target''s configuration beyond cluster, datacenter and rack.';
COMMENT ON COLUMN gpus.properties IS 'Limits and maxima of the device: metric column -> value (kind "property" of the catalogue).';
COMMENT ON COLUMN gpus.missing IS 'Metric column -> why it has no value: unsupported, permission, failed, not_exposed.';
COMMENT ON COLUMN gpus.first_seen IS 'Earliest sample known.';
COMMENT ON COLUMN gpus.changed_at IS 'Time of the event that last changed this row; an older event does not overwrite it.';

CREATE TABLE gpu_history (
    gpu_id         integer NOT NULL REFERENCES gpus ON DELETE CASCADE,
    valid_from     timestamptz NOT NULL,
    valid_to       timestamptz,
    earliest       boolean NOT NULL,
    hostname       text NOT NULL,
    gpu_index      smallint,
    pci_bus_id     text,
    driver_version text,
    vbios_version  text,
    cluster        text,
    datacenter     text,
    rack           text,
    PRIMARY KEY (gpu_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX gpu_history_open ON gpu_history (gpu_id) WHERE valid_to IS NULL;
CREATE UNIQUE INDEX gpu_history_earliest ON gpu_history (gpu_id) WHERE earliest;

COMMENT ON TABLE gpu_history IS 'Where a GPU stood and what it ran, over time: rows of a GPU follow each other without a gap, the open one is now.';
COMMENT ON COLUMN gpu_history.gpu_id IS 'gpus.gpu_id.';
COMMENT ON COLUMN gpu_history.valid_from IS 'Time of the first event that said so (inclusive).';
COMMENT ON COLUMN gpu_history.valid_to IS 'Time of the first event that said otherwise (exclusive); NULL: still so.';
COMMENT ON COLUMN gpu_history.earliest IS 'The first row known of its GPU; it answers for older samples as well.';
COMMENT ON COLUMN gpu_history.hostname IS 'Host the GPU was in.';
COMMENT ON COLUMN gpu_history.gpu_index IS 'Index of the GPU on that host.';
COMMENT ON COLUMN gpu_history.pci_bus_id IS 'PCI domain:bus:device.function.';
COMMENT ON COLUMN gpu_history.driver_version IS 'NVIDIA driver.';
COMMENT ON COLUMN gpu_history.vbios_version IS 'Video BIOS.';
COMMENT ON COLUMN gpu_history.cluster IS 'From the configuration of the target or the collector.';
COMMENT ON COLUMN gpu_history.datacenter IS 'From the configuration of the target or the collector.';
COMMENT ON COLUMN gpu_history.rack IS 'From the configuration of the target or the collector.';

-- Narrow and half full: the sink updates each GPU about once a second, in place (HOT), without touching the index.
CREATE TABLE gpu_latest (
    gpu_id integer PRIMARY KEY,
    time   timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000);

COMMENT ON TABLE gpu_latest IS 'Time of the newest sample of each GPU, kept by the sink about once a second.';
COMMENT ON COLUMN gpu_latest.gpu_id IS 'gpus.gpu_id.';
COMMENT ON COLUMN gpu_latest.time IS 'Its newest sample (UTC).';

-- The history of one GPU when `identity` holds from `seen` on. A late event (older than the open row) fills in what
-- was not known yet; where it contradicts what later events said of the same time, they stand.
CREATE FUNCTION register_gpu_history(gpu integer, identity gpu_history, seen timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    covering  gpu_history;
    following gpu_history;
BEGIN
    SELECT * INTO covering FROM gpu_history h
        WHERE h.gpu_id = gpu AND h.valid_from <= seen ORDER BY h.valid_from DESC LIMIT 1;
    SELECT * INTO following FROM gpu_history h
        WHERE h.gpu_id = gpu AND h.valid_from > seen ORDER BY h.valid_from LIMIT 1;
    -- The comparison is of what is told; when it was told is not part of it.
    identity.gpu_id := gpu;
    identity.valid_from := covering.valid_from;
    identity.valid_to := covering.valid_to;
    identity.earliest := covering.earliest;
    IF covering.gpu_id IS NOT NULL AND identity IS NOT DISTINCT FROM covering THEN
        RETURN;
    END IF;
    identity.valid_from := following.valid_from;
    identity.valid_to := following.valid_to;
    identity.earliest := following.earliest;
    IF following.gpu_id IS NOT NULL AND identity IS NOT DISTINCT FROM following THEN
        -- The same, known earlier than was thought.
        UPDATE gpu_history h SET valid_to = seen WHERE h.gpu_id = gpu AND h.valid_from = covering.valid_from;
        UPDATE gpu_history h SET valid_from = seen WHERE h.gpu_id = gpu AND h.valid_from = following.valid_from;
        RETURN;
    END IF;
    IF covering.gpu_id IS NOT NULL AND covering.valid_to IS NULL
        AND seen < (SELECT g.changed_at FROM gpus g WHERE g.gpu_id = gpu) THEN
        RETURN;
    END IF;
    IF covering.valid_from = seen THEN
        DELETE FROM gpu_history h WHERE h.gpu_id = gpu AND h.valid_from = seen;
    ELSIF covering.gpu_id IS NOT NULL THEN
        UPDATE gpu_history h SET valid_to = seen WHERE h.gpu_id = gpu AND h.valid_from = covering.valid_from;
    ELSIF following.gpu_id IS NOT NULL THEN
        UPDATE gpu_history h SET earliest = false WHERE h.gpu_id = gpu AND h.valid_from = following.valid_from;
    END IF;
    identity.valid_from := seen;
    identity.valid_to := following.valid_from;
    identity.earliest := covering.gpu_id IS NULL OR (covering.earliest AND covering.valid_from = seen);
    INSERT INTO gpu_history SELECT identity.*;
END
$$;

-- The gpu_id of the GPU that `identity` (the object `gpu` of an event, as JSON) describes, seen at `seen`. Makes or
-- updates the inventory and its history. Safe with several sinks at once; a look-up and a comparison when nothing
-- changed.
--
-- What a device is stays known when an exporter does not repeat it (model, PCI address, driver, VBIOS, ...); where it
-- stands (host, cluster, datacenter, rack, labels) and what is missing is as told last.
CREATE FUNCTION register_gpu(identity jsonb, seen timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    old gpus;
    new gpus;
BEGIN
    IF coalesce(identity ->> 'uuid', '') = '' OR identity ->> 'hostname' IS NULL OR seen IS NULL THEN
        RAISE EXCEPTION 'register_gpu: an identity needs uuid and hostname, and the time it was seen'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new.gpu_uuid := identity ->> 'uuid';
    new.instance_id := (identity ->> 'instance_id')::smallint;
    SELECT * INTO old FROM gpus g
        WHERE g.gpu_uuid = new.gpu_uuid AND g.instance_id IS NOT DISTINCT FROM new.instance_id;
    IF old.gpu_id IS NULL THEN
        -- Of several sinks that see a GPU first at once, one inserts; the others wait for it here and then
        -- find its row.
        INSERT INTO gpus (gpu_uuid, instance_id, hostname, first_seen, changed_at)
            VALUES (new.gpu_uuid, new.instance_id, identity ->> 'hostname', seen, '-infinity')
            ON CONFLICT ON CONSTRAINT gpus_identity DO NOTHING;
        SELECT * INTO old FROM gpus g
            WHERE g.gpu_uuid = new.gpu_uuid AND g.instance_id IS NOT DISTINCT FROM new.instance_id;
    END IF;
    new := gpus_as_told(old, identity);
    IF new IS NOT DISTINCT FROM old AND seen >= old.changed_at AND old.changed_at > '-infinity' THEN
        RETURN old.gpu_id;
    END IF;
    RETURN register_gpu_change(old.gpu_id, identity, seen);
END
$$;

-- `current` with what `identity` tells in place of what it held.
CREATE FUNCTION gpus_as_told(current gpus, identity jsonb) RETURNS gpus
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    current.hostname := identity ->> 'hostname';
    current.cluster := identity ->> 'cluster';
    current.datacenter := identity ->> 'datacenter';
    current.rack := identity ->> 'rack';
    current.labels := identity -> 'labels';
    current.missing := identity -> 'missing';
    current.instance_profile := coalesce(identity ->> 'instance_profile', current.instance_profile);
    current.gpu_index := coalesce((identity ->> 'index')::smallint, current.gpu_index);
    current.device := coalesce(identity ->> 'device', current.device);
    current.model := coalesce(identity ->> 'model', current.model);
    current.pci_bus_id := coalesce(identity ->> 'pci_bus_id', current.pci_bus_id);
    current.driver_version := coalesce(identity ->> 'driver_version', current.driver_version);
    current.vbios_version := coalesce(identity ->> 'vbios_version', current.vbios_version);
    current.serial := coalesce(identity ->> 'serial', current.serial);
    current.brand := coalesce(identity ->> 'brand', current.brand);
    current.nvml_version := coalesce(identity ->> 'nvml_version', current.nvml_version);
    current.properties := coalesce(current.properties || (identity -> 'properties'), identity -> 'properties', current.properties);
    RETURN current;
END
$$;

-- The slow half of register_gpu(): under the row's lock, so that two sinks do not write the history at once.
CREATE FUNCTION register_gpu_change(gpu integer, identity jsonb, seen timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    old     gpus;
    new     gpus;
    history gpu_history;
BEGIN
    SELECT * INTO old FROM gpus g WHERE g.gpu_id = gpu FOR NO KEY UPDATE;
    new := gpus_as_told(old, identity);
    history.hostname := new.hostname;
    history.gpu_index := new.gpu_index;
    history.pci_bus_id := new.pci_bus_id;
    history.driver_version := new.driver_version;
    history.vbios_version := new.vbios_version;
    history.cluster := new.cluster;
    history.datacenter := new.datacenter;
    history.rack := new.rack;
    PERFORM register_gpu_history(gpu, history, seen);
    IF seen < old.changed_at THEN
        UPDATE gpus SET first_seen = seen WHERE gpu_id = gpu AND first_seen > seen;
        RETURN gpu;
    END IF;
    UPDATE gpus SET
        (instance_profile, hostname, gpu_index, device, model, pci_bus_id, driver_version, vbios_version, serial, brand,
         nvml_version, cluster, datacenter, rack, labels, properties, missing, first_seen, changed_at) =
        (new.instance_profile, new.hostname, new.gpu_index, new.device, new.model, new.pci_bus_id, new.driver_version,
         new.vbios_version, new.serial, new.brand, new.nvml_version, new.cluster, new.datacenter, new.rack, new.labels,
         new.properties, new.missing, least(old.first_seen, seen), seen)
        WHERE gpu_id = gpu AND (new IS DISTINCT FROM old OR changed_at = '-infinity');
    RETURN gpu;
END
$$;
