"""Everything at once, at random: what no single fault shows. The seed, which repeats the order, is printed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.faults.conftest import MakePipeline
from tests.faults.harness import Pipeline, key
from tests.faults.proxy import TcpProxy
from tests.faults.roles import Role
from tests.support.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

ACTIONS = 30
LONGEST_PAUSE = 3.0
"""Seconds between two actions at most: some meet the pipeline in mid-recovery."""
SEED = "GPUMON_CHAOS_SEED"


class Chaos:
    """Two sinks, a collector, a broker and a database that nobody spares."""

    def __init__(self, pipeline: Pipeline, kafka: KafkaServer, proxy: TcpProxy, dice: random.Random) -> None:
        self.pipeline, self.kafka, self.proxy, self.dice = pipeline, kafka, proxy, dice
        self.collector = pipeline.collector()
        self.sinks = [pipeline.role("sink", "sink") for _ in range(2)]
        self.actions: list[Callable[[], None]] = [
            self.kill_sink, self.kill_sink, self.stop_sink, self.kill_collector, self.stop_collector, self.cut_database,
            self.refuse_database, self.hang_database, self.freeze_broker, self.kill_broker, self.repeat_messages,
        ]  # fmt: skip

    def pause(self, longest: float = LONGEST_PAUSE) -> None:
        time.sleep(self.dice.uniform(0, longest))  # the instant is the fault itself

    def replace_sink(self, end: Callable[[Role], None]) -> None:
        victim = self.sinks.pop(self.dice.randrange(2))
        end(victim)
        self.sinks.append(self.pipeline.role("sink", "sink"))

    def kill_sink(self) -> None:
        self.replace_sink(Role.kill)

    def stop_sink(self) -> None:
        self.replace_sink(Role.stop)

    def kill_collector(self) -> None:
        self.collector.kill()
        self.collector = self.pipeline.collector()

    def stop_collector(self) -> None:
        self.collector.stop()
        self.collector = self.pipeline.collector()

    def cut_database(self) -> None:
        self.proxy.cut()

    def refuse_database(self) -> None:
        self.proxy.refuse()
        self.pause()
        self.proxy.accept()

    def hang_database(self) -> None:
        self.proxy.stall()
        self.pause()
        self.proxy.flow()

    def freeze_broker(self) -> None:
        self.kafka.pause()
        self.pause(6)
        self.kafka.resume()

    def kill_broker(self) -> None:
        self.kafka.kill()
        self.pause()
        self.kafka.start()

    def repeat_messages(self) -> None:
        some = [m for m in self.pipeline.messages() if self.pipeline.sample(m.value()) is not None]
        chosen = self.dice.sample(some, min(100, len(some)))
        self.pipeline.produce([(key(m), m.value()) for m in chosen])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_at_once(mortal_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline) -> None:
    seed = int(os.environ.get(SEED) or random.randrange(1_000_000))  # noqa: TID251  # the tests' own switch
    print(f"{SEED}={seed}")
    dice = random.Random(seed)
    server = conninfo_to_dict(timescale)
    with TcpProxy(str(server["host"]), int(str(server["port"]))) as proxy:
        behind_proxy = make_conninfo(timescale, host="127.0.0.1", port=proxy.port)
        environment = {"KAFKA_GROUP_PROTOCOL": "consumer", "TIMESCALE_DSN": behind_proxy}
        pipeline = make_pipeline(mortal_kafka.bootstrap, timescale, environment=environment)
        chaos = Chaos(pipeline, mortal_kafka, proxy, dice)
        pipeline.wait_for_rows()
        done: list[str] = []
        for _ in range(ACTIONS):
            chaos.pause()
            action = dice.choice(chaos.actions)
            done.append(action.__name__)
            before = set(pipeline.in_spool()) if action == chaos.kill_collector else set()
            action()
            assert before <= set(pipeline.in_spool()) | set(pipeline.in_topic()), "the spool lost something"
        print(", ".join(done))
        chaos.collector.wait_ready()
        pipeline.quiet(chaos.collector)
        pipeline.wait_drained(120)
        balance = pipeline.balance(set(pipeline.in_topic()))
        print(f"{ACTIONS} faults of {len(set(done))} kinds, one on the other: {balance}")
        assert balance.clean, balance
        for role in [chaos.collector, *chaos.sinks]:
            role.stop()
