#!/usr/bin/env node
// Serves PGlite (PostgreSQL compiled to WebAssembly) with TimescaleDB over the PostgreSQL wire protocol.
//
// For development, demos and tests only: one engine, one session, one unit of work at a time. User and password are
// not checked, so it binds to 127.0.0.1 unless told otherwise.
//
//   node server.mjs --port 5432 --data-dir .data --tick-jobs 10
//
// This file holds nothing but the checks that must come before anything else is loaded: the imports below it need
// Node 20 and the installed package, and a missing one must end in one clear line instead of a stack trace.

const MINIMUM_NODE = 20;

function refuse(message) {
  process.stderr.write(`timescaledb: ${message}\n`);
  process.exit(1);
}

const major = Number(process.versions.node.split(".")[0]);
if (major < MINIMUM_NODE) refuse(`Node ${MINIMUM_NODE} or newer is needed, this is ${process.versions.node}`);

const { main } = await import("./main.mjs").catch((error) => {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
  return refuse(`${error.message.split("\n")[0]}: run \`make setup\` (or \`npm ci\` in ${import.meta.dirname ?? "."})`);
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  refuse(error.expected ? error.message : (error.stack ?? String(error)));
}
