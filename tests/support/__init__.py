"""Real servers for the tests: Apache Kafka and a native PostgreSQL, and what they share."""
