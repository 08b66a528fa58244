-- Where the sink goes on reading, written in the transaction of the rows: rows and position are there together or not
-- at all. An offset belongs to one life of a topic, so cluster and topic id are part of the key: a new broker or a
-- topic made anew starts at its own beginning.
CREATE TABLE kafka_offsets (
    consumer_group text NOT NULL,
    cluster_id     text NOT NULL,
    topic          text NOT NULL,
    topic_id       text NOT NULL,
    partition      integer NOT NULL,
    next_offset    bigint NOT NULL CHECK (next_offset >= 0),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, cluster_id, topic, topic_id, partition)
) WITH (fillfactor = 50);

COMMENT ON TABLE kafka_offsets IS 'Next offset to read per partition; written by compare-and-swap with the rows.';
COMMENT ON COLUMN kafka_offsets.consumer_group IS 'KAFKA_GROUP of the sink.';
COMMENT ON COLUMN kafka_offsets.cluster_id IS 'Id of the Kafka cluster.';
COMMENT ON COLUMN kafka_offsets.topic IS 'Topic name.';
COMMENT ON COLUMN kafka_offsets.topic_id IS 'Id of the topic; a topic deleted and made anew has another.';
COMMENT ON COLUMN kafka_offsets.partition IS 'Partition number.';
COMMENT ON COLUMN kafka_offsets.next_offset IS 'First offset whose row is not in the database.';
COMMENT ON COLUMN kafka_offsets.updated_at IS 'When it was written.';
