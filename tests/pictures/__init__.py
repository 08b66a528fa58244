"""`python -m tests.pictures`: the documentation's pictures of the dashboards, drawn from their own queries.

No Grafana takes part: the committed SQL is expanded as Grafana documents it, runs on TimescaleDB filled by the mock,
and matplotlib lays the answers out in the dashboard's grid. Each picture says so.
"""
