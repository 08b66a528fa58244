// Command line, listening socket, and orderly exit.
import { createServer } from "node:net";
import { parseArgs } from "node:util";

import { openEngine } from "./engine.mjs";
import { Maintenance } from "./jobs.mjs";
import { expected } from "./lock.mjs";
import { Scheduler } from "./scheduler.mjs";
import { Session } from "./session.mjs";

const USAGE = `usage: node server.mjs [--host 127.0.0.1] [--port 0] [--data-dir DIR] [--database gpu_health]
                       [--tick-jobs SECONDS] [--exit-with-parent]

PGlite with TimescaleDB over the PostgreSQL wire protocol, for many clients. Prints {"port", "pid"} when ready.

  --host             address to listen on; user and password are not checked, so keep it local
  --port             TCP port, 0 takes a free one
  --data-dir         keeps the database in this directory (default: in memory, gone at exit)
  --database         name of the one database served
  --tick-jobs        run due TimescaleDB jobs, looking every so many seconds (there are no background workers)
  --exit-with-parent end when stdin is closed

example: node server.mjs --port 5432 --data-dir .data --tick-jobs 10`;

const OPTIONS = {
  host: { type: "string", default: "127.0.0.1" },
  port: { type: "string", default: "0" },
  "data-dir": { type: "string" },
  database: { type: "string", default: "gpu_health" },
  "tick-jobs": { type: "string" },
  "exit-with-parent": { type: "boolean", default: false },
  help: { type: "boolean", default: false },
};

function integer(name, text, low, high) {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < low || value > high) {
    throw expected(`--${name} ${text}: an integer from ${low} to ${high} is allowed`);
  }
  return value;
}

function readArguments(argv) {
  let values;
  try {
    ({ values } = parseArgs({ args: argv, options: OPTIONS, strict: true }));
  } catch (error) {
    throw expected(`${error.message} (--help shows what is allowed)`);
  }
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(values.database)) {
    throw expected(`--database ${values.database}: lower-case letters, digits and underscores are allowed`);
  }
  return {
    host: values.host,
    port: integer("port", values.port, 0, 65535),
    dataDir: values["data-dir"],
    database: values.database,
    tickSeconds: values["tick-jobs"] === undefined ? null : integer("tick-jobs", values["tick-jobs"], 1, 86400),
    exitWithParent: values["exit-with-parent"],
    help: values.help,
  };
}

function listen(server, host, port) {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const known = { EADDRINUSE: "the port is taken", EACCES: "not permitted", EADDRNOTAVAIL: "no such address here" };
      reject(known[error.code] ? expected(`cannot listen on ${host}:${port}: ${known[error.code]}`) : error);
    });
    server.listen(port, host, () => resolve(server.address().port));
  });
}

export async function main(argv) {
  const options = readArguments(argv);
  if (options.help) return void process.stdout.write(`${USAGE}\n`);

  const engine = await openEngine(options);
  const scheduler = new Scheduler(engine, (error) => {
    // After a trap the WebAssembly memory is in an unknown state: serving on could store wrong rows.
    process.stderr.write(`timescaledb: the engine failed, giving up: ${error.stack ?? error}\n`);
    engine.release();
    process.exit(70);
  });
  const maintenance = new Maintenance(scheduler, options.tickSeconds);
  const sessions = new Set();
  const server = createServer({ noDelay: true, keepAlive: true }, (socket) => {
    const session = new Session(socket, scheduler, { database: options.database, parameters: engine.parameters });
    sessions.add(session);
    socket.once("close", () => sessions.delete(session));
  });

  process.stderr.on("error", () => {}); // the parent that read it is gone: "end" of stdin stops this process
  let stopping = false;
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    maintenance.stop();
    server.close();
    for (const session of sessions) session.shutDown();
    await scheduler.drain();
    engine.close();
    process.exit(0);
  };
  process.on("SIGTERM", stop).on("SIGINT", stop);
  if (options.exitWithParent) process.stdin.on("end", stop).on("error", stop).resume();

  try {
    const port = await listen(server, options.host, options.port);
    process.stdout.write(`${JSON.stringify({ port, pid: process.pid })}\n`);
  } catch (error) {
    engine.close();
    throw error;
  }
  maintenance.start();
}
