"""GPU telemetry pipeline: exporter -> collector -> Kafka -> sink -> TimescaleDB."""
