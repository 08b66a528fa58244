"""What our own exporter says beside DCGM's series, at the other end: inventory, reasons, XIDs, lost GPUs, documents.

An exporter whose answers the test writes; collector, Kafka, sink and TimescaleDB are real processes.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.faults.harness import Pipeline
from tests.faults.roles import Role
from tests.integration.exporter.process import ExporterProcess
from tests.support.fake_smi import FakeSmi, fixture

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

HOST, NODE = "p40-box", "h100-node"
ADDRESS = ("00000000:01:00.0", "00000000:02:00.0")


class ScriptedExporter:
    """Two GPUs of its own. The test changes its fields; every answer is made of them."""

    def __init__(self) -> None:
        self.gpus = [f"GPU-{uuid.uuid4()}" for _ in range(2)]
        self.lost: set[int] = set()
        self.xids: dict[int, tuple[int, float]] = {}
        """XID of the first GPU -> count, time of the last."""
        self.documents: list[dict[str, Any]] = []
        self.documents_at = 0.0
        self.asked = 0
        """Requests for documents."""
        self.broken = False
        self._started = time.monotonic()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def labels(self, gpu: int) -> str:
        where = f'gpu="{gpu}",UUID="{self.gpus[gpu]}",pci_bus_id="{ADDRESS[gpu]}"'
        return f'{where},device="nvidia{gpu}",modelName="Tesla P40",Hostname="{HOST}"'

    def keep(self, hash_: str, said: str) -> None:
        """The documents of all GPUs as of now."""
        self.documents_at = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.documents_at))
        moment = f"{at}.{int(self.documents_at % 1 * 1000):03d}Z"
        content = {"format": "nvidia-smi-xml", "xml": f"<nvidia_smi_log>{said}</nvidia_smi_log>"}
        self.documents = [{"gpu_uuid": g, "time": moment, "hash": hash_, "content": content} for g in self.gpus]

    def metrics(self) -> str:
        here = [gpu for gpu in range(2) if gpu not in self.lost]
        lines = [f"DCGM_FI_DEV_GPU_TEMP{{{self.labels(gpu)}}} 4{gpu}" for gpu in here]
        lines += [f"DCGM_FI_DEV_XID_ERRORS{{{self.labels(0)}}} {next(reversed(self.xids), 0)}"] if 0 in here else []
        for gpu in here:
            lines.append(f'gpumon_gpu_info{{{self.labels(gpu)},driver_version="550.90",serial="0{gpu}"}} 1')
            for field, why in (("DCGM_FI_DEV_MEMORY_TEMP", "unsupported"), ("DCGM_FI_DEV_FAN_SPEED", "permission")):
                lines.append(f'gpumon_field_missing{{{self.labels(gpu)},field="{field}",reason="{why}"}} 1')
        for gpu in self.lost:
            where = f'gpu="{gpu}",UUID="{self.gpus[gpu]}",pci_bus_id="{ADDRESS[gpu]}",Hostname="{HOST}"'
            lines.append(f'gpumon_gpu_lost{{{where},reason="GPU is lost"}} 1')
        for code, (count, last) in self.xids.items():
            lines.append(f'gpumon_xid_errors_total{{{self.labels(0)},xid="{code}"}} {count}')
            told = f'xid="{code}",pid="77",process="python3",origin="kmsg"'
            lines.append(f"gpumon_xid_last_timestamp_seconds{{{self.labels(0)},{told}}} {last:.3f}")
        lines.append(f'gpumon_process_used_memory_bytes{{{self.labels(0)},pid="{time.time_ns()}",type="C"}} 1')
        lines += ['box_gpu_temperature_celsius{device="0"} 40', "gpumon_exporter_up 1"]
        lines.append(f"gpumon_exporter_reads_total {int((time.monotonic() - self._started) * 1000)}")
        lines += [f"gpumon_snapshot_timestamp_seconds {self.documents_at:.3f}"] if self.documents else []
        return "\n".join(lines) + "\n"

    def _answer(self, path: str) -> tuple[int, bytes]:
        if path != "/snapshot":
            return 200, self.metrics().encode()
        self.asked += 1
        if self.broken:
            return 500, b"oops"
        return 200, json.dumps({"hostname": HOST, "documents": self.documents}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = exporter._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
                """Scrapes are not worth a line."""

        return Handler


class Box:
    """A pipeline around the exporter, and questions to its database."""

    def __init__(self, directory: Path, bootstrap: str, dsn: str) -> None:
        self.exporter = ScriptedExporter()
        self.status = directory / "status.json"
        self.status.write_text('{"tag": "bench", "memo": "gpu-burn"}')
        environment = {"TARGETS": self.exporter.target, "STATUS_FILE": str(self.status)}
        self.pipeline = Pipeline(directory, bootstrap, dsn, interval=0.2, environment=environment)
        self._connection = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self.pipeline.close()
        self.exporter.close()
        self._connection.close()

    def ask(self, query: str, *given: Any) -> list[dict[str, Any]]:
        return self._connection.execute(query.encode(), given).fetchall()

    def events(self, kind: str) -> list[dict[str, Any]]:
        return self.ask("SELECT * FROM gpu_events WHERE kind = %s AND source = %s ORDER BY time", kind, self.source)

    @property
    def source(self) -> str:
        return self.exporter.target

    def wait_for(self, condition: Any, what: str) -> None:
        self.pipeline.wait_for(condition, what)


@pytest.fixture
def box(tmp_path: Path, kafka: str, timescale: str) -> Iterator[Box]:
    box = Box(tmp_path, kafka, timescale)
    try:
        box.pipeline.prepare()
        yield box
    finally:
        box.close()


def test_what_only_our_exporter_says(box: Box) -> None:
    exporter, pipeline = box.exporter, box.pipeline
    first_xid = round(time.time() - 60, 3)
    exporter.xids[31] = (1, first_xid)
    exporter.keep("a", "first")
    sink, collector = pipeline.sink(), pipeline.collector()

    # Inventory, and why a column has no value.
    box.wait_for(lambda: box.ask("SELECT FROM gpus WHERE gpu_uuid = %s", exporter.gpus[0]), "the inventory")
    (gpu,) = box.ask("SELECT * FROM gpus WHERE gpu_uuid = %s", exporter.gpus[0])
    assert (gpu["driver_version"], gpu["serial"], gpu["hostname"]) == ("550.90", "00", HOST)
    told = gpu["missing"]
    assert (told["memory_temp"], told["fan_speed"], told["sm_clock"]) == ("unsupported", "permission", "not_exposed")

    # An XID from before the first scrape, at its own time; then a repeat of it, which the gauge cannot show.
    box.wait_for(lambda: len(box.events("xid")) == 1, "the first XID")
    again = round(time.time(), 3)
    exporter.xids[31] = (3, again)
    box.wait_for(lambda: len(box.events("xid")) == 2, "its repeat")
    before, after = box.events("xid")
    assert (before["code"], round(before["time"].timestamp(), 3), before["detail"]["count"]) == (31, first_xid, 1)
    assert (after["code"], round(after["time"].timestamp(), 3), after["detail"]["count"]) == (31, again, 2)
    assert (after["status_tag"], after["status_memo"]) == ("bench", "gpu-burn")
    assert after["detail"].items() >= {"pid": 77, "process": "python3", "origin": "kmsg"}.items()
    assert {"meaning", "severity", "immediate", "investigatory"} <= after["detail"].keys()

    # Documents: the sample that follows shows them.
    def shown(said: str) -> bool:
        found = box.ask(
            "SELECT raw_json FROM telemetry.gpu_telemetry WHERE gpu_uuid = %s ORDER BY ts DESC LIMIT 1",
            exporter.gpus[1],
        )
        return bool(found) and found[0]["raw_json"] is not None and said in found[0]["raw_json"]["xml"]

    box.wait_for(lambda: shown("first"), "the first document in the view")
    exporter.broken = True
    asked = exporter.asked
    exporter.keep("b", "second")
    box.wait_for(lambda: exporter.asked >= asked + 2, "further attempts")
    exporter.broken = False
    box.wait_for(lambda: shown("second"), "the second document in the view")

    # Restarts of the collector: nothing twice, and a GPU that is lost is told once, with the driver's words.
    exporter.lost.add(1)
    box.wait_for(lambda: box.events("gpu_lost"), "the lost GPU")
    for _ in range(2):
        collector.stop()
        collector = _restarted(box)
    exporter.lost.clear()
    box.wait_for(lambda: box.events("gpu_returned"), "its return")
    collector.stop()
    pipeline.wait_for(lambda: _drained(box), "everything being stored")
    sink.stop()

    assert [e["detail"]["reason"] for e in box.events("gpu_lost")] == ["GPU is lost"]
    assert len(box.events("gpu_returned")) == 1
    assert len(box.events("xid")) == 2
    assert box.events("snapshot") == []
    kept = box.ask(
        "SELECT hash, hostname, gpu_id FROM gpu_snapshots WHERE gpu_uuid = %s ORDER BY time", exporter.gpus[0]
    )
    assert [(row["hash"], row["hostname"]) for row in kept] == [("a", HOST), ("b", HOST)]
    extra = box.ask("SELECT extra FROM gpu_metrics WHERE gpu_id = %s AND extra IS NOT NULL", gpu["gpu_id"])
    assert extra == []
    documents = [m for m in pipeline.messages(pipeline.topic_events) if b'"kind":"snapshot"' in (m.value() or b"")]
    assert len(documents) == 4, "two GPUs, two documents each, none twice"
    assert pipeline.dead_letters() == []


def _restarted(box: Box) -> Role:
    """A collector that has scraped, and has asked for the documents."""
    so_far, collector = box.exporter.asked, box.pipeline.collector()
    box.wait_for(lambda: box.exporter.asked > so_far, "the documents being asked for after a restart")
    box.wait_for(lambda: collector.metric("gpumon_collector_samples_scraped_total") > 0, "scrapes after a restart")
    return collector


def _drained(box: Box) -> bool:
    (row,) = box.ask(
        "SELECT coalesce(sum(next_offset), 0)::bigint AS stored FROM kafka_offsets WHERE consumer_group = %s",
        f"sink-{box.pipeline.name}",
    )
    sent = sum(len(box.pipeline.messages(topic)) for topic in (box.pipeline.topic, box.pipeline.topic_events))
    return int(row["stored"]) >= sent


def test_the_real_exporter_on_a_program_that_answers_as_nvidia_smi_does(
    tmp_path: Path, kafka: str, timescale: str
) -> None:
    """From the driver's document to the view: a GPU is lost and comes back."""
    smi = FakeSmi(tmp_path, xml=fixture("h100-pair"))
    flags = ("--source", "nvidia-smi")
    with ExporterProcess(tmp_path, *flags, NVIDIA_SMI=smi.program, NODE_NAME=NODE) as exporter:
        source = exporter.ready().url.removeprefix("http://")
        pipeline = Pipeline(tmp_path, kafka, timescale, interval=0.2, environment={"TARGETS": source})
        try:
            pipeline.prepare()
            with psycopg.connect(timescale, autocommit=True, row_factory=dict_row) as connection:
                _follow(pipeline, smi, source, connection)
        finally:
            pipeline.close()


def _follow(pipeline: Pipeline, smi: FakeSmi, source: str, connection: psycopg.Connection[dict[str, Any]]) -> None:
    def ask(query: str, *given: Any) -> list[dict[str, Any]]:
        return connection.execute(query.encode(), given).fetchall()

    def documents() -> list[str]:
        rows = ask("SELECT content ->> 'xml' AS xml FROM gpu_snapshots WHERE hostname = %s ORDER BY time", NODE)
        return [row["xml"] for row in rows]

    def kinds() -> list[str]:
        return [row["kind"] for row in ask("SELECT kind FROM gpu_events WHERE source = %s ORDER BY time", source)]

    pipeline.sink()
    pipeline.collector()
    pipeline.wait_for(lambda: len(documents()) == 2, "a document of each GPU")
    assert all(xml.count("<gpu ") == 1 and "<driver_version>" in xml for xml in documents())
    shown = "SELECT raw_json ->> 'xml' AS xml FROM telemetry.gpu_telemetry WHERE host = %s AND raw_json IS NOT NULL"
    pipeline.wait_for(lambda: bool(ask(shown, NODE)), "a document in the view")
    (told, *_) = ask("SELECT missing, driver_version, serial FROM gpus WHERE hostname = %s", NODE)
    assert told["driver_version"] is not None
    assert "unsupported" in told["missing"].values()

    smi.lose(gpu=1)
    pipeline.wait_for(lambda: kinds() == ["gpu_lost"], "the loss")
    (event,) = ask("SELECT detail, gpu_uuid, gpu_id FROM gpu_events WHERE source = %s", source)
    assert "lost" in event["detail"]["reason"]
    assert event["gpu_id"] is not None
    smi.heal()
    pipeline.wait_for(lambda: kinds() == ["gpu_lost", "gpu_returned"], "its return")
    assert pipeline.dead_letters() == []
