"""Scrapes exporters and publishes one event per GPU and scrape; nothing accepted is lost while Kafka is away."""
