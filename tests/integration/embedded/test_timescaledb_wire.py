"""The embedded TimescaleDB as drivers see it: many clients of one engine, over the PostgreSQL wire protocol."""

from __future__ import annotations

import datetime as dt
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg
import pytest
from psycopg import sql

from services.embedded.timescale import EmbeddedTimescale, EmbeddedTimescaleError, require_node
from tests.support.prerequisites import missing
from tests.support.processes import wait_until

pytestmark = pytest.mark.timescale

BASE = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedTimescale]:
    """These tests are about the embedded server, so TIMESCALE_DSN does not replace it."""
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))
    with EmbeddedTimescale() as started:
        yield started


@pytest.fixture
def client(server: EmbeddedTimescale) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(client: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table (id integer primary key, label text) of the test's own."""
    name = f"t_{request.node.name.split('[')[0]}"[:63]
    client.execute(sql.SQL("CREATE TABLE {} (id integer PRIMARY KEY, label text)").format(sql.Identifier(name)))
    yield name
    client.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))


def count(connection: psycopg.Connection, name: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
    assert row is not None
    return int(row[0])


# ---- what the server says of itself -------------------------------------------------------------------------------


def test_driver_learns_version_encoding_and_time_zone_at_start_up(client: psycopg.Connection) -> None:
    assert client.info.server_version // 10000 == 17
    assert client.info.encoding == "utf-8"
    assert client.info.parameter_status("TimeZone") == "UTC"
    assert client.execute("SELECT current_database(), current_schema()").fetchone() == ("gpu_health", "public")


def test_unknown_database_is_refused_by_name(server: EmbeddedTimescale) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "other" does not exist'):
        psycopg.connect(server.dsn, dbname="other")


def test_tls_is_declined_and_preferring_it_still_connects(server: EmbeddedTimescale) -> None:
    psycopg.connect(server.dsn, sslmode="prefer").close()
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        psycopg.connect(server.dsn, sslmode="require")


def test_start_up_options_that_cannot_be_honoured_are_announced(server: EmbeddedTimescale) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        body = b"user\0x\0database\0gpu_health\0options\0-c search_path=elsewhere\0\0"
        raw.sendall(struct.pack("!ii", 8 + len(body), 196608) + body)
        answer = b""
        while not answer.endswith(b"Z\0\0\0\x05I"):
            answer += raw.recv(4096)
    assert b"start-up options are ignored" in answer


def test_cancel_request_is_taken_and_harms_nobody(client: psycopg.Connection, server: EmbeddedTimescale) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(struct.pack("!iiii", 16, 80877102, 1, 2))
        assert raw.recv(16) == b""
    assert client.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\0\x02\0\0", b"\xff" * 64],
    ids=["http", "protocol-2", "noise"],
)
def test_what_is_no_postgres_client_is_hung_up_on(
    client: psycopg.Connection, server: EmbeddedTimescale, garbage: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(garbage)
        while raw.recv(4096):
            pass
    assert client.execute("SELECT 1").fetchone() == (1,)


# ---- many clients, one engine -------------------------------------------------------------------------------------


def test_six_clients_with_transactions_at_once_lose_and_mix_nothing(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    transactions, rows = 25, 4
    start = threading.Barrier(6)
    insert = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier(table))
    own = sql.SQL("SELECT count(*) FROM {} WHERE label = %s").format(sql.Identifier(table))

    def work(number: int) -> int:
        with psycopg.connect(server.dsn) as connection:
            start.wait(timeout=30)
            kept = 0
            for transaction in range(transactions):
                for row in range(rows):
                    connection.execute(insert, (number * 10000 + transaction * rows + row, f"client {number}"))
                if transaction % 5 == 4:
                    connection.rollback()
                    continue
                connection.commit()
                kept += rows
                assert connection.execute(own, (f"client {number}",)).fetchone() == (kept,)
            return kept

    with ThreadPoolExecutor(6) as pool:
        kept = sum(pool.map(work, range(6)))
    assert kept == 6 * 20 * rows
    assert count(client, table) == kept


def test_error_in_transaction_fails_that_transaction_only(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    insert = sql.SQL("INSERT INTO {} VALUES (1, 'x')").format(sql.Identifier(table))
    client.execute(insert)
    with psycopg.connect(server.dsn) as other:
        with pytest.raises(psycopg.errors.UniqueViolation):
            other.execute(insert)
        assert other.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            other.execute("SELECT 1")
        other.rollback()
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_savepoint_survives_an_error_inside_it(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    insert = sql.SQL("INSERT INTO {} VALUES (%s, 'x')").format(sql.Identifier(table))
    with psycopg.connect(server.dsn) as other:
        other.execute(insert, (1,))
        with pytest.raises(psycopg.errors.UniqueViolation), other.transaction():
            other.execute(insert, (1,))
        other.execute(insert, (2,))
    assert count(client, table) == 2


def test_others_wait_for_an_open_transaction_and_then_see_its_rows(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    with psycopg.connect(server.dsn) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute(sql.SQL("INSERT INTO {} VALUES (1, 'x')").format(sql.Identifier(table)))
        waiting = pool.submit(count, client, table)
        assert holder.execute("SELECT 1").fetchone() == (1,)
        assert not waiting.done()
        holder.commit()
        assert waiting.result(timeout=10) == 1


@pytest.mark.parametrize("manner", ["reset", "killed"])
def test_client_that_vanishes_in_mid_transaction_is_rolled_back(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str, manner: str
) -> None:
    insert = f"INSERT INTO {table} SELECT g, 'x' FROM generate_series(1, 100) g"
    if manner == "reset":
        victim = psycopg.connect(server.dsn)
        victim.execute(insert)
        handle = socket.socket(fileno=victim.pgconn.socket)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with RST
        handle.shutdown(socket.SHUT_RDWR)
        handle.detach()
        victim.close()
    else:
        script = (
            f"import psycopg, os; c = psycopg.connect({server.dsn!r}); c.execute({insert!r}); os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", script], check=False)
    assert count(client, table) == 0


def test_work_sent_before_hanging_up_is_done(server: EmbeddedTimescale, client: psycopg.Connection, table: str) -> None:
    hasty = psycopg.connect(server.dsn, autocommit=True)
    hasty.pgconn.send_query(f"INSERT INTO {table} VALUES (1, 'sent and gone')".encode())
    hasty.pgconn.flush()
    hasty.close()
    wait_until(lambda: count(client, table) == 1, within=10, what="the insert of the client that hung up")


# ---- prepared statements, cursors, pipelines ----------------------------------------------------------------------


def test_clients_use_the_same_statement_name_for_different_statements(server: EmbeddedTimescale) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as a, psycopg.connect(server.dsn, autocommit=True) as b:
        for _ in range(3):  # both drivers call their first statement the same
            assert a.execute("SELECT %s::int + 1", (1,), prepare=True).fetchone() == (2,)
            assert b.execute("SELECT upper(%s)", ("x",), prepare=True).fetchone() == ("X",)


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL", "deallocate all;"])
def test_deallocating_leaves_the_statements_of_others(server: EmbeddedTimescale, command: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as a, psycopg.connect(server.dsn, autocommit=True) as b:
        a.pgconn.prepare(b"mine", b"SELECT 'a'")
        b.pgconn.prepare(b"mine", b"SELECT 'b'")
        a.execute(command)
        assert b.pgconn.exec_prepared(b"mine", None).get_value(0, 0) == b"b"
        gone = a.pgconn.exec_prepared(b"mine", None)
        assert gone.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"
        assert a.pgconn.prepare(b"mine", b"SELECT 'again'").status == psycopg.pq.ExecStatus.COMMAND_OK
        assert a.pgconn.exec_prepared(b"mine", None).get_value(0, 0) == b"again"


def test_rollback_of_a_client_with_prepared_statements_leaves_those_of_others(server: EmbeddedTimescale) -> None:
    """psycopg deallocates all its statements after a ROLLBACK."""
    with psycopg.connect(server.dsn) as a, psycopg.connect(server.dsn) as b:
        for connection in (a, b):
            assert connection.execute("SELECT %s::int", (1,), prepare=True).fetchone() == (1,)
            connection.commit()
        a.execute("SELECT 1")
        a.rollback()
        for connection in (a, b):
            assert connection.execute("SELECT %s::int", (2,), prepare=True).fetchone() == (2,)
            connection.commit()


def test_unnamed_statement_survives_units_of_other_clients(server: EmbeddedTimescale) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as a, psycopg.connect(server.dsn, autocommit=True) as b:
        a.pgconn.prepare(b"", b"SELECT 'a'")
        b.pgconn.prepare(b"", b"SELECT 'b'")
        b.execute("SELECT 1")
        assert a.pgconn.exec_prepared(b"", None).get_value(0, 0) == b"a"


def test_statements_are_closed_when_their_client_leaves(server: EmbeddedTimescale, client: psycopg.Connection) -> None:
    def prepared() -> int:
        row = client.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert row is not None
        return int(row[0])

    before = prepared()
    with psycopg.connect(server.dsn, autocommit=True) as other:
        other.execute("SELECT %s::int", (1,), prepare=True)
        assert prepared() == before + 1
    wait_until(lambda: prepared() == before, within=10, what="closing the statements")


def test_server_side_cursor_fetches_in_parts(server: EmbeddedTimescale) -> None:
    with psycopg.connect(server.dsn) as connection, connection.cursor("parts") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT g FROM generate_series(1, 1000) g")
        assert [row[0] for row in cursor] == list(range(1, 1001))


def test_pipeline_answers_in_order_and_flushes_on_demand(server: EmbeddedTimescale, table: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection, connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
        assert cursors[0].fetchone() == (0,)  # asks for an answer without ending the pipeline: Flush, not Sync
        with connection.cursor() as many:
            many.executemany(
                sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier(table)), [(n, "x") for n in range(500)]
            )
        pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors[1:]] == [(n,) for n in range(1, 50)]
        assert connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() == (500,)


def test_error_in_pipeline_aborts_the_rest_up_to_sync_and_no_more(server: EmbeddedTimescale, table: str) -> None:
    insert = sql.SQL("INSERT INTO {} VALUES (%s, 'x')").format(sql.Identifier(table))
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            connection.execute(insert, (1,))
            connection.execute(insert, (1,))
            connection.execute(insert, (2,))
            with pytest.raises(psycopg.errors.UniqueViolation):
                pipeline.sync()
        with connection.pipeline():
            connection.execute(insert, (3,))
        assert connection.execute(sql.SQL("SELECT id FROM {}").format(sql.Identifier(table))).fetchall() == [(3,)]


def test_unit_larger_than_the_engines_receive_buffer_is_run_whole(server: EmbeddedTimescale) -> None:
    """The engine reads by 8 kB and stops where a message ends with its buffer: every length must come through."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for length in range(8192 - 120, 8192 + 20):
            with connection.pipeline():
                first = connection.execute("SELECT length(%s)", ("x" * length,))
                second = connection.execute("SELECT length(%s)", ("y" * (length // 2),))
            assert (first.fetchone(), second.fetchone()) == ((length,), (length // 2,))


# ---- COPY ---------------------------------------------------------------------------------------------------------

COPIED = [(1, "plain"), (2, None), (3, "tab\tnewline\nback\\slash"), (4, "温度 ü"), (5, "")]


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_copy_in_and_out_again_keeps_every_value(
    client: psycopg.Connection, server: EmbeddedTimescale, table: str, form: str
) -> None:
    out = sql.SQL("COPY (SELECT * FROM {} ORDER BY id) TO STDOUT (FORMAT {})")
    into = sql.SQL("COPY {} (id, label) FROM STDIN (FORMAT {})").format(sql.Identifier(table), sql.SQL(form))
    client.cursor().executemany(
        sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier(table)),
        COPIED,
    )
    with client.cursor().copy(out.format(sql.Identifier(table), sql.SQL(form))) as copy:
        data = b"".join(bytes(block) for block in copy)
    client.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
    with client.cursor().copy(into) as copy:
        for at in range(0, len(data), 7):  # messages that end in the middle of a row
            copy.write(data[at : at + 7])
    assert client.execute(sql.SQL("SELECT * FROM {} ORDER BY id").format(sql.Identifier(table))).fetchall() == COPIED


@pytest.mark.parametrize("binary_cursor", [False, True], ids=["simple-query", "extended-query"])
def test_binary_copy_of_rows_as_the_sink_writes_them(
    client: psycopg.Connection, table: str, binary_cursor: bool
) -> None:
    rows = [(n, f"row {n}") for n in range(20_000)]
    with client.cursor(binary=binary_cursor) as cursor:
        with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))) as copy:
            copy.set_types(["int4", "text"])
            for row in rows:
                copy.write_row(row)
        assert cursor.rowcount == len(rows)
    assert count(client, table) == len(rows)


def test_copy_sent_by_the_extended_protocol(client: psycopg.Connection, table: str) -> None:
    pgconn = client.pgconn
    assert pgconn.exec_params(f"COPY {table} FROM STDIN".encode(), None).status == psycopg.pq.ExecStatus.COPY_IN
    pgconn.put_copy_data(b"1\tone\n")
    pgconn.put_copy_end()
    done = pgconn.get_result()
    assert done is not None
    assert done.status == psycopg.pq.ExecStatus.COMMAND_OK
    assert done.command_tuples == 1
    assert pgconn.get_result() is None
    assert count(client, table) == 1


def test_copy_inside_a_transaction_is_rolled_back_with_it(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    with psycopg.connect(server.dsn) as connection:
        with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))) as copy:
            copy.write_row((1, "x"))
        assert count(connection, table) == 1
        connection.rollback()
    assert count(client, table) == 0


def test_copy_that_the_client_breaks_off_leaves_no_row(client: psycopg.Connection, table: str) -> None:
    """An exception inside the copy block makes the driver send CopyFail."""
    copying = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))

    def break_off() -> None:
        with client.cursor().copy(copying) as copy:
            copy.write_row((1, "x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert count(client, table) == 0


@pytest.mark.parametrize(
    ("data", "sqlstate"),
    [(b"1\tone\n1\tagain\n", "23505"), (b"one\tone\n", "22P02"), (b"1\tone\ttoo many\n", "22P04")],
    ids=["unique", "type", "columns"],
)
def test_copy_error_carries_its_sqlstate_and_the_connection_goes_on(
    client: psycopg.Connection, table: str, data: bytes, sqlstate: str
) -> None:
    copying = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
    many = b"".join(b"%d\tmore\n" % n for n in range(100, 60_000))  # what the engine must skip after its error
    with pytest.raises(psycopg.Error) as caught, client.cursor().copy(copying) as copy:
        copy.write(data + many)
    assert caught.value.sqlstate == sqlstate
    assert count(client, table) == 0


def test_copy_hidden_in_a_multi_statement_query_fails_and_harms_nobody(client: psycopg.Connection, table: str) -> None:
    result: psycopg.pq.abc.PGresult | None = client.pgconn.exec_(f"SELECT 1; COPY {table} FROM STDIN".encode())
    while result is not None and result.status == psycopg.pq.ExecStatus.COPY_IN:
        client.pgconn.put_copy_end(b"not sent")
        result = client.pgconn.get_result()
    while client.pgconn.get_result() is not None:
        pass
    assert client.execute("SELECT 1").fetchone() == (1,)


def test_client_that_vanishes_during_copy_leaves_no_row(
    server: EmbeddedTimescale, client: psycopg.Connection, table: str
) -> None:
    victim = psycopg.connect(server.dsn)
    victim.pgconn.exec_(f"COPY {table} FROM STDIN".encode())
    victim.pgconn.put_copy_data(b"1\tone\n")
    victim.pgconn.flush()
    victim.pgconn.finish()
    assert count(client, table) == 0


# ---- large answers ------------------------------------------------------------------------------------------------


def test_result_of_200_000_rows_arrives_whole(client: psycopg.Connection) -> None:
    rows = client.execute("SELECT g, 'row ' || g FROM generate_series(1, 200000) g").fetchall()
    assert len(rows) == 200_000
    assert rows[123_456] == (123_457, "row 123457")


def test_client_that_does_not_read_is_not_served_further(server: EmbeddedTimescale, client: psycopg.Connection) -> None:
    """Its answers stay with it: 40 queued answers of 20 MB would be 800 MB in the server."""
    question = b"SELECT repeat('x', 1000) FROM generate_series(1, 20000)\0"
    message = b"Q" + struct.pack("!i", 4 + len(question)) + question
    memory = psutil.Process(server.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        body = b"user\0x\0database\0gpu_health\0\0"
        raw.sendall(struct.pack("!ii", 8 + len(body), 196608) + body)
        raw.sendall(message * 40)
        for _ in range(50):
            assert client.execute("SELECT 1").fetchone() == (1,)
        grown = psutil.Process(server.pid).memory_info().rss - memory
    assert grown < 200e6
    assert client.execute("SELECT 1").fetchone() == (1,)
