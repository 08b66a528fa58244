"""`make bench`: measure, print a table, write bench-results/*.json. Ratios compare within one run on one machine.

example: python -m tests.bench parse sink --quick
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from services.settings import load
from tests.bench.report import Figure, Options, table, write

BENCHES = {
    "parse": "exposition parser against prometheus-client",
    "collector": "GPUs a collector core reads and publishes at 10 s",
    "exporter": "render and scrape of 8 GPUs; CPU and memory of the process",
    "mock": "update and render at 100, 1,000, 10,000 GPUs",
    "sink": "events from a broker into the table against a raw binary COPY",
    "freshness": "scrape to commit at 1,000 GPUs",
    "storage": "compressed bytes per row on a mock day, per column",
    "dashboards": "every query of every dashboard with a week of data",
    "memory": "resident memory of each process at 100, 1,000, 10,000 GPUs",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which of {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data: to try the benchmark, not to quote")
    args = parser.parse_args()
    unknown = [n for n in args.names if n not in BENCHES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    settings = load()
    options = Options(
        quick=args.quick,
        dsn=settings.dsn if settings.timescale_dsn else None,
        bootstrap=settings.kafka_bootstrap if "kafka_bootstrap" in settings.model_fields_set else None,
    )
    everything: list[Figure] = []
    for name in args.names or BENCHES:
        sys.stderr.write(f"{name}: {BENCHES[name]} ...\n")
        figures: list[Figure] = importlib.import_module(f"tests.bench.bench_{name}").run(options)
        write(Path("bench-results"), name, figures)
        print(table(figures), "\n")
        everything += figures
    missed = [f for f in everything if f.met is False]
    sys.stderr.write(f"{len(everything)} figures, {len(missed)} goals not met; bench-results/*.json\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
