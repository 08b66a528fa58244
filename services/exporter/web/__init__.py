"""TLS and basic auth, as Prometheus' exporter toolkit has them."""
