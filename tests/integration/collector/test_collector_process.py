"""The collector as users start it: bad targets beside good ones, files that change, settings that cannot work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.settings import child_environment
from tests.integration.collector.exporters import Exporters, MockKafka
from tests.integration.collector.process import CollectorProcess
from tests.support.processes import free_port

BAD = {
    "/hang": "timeout",
    "/drip": "timeout",
    "/cut": "truncated",
    "/chunks-cut": "truncated",
    "/gzip-bad": "bad_encoding",
    "/404": "http_status",
    "/goodbye": "disconnected",
    "/not-http": "not_http",
}
GARBAGE = ("/html", "/binary", "/empty", "/cut-unnoticed")


def test_bad_targets_are_counted_and_logged_once_and_the_good_go_on(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka
) -> None:
    good = [exporters.target(path) for path in ("/metrics", "/gzip", "/slow")]
    bad = [exporters.target(path) for path in (*BAD, *GARBAGE)]
    closed = f"127.0.0.1:{free_port()}"
    with CollectorProcess(
        tmp_path, mock_kafka.bootstrap, TARGETS=",".join([*good, *bad, closed]), COLLECTION_INTERVAL="1"
    ) as collector:
        collector.until(
            lambda: min(collector.metrics()[f"scrapes_total{{{t}}}"] for t in bad) >= 3, "three scrapes each"
        )
        metrics = collector.metrics()
        for target in bad:
            assert metrics[f"up{{{target}}}"] == 0, target
            assert collector.log.count(f"target is down target={target} ") == 1, target
        for reason in set(BAD.values()) | {"refused"}:
            assert metrics[f"scrapes_refused_total{{{reason}}}"] >= 2, reason
        for target in (exporters.address, *good[1:]):
            assert metrics[f"up{{{target}}}"] == 1
            assert metrics[f"scrape_samples{{{target}}}"] == 8
            assert metrics[f"missed_ticks_total{{{target}}}"] == 0
            assert metrics[f"staleness_seconds{{{target}}}"] < 3
        assert metrics[f"scrape_duration_seconds{{{good[2]}}}"] >= 0.4
        assert collector.get("/livez")[0] == collector.get("/readyz")[0] == 200
        assert collector.stop() == 0


def test_a_target_file_is_read_again_when_it_changes(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka
) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps([{"targets": [exporters.address], "labels": {"rack": "r7"}}]))
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS_FILES=str(tmp_path / "*.json")) as collector:
        collector.until_metric("events_published_total", 4)
        path.write_text("[{")
        collector.until(lambda: "keeping the last good list" in collector.log, "the complaint")
        assert collector.metrics()["target_files_failed"] == 1
        assert collector.metrics()["targets"] == 1
        path.write_text(json.dumps([{"targets": [exporters.address], "labels": {"__metrics_path__": "/gzip"}}]))
        collector.until_metric(f"up{{{exporters.target('/gzip')}}}")
        assert collector.metrics()["targets"] == 1
        assert "target file is good again" in collector.log


def test_not_ready_before_a_file_gives_targets(tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka) -> None:
    path = tmp_path / "targets.json"
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS_FILES=str(path)) as collector:
        status, body = collector.get("/readyz")
        assert status == 503
        assert "TARGETS_FILES" in body
        assert collector.get("/livez")[0] == 200
        path.write_text(json.dumps([{"targets": [exporters.address]}]))
        collector.until(lambda: collector.get("/readyz")[0] == 200, "readiness")


def test_a_full_spool_refuses_and_says_so(tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka) -> None:
    exporters.gpus = 500
    mock_kafka.down()
    with CollectorProcess(
        tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target(), SPOOL_MAX_BYTES=str(1024 * 1024)
    ) as collector:
        collector.until_metric("scrapes_refused_total{spool_full}")
        assert collector.metrics()["spool_bytes"] <= 1024 * 1024
        collector.until(lambda: "SPOOL_MAX_BYTES" in collector.get("/readyz")[1], "not being ready")
        assert collector.metrics()["events_refused_total{spool_full}"] >= 500
        mock_kafka.up()
        collector.until(lambda: collector.get("/readyz")[0] == 200, "readiness")
        collector.until(lambda: collector.metrics()["spool_records"] == 0, "the flush")


def test_a_second_collector_on_the_same_spool(tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka) -> None:
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 4)
        code, message = start(TARGETS="localhost:9400", SPOOL_DIR=str(collector.spool))
        assert code == 1
        assert message == (
            f"gpumon collector: SPOOL_DIR={collector.spool}: in use by the collector with process id {collector.pid}; "
            "give each collector a directory of its own"
        )


# Settings that cannot work: one line each


def start(*arguments: str, **environment: str) -> tuple[int, str]:
    """(exit code, stderr without log lines) of a collector that must end by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "services", "collector", *arguments],
        env=child_environment(**{"KAFKA_BOOTSTRAP": "127.0.0.1:1", **environment}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("20")]
    return done.returncode, "\n".join(lines)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "no targets: set TARGETS"),
        ({"TARGETS": "localhost"}, "'localhost' is neither `host:port` nor a URL"),
        ({"TARGETS": "a:1", "COLLECTION_INTERVAL": "0"}, "COLLECTION_INTERVAL='0'"),
        ({"TARGETS": "a:1", "SCRAPE_TIMEOUT": "60"}, "SCRAPE_TIMEOUT=60 is longer than COLLECTION_INTERVAL=10"),
        ({"TARGETS": "a:1", "SHARD_COUNT": "2", "SHARD_INDEX": "2"}, "SHARD_INDEX=2 with SHARD_COUNT=2"),
        ({"TARGETS": "a:1", "KAFKA_BOOTSTRAP": "a:b:c"}, "KAFKA_BOOTSTRAP='a:b:c'"),
        ({"TARGETS": "a:1", "SPOOL_MAX_BYTES": "5"}, "SPOOL_MAX_BYTES='5'"),
    ],
)
def test_bad_settings_end_it_with_one_line(tmp_path: Path, environment: dict[str, str], says: str) -> None:
    code, message = start(**{"SPOOL_DIR": str(tmp_path), **environment})
    assert code == 2, message
    assert says in message
    assert len(message.splitlines()) == 1, message


def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = start(TARGETS="a:1", SPOOL_DIR=str(tmp_path), OPS_PORT=str(port))
    assert code == 1
    assert message.startswith(f"gpumon collector: OPS_HOST=127.0.0.1 OPS_PORT={port}: cannot listen there (Address")
    assert len(message.splitlines()) == 1


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A directory in which nothing can be made, even by root: a file stands where one would be."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "spool"


def test_unwritable_spool(unwritable: Path) -> None:
    code, message = start(TARGETS="a:1", SPOOL_DIR=str(unwritable))
    assert code == 1
    assert message == (
        f"gpumon collector: SPOOL_DIR={unwritable}: cannot be written to (Not a directory); give a writable directory"
    )


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_unwritable_spool_by_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, message = start(TARGETS="a:1", SPOOL_DIR=str(tmp_path / "spool"))
    assert (code, "Permission denied" in message) == (1, True)


def test_a_status_file_of_any_kind_costs_no_scrape(tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka) -> None:
    """A FIFO would hold the event loop up for ever, a byte that is no UTF-8 would leave the old tag."""
    status = tmp_path / "status.json"
    status.write_bytes(b'{"tag":"bench\xff"}')
    with CollectorProcess(
        tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target("/metrics"), STATUS_FILE=str(status)
    ) as collector:
        collector.until(lambda: collector.log.count("STATUS_FILE is not usable") == 1, "the line")
        status.unlink()
        os.mkfifo(status)
        collector.until(lambda: "it is a FIFO" in collector.log, "the next line")
        before = collector.metrics()["scrapes_total"]
        collector.until(lambda: collector.metrics()["scrapes_total"] >= before + 5, "five more scrapes")
        assert collector.metrics()["scrapes_refused_total"] == 0
        assert collector.log.count("STATUS_FILE is not usable") == 2
        assert "Traceback" not in collector.log
        assert collector.stop() == 0
