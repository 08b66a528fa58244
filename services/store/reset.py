"""Role `reset`: deletes all telemetry, keeps schema, inventory and positions in Kafka.

The inventory stays because running sinks remember its gpu_ids; the positions stay because without them the sink would
read from the topic again what was just deleted.
"""

from __future__ import annotations

import argparse
import logging
import sys

import psycopg
from psycopg import sql

from services.settings import Settings
from services.store.connect import Connection, StoreError, connect, one_line

log = logging.getLogger("reset")

TELEMETRY = (
    "gpu_usage_1hour",
    "gpu_metrics_1day",
    "gpu_metrics_1hour",
    "gpu_metrics_1min",
    "gpu_metrics",
    "gpu_latest",
    "gpu_events",
    "gpu_snapshots",
    "gpu_health_scores",
    "gpu_failure_predictions",
)


ATTEMPTS = 5
"""A refresh takes its locks in another order; the server then ends one of the two, and that may be us."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace, settings: Settings) -> int:
    try:
        with connect(settings, "reset", autocommit=True) as connection:
            if not args.yes and not _confirmed(connection):
                print("nothing deleted", file=sys.stderr)
                return 1
            reset(connection)
    except StoreError as error:
        print(f"gpumon reset: {error}", file=sys.stderr)
        return 1
    except psycopg.errors.UndefinedTable:
        print("gpumon reset: the database has no schema yet: run gpumon migrate", file=sys.stderr)
        return 1
    except psycopg.Error as error:
        print(f"gpumon reset: {one_line(error)} (SQLSTATE {error.sqlstate})", file=sys.stderr)
        return 1
    print("all telemetry deleted; inventory and positions in Kafka kept")
    return 0


def _confirmed(connection: Connection) -> bool:
    if not sys.stdin.isatty():
        raise StoreError("this deletes all telemetry: say --yes where nobody can be asked")
    info = connection.info
    question = (
        f"Delete all telemetry in {info.dbname} on {info.host}:{info.port}? Stop collector and sink first. [yes/no] "
    )
    return input(question).strip() == "yes"


def reset(connection: Connection) -> None:
    """Empty every table and aggregate of TELEMETRY, in one transaction. Raises psycopg.Error."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _truncate(connection)
        except psycopg.errors.DeadlockDetected:
            log.info("a background job was at work on the same tables: once more")
    return _truncate(connection)


def _truncate(connection: Connection) -> None:
    with connection.transaction():
        for name in TELEMETRY:
            # Not prepared: TimescaleDB changes the statement it is given, and a kept one would be broken the next time.
            connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)), prepare=False)
