"""Exposition parser and reader: lines per CPU second, against prometheus-client on the same text.

Processor time, not wall time: all of it runs in one thread and waits for nothing, and a busy machine does not count.
"""

from __future__ import annotations

import datetime as dt
import gc
import random
import time
from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from services.collector.enrich import understand
from services.collector.parse import Exposition
from services.collector.reader import TargetReader
from services.collector.values import check_numbers, read_values, topic
from services.contract.event import encode
from tests.bench.report import Figure, Options
from tests.support.exposition import METRICS_PER_GPU, Fleet

NAME = "parse"
SCRAPES = 5
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def run(options: Options) -> list[Figure]:
    gpus = 1_000 if options.quick else 10_000
    figures = _parser(gpus) + _reader(gpus) + _many_hosts(gpus)
    peer = _peer(min(gpus, 500))
    warm = next(f for f in figures if "parser, warm, 1 %" in f.name)
    return [*figures, peer, Figure(NAME, "parser / prometheus-client", warm.value / peer.value, "x")]


def _bodies(fleet: Fleet, share: float) -> list[bytes]:
    bodies = []
    for _ in range(SCRAPES + 1):
        fleet.churn(share)
        bodies.append(fleet.body())
    return bodies


def _rate(work: Callable[[bytes], object], bodies: Iterable[bytes]) -> float:
    """Lines a second of the median body."""
    rates = []
    for body in bodies:
        begin = time.process_time()
        work(body)
        rates.append(body.count(b"\n") / (time.process_time() - begin))
    return sorted(rates)[len(rates) // 2]


def _parser(gpus: int) -> list[Figure]:
    """Lines to typed values, all values of a scrape changed."""
    figures = []
    for what, share in (("warm, labels as before", 0.0), ("warm, 1 % of label parts new", 0.01)):
        parse = partial(_parse, Exposition(understand))
        bodies = _bodies(Fleet(gpus), share)
        cold = _rate(parse, bodies[:1])
        rate = _rate(parse, bodies[1:])
        figures.append(_figure(f"parser, {what}", rate, goal=1_000_000))
    return [*figures, _scattered_churn(gpus // 2), _figure("parser, cold", cold)]


def _scattered_churn(gpus: int) -> Figure:
    """The worst churn: 1 % of lines, each on its own. (A pod that changes changes all lines of its GPU alike.)"""
    rng, fleet = random.Random(1), Fleet(gpus)
    bodies = []
    for _ in range(SCRAPES):
        lines = fleet.body().split(b"\n")
        for i in rng.sample(range(len(lines)), len(lines) // 100):
            lines[i] = lines[i].replace(b'pod="', b'pod="%d-' % rng.getrandbits(30))
        bodies.append(b"\n".join(lines))
    parse = partial(_parse, Exposition(understand))
    parse(bodies[0])
    return _figure("parser, warm, 1 % of lines new, scattered", _rate(parse, bodies[1:]))


def _parse(exposition: Exposition, body: bytes) -> None:
    for found in exposition.runs(body):
        about = topic(found.name)
        if about.metric is not None:
            read_values(about, found.texts, found.joined)
        else:
            check_numbers(found.texts, found.joined)


def _reader(gpus: int) -> list[Figure]:
    """Body to encoded events: parse, assemble, enrich, detect, encode."""
    reader = TargetReader("bench:9400", {"cluster": "bench"})
    bodies = _bodies(Fleet(gpus), 0.01)
    cold = _rate(partial(_read, reader), bodies[:1])
    warm = _rate(partial(_read, reader), bodies[1:])
    note = f"{gpus:,} GPUs x {METRICS_PER_GPU} metrics in one body; encoding included"
    return [
        _figure("read + encode, warm, 1 % of label parts new", warm, goal=700_000, note=note),
        _figure("read + encode, cold", cold),
    ]


def _read(reader: TargetReader, body: bytes) -> None:
    for event in reader.read(body, START).events:
        encode(event)


def _many_hosts(gpus: int) -> list[Figure]:
    """The same fleet as real exporters serve it: eight GPUs a target."""
    hosts = [Fleet(8, seed=i, first_host=i) for i in range(gpus // 8)]
    readers = [TargetReader(f"node-{i}:9400", {}) for i in range(len(hosts))]
    for reader, host in zip(readers, hosts, strict=True):
        _read(reader, host.body())
    rates = []
    for _ in range(3):
        bodies = [host.body() for host in hosts]
        gc.collect()
        begin = time.process_time()
        for reader, body in zip(readers, bodies, strict=True):
            _read(reader, body)
        rates.append(sum(body.count(b"\n") for body in bodies) / (time.process_time() - begin))
    note = f"{len(hosts):,} targets of 8 GPUs x {METRICS_PER_GPU} metrics; encoding included"
    return [_figure("read + encode, warm, 8 GPUs a target", sorted(rates)[1], goal=700_000, note=note)]


def _peer(gpus: int) -> Figure:
    body = Fleet(gpus).body()
    rate = _rate(lambda text: [list(f.samples) for f in text_string_to_metric_families(text.decode())], [body] * 3)
    return _figure("prometheus-client", rate, note=f"{gpus} GPUs")


def _figure(name: str, rate: float, *, goal: float | None = None, note: str = "") -> Figure:
    if goal is None:
        return Figure(NAME, name, rate, "lines/s", note=note)
    return Figure(NAME, name, rate, "lines/s", f">= {goal:,.0f}", rate >= goal, note)
