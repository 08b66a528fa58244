"""Kafka: client configurations, topics, and what identifies a cluster and a topic."""
