"""Dashboards as code: `make dashboards` writes the JSON files beside this package from it (docs/dashboards.md)."""
