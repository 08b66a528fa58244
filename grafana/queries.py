"""What a panel, a variable or a mark asks: SQL of the PostgreSQL data source, or PromQL. Both sources are variables."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

POSTGRES: Final = models.DataSourceRef(type_val="grafana-postgresql-datasource", uid="${GRAFANA_DS_UID}")
PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="${PROMETHEUS_DS_UID}")


class Sql(variants.Dataquery, cog.Builder[variants.Dataquery]):
    """A query of Grafana's PostgreSQL data source; the SDK has none of its own."""

    def __init__(self, sql: str, *, series: bool = False, ref: str = "A") -> None:
        """`series`: columns `time`, optionally `metric` (the series' name), numbers. Else any table."""
        self.sql = sql
        self.format = "time_series" if series else "table"
        self.ref = ref

    def build(self) -> Sql:
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "datasource": POSTGRES,
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref,
        }


def series(sql: str, ref: str = "A") -> Sql:
    """Rows over time, as Grafana's time series format wants them."""
    return Sql(sql, series=True, ref=ref)


def rows(sql: str, ref: str = "A") -> Sql:
    return Sql(sql, ref=ref)


def prom(expr: str, legend: str, ref: str = "A", *, instant: bool = False) -> prometheus.Dataquery:
    """PromQL; `legend` as Grafana's templates are written: `{{target}}`."""
    query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(PROMETHEUS)
    return (
        query.instant().format(PromQueryFormat.TABLE if legend == "" else PromQueryFormat.TIME_SERIES)
        if instant
        else query.range()
    )


Query = Sql | prometheus.Dataquery
