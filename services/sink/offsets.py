"""The table `kafka_offsets`: where to go on reading, written in the transaction of the rows.

Compare-and-swap: a batch moves a partition from the offset it started at to the one it reached, and only if the table
still holds the former. If another sink has moved it meanwhile (this one was thought dead and its partition given away),
nothing of the batch is written: `Fenced`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from services.sink.batch import Partition, Span


class Fenced(Exception):  # noqa: N818 - what happened to us, not a fault
    """Another sink writes one of the batch's partitions."""


_KEY: Final = """
o.consumer_group = %(group)s AND o.cluster_id = given.cluster_id AND o.topic = given.topic
AND o.topic_id = given.topic_id AND o.partition = given.partition
"""
_GIVEN: Final = "unnest(%(cluster_ids)s::text[], %(topics)s::text[], %(topic_ids)s::text[], %(partitions)s::int[]"

_LOAD: Final = f"""
SELECT given.position, o.next_offset
FROM {_GIVEN}) WITH ORDINALITY AS given(cluster_id, topic, topic_id, partition, position)
JOIN kafka_offsets o ON {_KEY}
"""  # noqa: S608 - constants of this file
_BEGIN: Final = """
INSERT INTO kafka_offsets AS o (consumer_group, cluster_id, topic, topic_id, partition, next_offset)
VALUES (%(group)s, %(cluster_id)s, %(topic)s, %(topic_id)s, %(partition)s, %(next)s)
ON CONFLICT (consumer_group, cluster_id, topic, topic_id, partition)
DO UPDATE SET next_offset = excluded.next_offset, updated_at = now() WHERE o.next_offset = %(held)s
"""
_ADVANCE: Final = f"""
UPDATE kafka_offsets o SET next_offset = given.next, updated_at = now()
FROM {_GIVEN}, %(firsts)s::bigint[], %(nexts)s::bigint[]) AS given(cluster_id, topic, topic_id, partition, first, next)
WHERE {_KEY} AND o.next_offset = given.first
"""  # noqa: S608 - constants of this file


def load(connection: psycopg.Connection, group: str, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """Stored offsets; a partition that has none is left out. Raises psycopg.Error."""
    rows = connection.execute(_LOAD, _parameters(group, partitions)).fetchall()
    return {partitions[position - 1]: offset for position, offset in rows}


def begin(connection: psycopg.Connection, group: str, partition: Partition, start: int, held: int | None) -> None:
    """Write where a partition starts, in place of `held` (None: it has no row). Raises Fenced, psycopg.Error."""
    given = {
        "group": group,
        "cluster_id": partition.identity.cluster_id,
        "topic": partition.identity.topic,
        "topic_id": partition.identity.topic_id,
        "partition": partition.number,
        "next": start,
        "held": held,
    }
    if connection.execute(_BEGIN, given).rowcount != 1:
        raise Fenced(f"{partition.identity.topic}[{partition.number}] was started by another sink")


def advance(connection: psycopg.Connection, group: str, spans: dict[Partition, Span]) -> None:
    """Move all partitions of a batch, in the caller's transaction. Raises Fenced, psycopg.Error."""
    given = _parameters(group, list(spans)) | {
        "firsts": [span.first for span in spans.values()],
        "nexts": [span.next for span in spans.values()],
    }
    moved = connection.execute(_ADVANCE, given).rowcount
    if moved != len(spans):
        names = ", ".join(f"{p.identity.topic}[{p.number}]" for p in spans)
        raise Fenced(f"{len(spans) - moved} of {len(spans)} partitions were moved by another sink ({names})")


def _parameters(group: str, partitions: Sequence[Partition]) -> dict[str, Any]:
    return {
        "group": group,
        "cluster_ids": [p.identity.cluster_id for p in partitions],
        "topics": [p.identity.topic for p in partitions],
        "topic_ids": [p.identity.topic_id for p in partitions],
        "partitions": [p.number for p in partitions],
    }
