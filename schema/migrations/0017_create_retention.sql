-- For how long rows and aggregates are kept: a copy of the retention policies, which `gpumon migrate` writes with them.
-- Dashboards choose by it what a range is read from; asking TimescaleDB's view of its jobs takes 2 ms to plan, and a
-- query asks a dozen times.
CREATE TABLE retention (
    relation name PRIMARY KEY,
    drop_after interval NOT NULL
);
COMMENT ON TABLE retention IS 'How long each table and aggregate is kept; what is older is dropped. Written by gpumon migrate.';
COMMENT ON COLUMN retention.relation IS 'Name of the table or continuous aggregate.';
COMMENT ON COLUMN retention.drop_after IS 'Older chunks are dropped.';
