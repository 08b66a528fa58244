"""`python -m tests.pictures`: the documentation's pictures of the dashboards, taken in a Grafana that somebody runs.

A TimescaleDB is filled by the mock, becomes a data source of that Grafana for as long as it takes, and Chromium opens
the committed dashboards on it.
"""
