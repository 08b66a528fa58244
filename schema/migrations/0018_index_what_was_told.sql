-- What was told last of a GPU (lost, returned) and of a target (down, up): dashboards ask it of all, whatever the time
-- range, and events are kept for good. With `DISTINCT ON (gpu_uuid)` or `(source)`, the newest first, each index is
-- looked into once for each GPU or target, not for each event.
CREATE INDEX gpu_events_lost ON gpu_events (gpu_uuid, time DESC) WHERE kind IN ('gpu_lost', 'gpu_returned');
CREATE INDEX gpu_events_target ON gpu_events (source, time DESC) WHERE kind IN ('target_down', 'target_up');
