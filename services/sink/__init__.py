"""The sink: events from Kafka into TimescaleDB, nothing lost, nothing twice (docs/adr/0004 and 0005)."""
