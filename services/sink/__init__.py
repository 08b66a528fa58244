"""The sink: events from Kafka into TimescaleDB, nothing lost, nothing twice (docs/adr/0005-sink-guarantees.md)."""
