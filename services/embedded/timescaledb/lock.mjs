// One server per data directory, and errors that a user can act on.
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeSync, closeSync } from "node:fs";
import { join, resolve } from "node:path";

/** An error whose message is all that the user needs to see. */
export function expected(message) {
  return Object.assign(new Error(message), { expected: true });
}

/** When a process began (clock ticks since boot, plus the boot), to tell it from a later one with the same pid. */
function startOf(pid) {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return `${boot}:${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return null; // no /proc here, or no such process
  }
}

function isAlive({ pid, started }) {
  if (pid === process.pid || !Number.isInteger(pid)) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code !== "EPERM") return false;
  }
  return started === null || startOf(pid) === started;
}

function holderOf(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return {}; // cut short by a crash in mid-write: nobody holds it
  }
}

/** Takes the directory for this process; returns a function that gives it back. Throws when another server has it. */
export function lockDirectory(directory) {
  const root = resolve(directory);
  const path = join(root, "server.pid");
  try {
    mkdirSync(root, { recursive: true });
    if (existsSync(path)) {
      const holder = holderOf(path);
      if (isAlive(holder)) throw expected(`data directory ${root} is in use by the server with pid ${holder.pid}`);
      rmSync(path, { force: true });
    }
    const file = openSync(path, "wx");
    writeSync(file, JSON.stringify({ pid: process.pid, started: startOf(process.pid) }));
    closeSync(file);
  } catch (error) {
    if (error.expected) throw error;
    if (error.code === "EEXIST") throw expected(`data directory ${root}: another server is starting there, or it is a file`);
    throw expected(`data directory ${root} cannot be written: ${error.code ?? error.message}`);
  }
  return () => rmSync(path, { force: true });
}
