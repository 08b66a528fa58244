"""TimescaleDB and a Kafka broker that need no installation: for demos, development and tests, never for production."""
