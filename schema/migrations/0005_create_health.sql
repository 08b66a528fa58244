-- What is concluded from the samples. A score that cannot be known is NULL and its state says why: never 0.

CREATE TABLE gpu_health_scores (
    time                timestamptz NOT NULL,
    gpu_id              integer NOT NULL,
    state               text NOT NULL CHECK (state IN ('known', 'partial', 'unknown')),
    score               real CHECK (score BETWEEN 0 AND 100),
    grade               text CHECK (grade IN ('excellent', 'good', 'fair', 'degraded', 'poor', 'critical', 'failed')),
    memory_score        real CHECK (memory_score BETWEEN 0 AND 100),
    thermal_score       real CHECK (thermal_score BETWEEN 0 AND 100),
    performance_score   real CHECK (performance_score BETWEEN 0 AND 100),
    power_score         real CHECK (power_score BETWEEN 0 AND 100),
    reliability_score   real CHECK (reliability_score BETWEEN 0 AND 100),
    window_seconds      integer CHECK (window_seconds > 0),
    evidence            jsonb,
    model_version       text NOT NULL,
    PRIMARY KEY (time, gpu_id),
    CHECK ((state = 'unknown') = (score IS NULL)),
    CHECK ((score IS NULL) = (grade IS NULL))
);
SELECT create_hypertable('gpu_health_scores', by_range('time', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX gpu_health_scores_gpu ON gpu_health_scores (gpu_id, time DESC);
ALTER TABLE gpu_health_scores SET (
    timescaledb.compress, timescaledb.compress_segmentby = '', timescaledb.compress_orderby = 'gpu_id, time'
);

COMMENT ON TABLE gpu_health_scores IS 'Health of a GPU, 0 (failed) to 100 (as new), with the evidence.';
COMMENT ON COLUMN gpu_health_scores.time IS 'End of the window that was judged (UTC).';
COMMENT ON COLUMN gpu_health_scores.gpu_id IS 'gpus.gpu_id.';
COMMENT ON COLUMN gpu_health_scores.state IS 'known; partial: some dimensions are unknown and left out; unknown: score and grade are NULL.';
COMMENT ON COLUMN gpu_health_scores.score IS 'points 0-100; weighted mean of the dimensions that are known.';
COMMENT ON COLUMN gpu_health_scores.grade IS 'excellent, good, fair, degraded, poor, critical, failed.';
COMMENT ON COLUMN gpu_health_scores.memory_score IS 'points 0-100; NULL: unknown.';
COMMENT ON COLUMN gpu_health_scores.thermal_score IS 'points 0-100; NULL: unknown.';
COMMENT ON COLUMN gpu_health_scores.performance_score IS 'points 0-100; NULL: unknown.';
COMMENT ON COLUMN gpu_health_scores.power_score IS 'points 0-100; NULL: unknown.';
COMMENT ON COLUMN gpu_health_scores.reliability_score IS 'points 0-100; NULL: unknown.';
COMMENT ON COLUMN gpu_health_scores.window_seconds IS 's; length of the window that was judged.';
COMMENT ON COLUMN gpu_health_scores.evidence IS 'Each deduction with what was measured; for unknown dimensions the reason.';
COMMENT ON COLUMN gpu_health_scores.model_version IS 'Version of the rules.';

CREATE TABLE gpu_failure_predictions (
    time                timestamptz NOT NULL,
    gpu_id              integer NOT NULL,
    state               text NOT NULL CHECK (state IN ('known', 'unknown')),
    probability_7d      real CHECK (probability_7d BETWEEN 0 AND 1),
    probability_30d     real CHECK (probability_30d BETWEEN 0 AND 1),
    probability_90d     real CHECK (probability_90d BETWEEN 0 AND 1),
    confidence          real CHECK (confidence BETWEEN 0 AND 1),
    failure_type        text,
    time_to_failure_days real CHECK (time_to_failure_days >= 0),
    alert_level         text CHECK (alert_level IN ('none', 'low', 'medium', 'high', 'critical')),
    evidence            jsonb,
    model_version       text NOT NULL,
    PRIMARY KEY (time, gpu_id),
    CHECK (probability_7d <= probability_30d AND probability_30d <= probability_90d),
    CHECK (state = 'known' OR (probability_7d IS NULL AND probability_30d IS NULL AND probability_90d IS NULL))
);
SELECT create_hypertable('gpu_failure_predictions', by_range('time', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX gpu_failure_predictions_gpu ON gpu_failure_predictions (gpu_id, time DESC);
ALTER TABLE gpu_failure_predictions SET (
    timescaledb.compress, timescaledb.compress_segmentby = '', timescaledb.compress_orderby = 'gpu_id, time'
);

COMMENT ON TABLE gpu_failure_predictions IS 'Probability that a GPU fails within 7, 30 and 90 days.';
COMMENT ON COLUMN gpu_failure_predictions.time IS 'When the prediction was made (UTC).';
COMMENT ON COLUMN gpu_failure_predictions.gpu_id IS 'gpus.gpu_id.';
COMMENT ON COLUMN gpu_failure_predictions.state IS 'known, or unknown (not enough data; the probabilities are NULL).';
COMMENT ON COLUMN gpu_failure_predictions.probability_7d IS 'ratio 0-1.';
COMMENT ON COLUMN gpu_failure_predictions.probability_30d IS 'ratio 0-1.';
COMMENT ON COLUMN gpu_failure_predictions.probability_90d IS 'ratio 0-1.';
COMMENT ON COLUMN gpu_failure_predictions.confidence IS 'ratio 0-1; from the evaluation of the model on data like this.';
COMMENT ON COLUMN gpu_failure_predictions.failure_type IS 'What is expected to fail first: memory, thermal, power, ...';
COMMENT ON COLUMN gpu_failure_predictions.time_to_failure_days IS 'days; NULL: no estimate.';
COMMENT ON COLUMN gpu_failure_predictions.alert_level IS 'none, low, medium, high, critical; NULL with state unknown.';
COMMENT ON COLUMN gpu_failure_predictions.evidence IS 'The features that moved the prediction.';
COMMENT ON COLUMN gpu_failure_predictions.model_version IS 'Version of the model.';
