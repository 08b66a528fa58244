"""Real GPUs (or mock ones) -> Prometheus text in dcgm-exporter's form. Reading is decoupled from scraping."""
