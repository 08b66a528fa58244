"""Grafana over its HTTP API: `gpumon grafana import`."""
