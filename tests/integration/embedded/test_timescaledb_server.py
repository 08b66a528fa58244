"""The embedded TimescaleDB as a process: TimescaleDB's own features, jobs, data directories, start and end."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from services.embedded import timescale as embedded
from services.embedded.timescale import SERVER, EmbeddedTimescale, EmbeddedTimescaleError, require_node
from tests.support.prerequisites import missing
from tests.support.processes import wait_until

pytestmark = pytest.mark.timescale

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


@pytest.fixture(scope="module", autouse=True)
def node() -> str:
    try:
        return require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedTimescale]:
    with EmbeddedTimescale() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: EmbeddedTimescale) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        yield connection


def one(connection: psycopg.Connection, query: str) -> object:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


# ---- TimescaleDB ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hypertable(client: psycopg.Connection) -> str:
    """Hypertable `samples` with chunks of an hour: 40,000 rows over the last two days."""
    client.execute("CREATE TABLE samples (time timestamptz NOT NULL, gpu int NOT NULL, power real)")
    client.execute("SELECT create_hypertable('samples', by_range('time', INTERVAL '1 hour'))")
    with client.cursor().copy("COPY samples FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["timestamptz", "int4", "float4"])
        for number in range(40_000):
            copy.write_row((NOW - dt.timedelta(seconds=4.32 * number), number % 8, float(number % 300)))
    client.execute("ANALYZE samples")
    return "samples"


def test_community_edition_is_loaded(client: psycopg.Connection) -> None:
    assert one(client, "SHOW timescaledb.license") == "timescale"
    assert re.match(r"2\.\d+", str(one(client, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")))


def test_rows_go_into_a_chunk_per_hour(client: psycopg.Connection, hypertable: str) -> None:
    assert one(client, "SELECT count(*) FROM show_chunks('samples')") in {48, 49}
    assert one(client, "SELECT count(*) FROM samples") == 40_000


def test_compression_policy_run_by_hand_compresses_old_chunks(client: psycopg.Connection, hypertable: str) -> None:
    client.execute("ALTER TABLE samples SET (timescaledb.compress, timescaledb.compress_segmentby = 'gpu')")
    job = one(client, "SELECT add_compression_policy('samples', INTERVAL '40 hours')")
    chunks = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'samples'"
    old = f"{chunks} AND range_end <= now() - INTERVAL '40 hours'"
    before = one(client, old)
    client.execute(f"CALL run_job({job})")
    compressed = one(client, f"{chunks} AND is_compressed")
    assert before in {7, 8, 9}  # the hour may have turned since the rows were dated
    assert compressed in {before, one(client, old)}
    assert one(client, "SELECT count(*) FROM samples") == 40_000


def test_continuous_aggregate_refreshed_by_its_policy(client: psycopg.Connection, hypertable: str) -> None:
    client.execute(
        "CREATE MATERIALIZED VIEW samples_1hour WITH (timescaledb.continuous) AS SELECT time_bucket('1 hour', time) AS "
        "bucket, gpu, sum(power) AS power_sum, count(power) AS samples FROM samples GROUP BY 1, 2 WITH NO DATA"
    )
    job = one(
        client,
        "SELECT add_continuous_aggregate_policy('samples_1hour', start_offset => INTERVAL '30 hours', "
        "end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '1 minute')",
    )
    client.execute(f"CALL run_job({job})")
    raw = "SELECT sum(power), count(*) FROM samples WHERE time >= {0} AND time < {1}"
    borders = "(SELECT min(bucket) FROM samples_1hour)", "(SELECT max(bucket) + INTERVAL '1 hour' FROM samples_1hour)"
    expected = client.execute(raw.format(*borders).encode()).fetchone()
    assert client.execute("SELECT sum(power_sum), sum(samples)::int FROM samples_1hour").fetchone() == expected


def test_retention_policy_drops_old_chunks(client: psycopg.Connection, hypertable: str) -> None:
    job = one(client, "SELECT add_retention_policy('samples', INTERVAL '10 hours')")
    client.execute(f"CALL run_job({job})")
    assert one(client, "SELECT count(*) FROM show_chunks('samples')") in {10, 11, 12}
    assert one(client, "SELECT min(time) > now() - INTERVAL '12 hours' FROM samples") is True


@pytest.fixture(scope="module")
def ticking() -> Iterator[EmbeddedTimescale]:
    """A server that looks for due jobs every second."""
    with EmbeddedTimescale(tick_jobs=1) as started:
        yield started


def test_due_jobs_run_by_themselves_when_ticked(ticking: EmbeddedTimescale) -> None:
    with psycopg.connect(ticking.dsn, autocommit=True) as client:
        client.execute("CREATE TABLE runs (kind text, at timestamptz DEFAULT clock_timestamp())")
        for kind in ("often", "rarely", "later", "broken"):
            then = "RAISE EXCEPTION 'no luck'" if kind == "broken" else f"INSERT INTO runs VALUES ('{kind}')"
            body = f"AS $$ BEGIN {then}; END $$"
            client.execute(f"CREATE PROCEDURE {kind}(job_id int, config jsonb) LANGUAGE plpgsql {body}".encode())
        client.execute("SELECT add_job('broken', INTERVAL '1 second')")
        client.execute("SELECT add_job('often', INTERVAL '1 second')")
        client.execute("SELECT add_job('rarely', INTERVAL '1 hour')")
        client.execute("SELECT add_job('later', INTERVAL '1 second', initial_start => now() + INTERVAL '1 hour')")
        seen = "SELECT count(*) FROM runs WHERE kind = 'often'"
        wait_until(lambda: int(str(one(client, seen))) >= 3, within=30, what="three runs of the job")
        assert one(client, "SELECT count(*) FROM runs WHERE kind = 'rarely'") == 1
        assert one(client, "SELECT count(*) FROM runs WHERE kind = 'later'") == 0


def test_jobs_wait_for_an_open_transaction(ticking: EmbeddedTimescale) -> None:
    with psycopg.connect(ticking.dsn) as client:
        client.execute("CREATE TABLE noted (at timestamptz DEFAULT clock_timestamp())")
        client.execute(
            "CREATE PROCEDURE note(job_id int, config jsonb) LANGUAGE SQL AS 'INSERT INTO noted DEFAULT VALUES'"
        )
        client.execute("SELECT add_job('note', INTERVAL '1 second')")
        client.execute("SELECT pg_sleep(2.5)")  # time for the tick, inside the transaction
        assert one(client, "SELECT count(*) FROM noted") == 0
        client.commit()
        client.autocommit = True
        wait_until(lambda: one(client, "SELECT count(*) FROM noted") != 0, within=30, what="a run of the job")


# ---- data directory -------------------------------------------------------------------------------------------------


def test_data_survives_kill_and_restart_with_every_commit(tmp_path: Path) -> None:
    server = EmbeddedTimescale(tmp_path / "db").start()
    client = psycopg.connect(server.dsn)
    client.execute("CREATE TABLE kept (time timestamptz NOT NULL, n int)")
    client.execute("SELECT create_hypertable('kept', by_range('time'))")
    client.commit()
    for number in range(20):
        client.execute("INSERT INTO kept SELECT now(), %s FROM generate_series(1, 1000)", (number,))
        client.commit()
    client.execute("INSERT INTO kept SELECT now(), -1 FROM generate_series(1, 1000)")
    server.kill()
    client.close()
    with EmbeddedTimescale(tmp_path / "db") as again, psycopg.connect(again.dsn) as client:
        assert one(client, "SELECT count(*) FROM kept") == 20_000
        assert one(client, "SELECT count(*) FROM kept WHERE n = -1") == 0
        client.execute("ALTER TABLE kept SET (timescaledb.compress, timescaledb.compress_segmentby = 'n')")
        client.execute("SELECT compress_chunk(c) FROM show_chunks('kept') c")  # needs the community module
        assert one(client, "SELECT count(*) FROM kept") == 20_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of a server that was stopped cleanly, with a table `kept` of one row."""
    path = tmp_path_factory.mktemp("timescale") / "db"
    with EmbeddedTimescale(path) as server:
        assert (path / "server.pid").exists()
        with psycopg.connect(server.dsn) as client:
            client.execute("CREATE TABLE kept AS SELECT 1 AS n")
    return path


def test_clean_stop_gives_the_directory_back_and_a_second_server_is_refused_naming_the_first(directory: Path) -> None:
    assert not (directory / "server.pid").exists()
    with EmbeddedTimescale(directory) as server, psycopg.connect(server.dsn) as client:
        assert one(client, "SELECT n FROM kept") == 1
        with pytest.raises(EmbeddedTimescaleError, match=f"in use by the server with pid {server.pid}"):
            EmbeddedTimescale(directory).start()


def test_lock_of_a_dead_server_whose_pid_was_reused_does_not_block(directory: Path) -> None:
    (directory / "server.pid").write_text(json.dumps({"pid": os.getpid(), "started": "another boot:1"}))
    with EmbeddedTimescale(directory) as server:
        assert server.running


def test_directory_of_another_database_is_refused(directory: Path) -> None:
    with pytest.raises(EmbeddedTimescaleError, match="holds database gpu_health, not other"):
        EmbeddedTimescale(directory, database="other").start()


def test_creation_that_was_killed_half_way_is_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / "db" / "pgdata"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("17\n")
    with EmbeddedTimescale(tmp_path / "db") as server, psycopg.connect(server.dsn) as client:
        assert one(client, "SELECT current_database()") == "gpu_health"


# ---- bad situations: one line each, and a status --------------------------------------------------------------------


def refused(arguments: list[str], **options: object) -> str:
    """What the server says when it cannot start."""
    done = subprocess.run(
        [require_node(), str(SERVER), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]  # user and group for the one test that drops root
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return str(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "http"], "--port http: an integer from 0 to 65535"),
        (["--tick-jobs", "0"], "--tick-jobs 0: an integer from 1"),
        (["--database", "No Name"], "--database No Name: lower-case letters"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:0: no such address here"),
        (["--prot", "1"], "Unknown option '--prot'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_argument_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    assert said in refused(arguments)


def test_port_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in refused(["--port", str(port)])


def test_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be written: ENOTDIR" in refused(["--data-dir", str(blocked / "db")])


def test_old_node_is_told_before_anything_else(tmp_path: Path) -> None:
    script = tmp_path / "old.mjs"
    script.write_text(
        "Object.defineProperty(process.versions, 'node', {value: '18.19.0'});\n"
        f"process.argv[1] = {str(SERVER)!r}; await import({str(SERVER)!r});\n"
    )
    done = subprocess.run([require_node(), str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "timescaledb: Node 20 or newer is needed, this is 18.19.0\n")


def test_missing_node_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedTimescaleError, match="install Node 20 or newer, or set TIMESCALE_DSN"):
        EmbeddedTimescale().start()


def test_missing_package_points_to_make_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "SERVER", tmp_path / "server.mjs")
    with pytest.raises(EmbeddedTimescaleError, match="make setup"):
        EmbeddedTimescale().start()


# ---- end ------------------------------------------------------------------------------------------------------------


def test_stop_tells_clients_why(directory: Path) -> None:
    server = EmbeddedTimescale(directory).start()
    client = psycopg.connect(server.dsn, autocommit=True)
    server.stop()
    with pytest.raises(psycopg.errors.AdminShutdown, match="the embedded server is stopping"):
        client.execute("SELECT 1")
    client.close()


def test_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import time, sys; from services.embedded.timescale import EmbeddedTimescale\n"
        "print(EmbeddedTimescale().start().pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone


def test_role_prints_one_line_and_ends_on_sigterm(directory: Path) -> None:
    command = [sys.executable, "-m", "services", "timescaledb", "--data-dir", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        ready = json.loads(role.stdout.readline())
        psycopg.connect(ready["dsn"]).close()
        role.send_signal(signal.SIGTERM)
        assert role.wait(timeout=30) == 0
        assert role.stdout.read() == ""
    assert not psutil.pid_exists(ready["pid"])


def test_clients_are_not_shown_debug_messages(timescale: str) -> None:
    with psycopg.connect(timescale) as connection:
        row = connection.execute("SHOW client_min_messages").fetchone()
    assert row == ("notice",)
