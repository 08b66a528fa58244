"""Which GPUs a dashboard is about: variables, and the SQL they become.

`gpu` is a CTE with a row for each stay of a GPU at a host, since a sample belongs to the host it was taken at. The
join bounds gpu_id from below and above: batches of the columnstore are ordered by it and are left out by these bounds
before they are decompressed, which a list of ids would not do.
"""

from __future__ import annotations

from typing import Final

from grafana.frame import among, choice
from grafana.resolution import FROM, TO, Level

GPU_NAME: Final = (
    "'GPU ' || coalesce({at}.gpu_index::text, left(g.gpu_uuid, 12)) || coalesce(' MIG ' || g.instance_id, '')"
)
HOST: Final = choice(
    "host",
    "Host",
    "SELECT DISTINCT hostname FROM gpu_history ORDER BY 1",
    "The hosts of telemetry.gpu_telemetry.host, from the inventory: the same names without reading every sample.",
)


def told_apart(name: str, gpu_id: str, uuid: str) -> str:
    """SQL: `name`, with the UUID where another GPU has that name too: a board that was replaced has the number of the
    one before."""
    several = f"min({gpu_id}) OVER (PARTITION BY {name}) <> max({gpu_id}) OVER (PARTITION BY {name})"
    return f"{name} || CASE WHEN {several} THEN ' (' || left({uuid}, 12) || ')' ELSE '' END"


_STAYS_OF_HOST: Final = f"""SELECT {told_apart("name", "gpu_id", "gpu_uuid")} AS __text, gpu_id::text AS __value
FROM (
    SELECT {GPU_NAME.format(at="h")} AS name, gpu_id, g.gpu_uuid, min(h.gpu_index) AS index, min(g.instance_id) AS mig
    FROM gpu_history h JOIN gpus g USING (gpu_id) WHERE h.hostname IN (${{host:sqlstring}}) GROUP BY 1, 2, 3
) stay ORDER BY index, mig NULLS FIRST, 1"""
GPUS: Final = choice("gpu", "GPU", _STAYS_OF_HOST, "GPUs that are or were in this host.", several=True)
ONE_GPU: Final = choice("gpu", "GPU", _STAYS_OF_HOST, "The GPU shown; MIG instances are GPUs of their own.")

_OPTIONS: Final = "SELECT DISTINCT coalesce({column}, 'none') FROM gpus ORDER BY 1"
CLUSTER: Final = choice(
    "cluster", "Cluster", _OPTIONS.format(column="cluster"), "From the targets' configuration.", several=True
)
HOSTS: Final = choice(
    "host",
    "Host",
    "SELECT DISTINCT hostname FROM gpus WHERE " + among("coalesce(cluster, 'none')", "cluster") + " ORDER BY 1",
    "Hosts of the clusters chosen.",
    several=True,
)
MODEL: Final = choice("model", "Model", _OPTIONS.format(column="model"), "Product name of the GPU.", several=True)

ON_HOST: Final = f"""stay AS (
    SELECT gpu_id, g.gpu_uuid, {GPU_NAME.format(at="h")} AS name, coalesce(h.valid_to, 'infinity') AS until,
        CASE WHEN h.earliest THEN '-infinity' ELSE h.valid_from END AS since,
        lag(h.valid_to) OVER (PARTITION BY gpu_id ORDER BY h.valid_from) < h.valid_from AS returned
    FROM gpu_history h JOIN gpus g USING (gpu_id) LEFT JOIN gpu_latest l USING (gpu_id)
    WHERE h.hostname IN (${{host:sqlstring}}) AND {among("gpu_id::text", "gpu")}
        AND (h.earliest OR h.valid_from <= {TO}) AND coalesce(h.valid_to, l.time, 'infinity') >= {FROM}
), gpu AS MATERIALIZED (
    SELECT gpu_id, since, until, {told_apart("name", "gpu_id", "gpu_uuid")} AS name,
        count(*) FILTER (WHERE returned) OVER (PARTITION BY gpu_id ORDER BY since) AS visit
    FROM stay
)"""
"""Stays that reach into the range; one that nothing ended reaches to its GPU's newest sample. A stay ends with any
change of the inventory (driver, rack); stays with nothing between them are one visit."""
CHOSEN: Final = " AND ".join((
    among("coalesce({g}.cluster, 'none')", "cluster"),
    among("{g}.hostname", "host"),
    among("coalesce({g}.model, 'none')", "model"),
))  # fmt: skip
"""Condition over gpus (or a view with its columns), alias `{g}`: what the fleet's drop-downs chose."""


def chosen(alias: str = "g") -> str:
    return CHOSEN.replace("{g}", alias)


IN_FLEET: Final = f"gpu AS NOT MATERIALIZED (SELECT g.* FROM gpus g WHERE {chosen()})"
"""Not materialized, so that several workers may scan: a CTE that is stored is read by one."""
CARD: Final = (
    "gpu AS MATERIALIZED (SELECT g.* FROM gpus g WHERE g.gpu_id::text IN (${gpu:sqlstring}) ORDER BY gpu_id LIMIT 1)"
)
"""One GPU, even where a link from elsewhere brought several."""


def on_host(level: Level) -> str:
    """Samples of the GPUs chosen, while they were in the host."""
    return f"""JOIN gpu ON gpu.gpu_id = m.gpu_id AND m.{level.time} >= gpu.since AND m.{level.time} < gpu.until
WHERE m.gpu_id BETWEEN (SELECT min(gpu_id) FROM gpu) AND (SELECT max(gpu_id) FROM gpu)"""


def in_fleet(_: Level) -> str:
    """Without bounds on gpu_id: with them the planner expects few rows, and scans and sorts for those."""
    return "JOIN gpu USING (gpu_id) WHERE true"


def of_card(_: Level) -> str:
    return "WHERE m.gpu_id = (SELECT gpu_id FROM gpu)"
