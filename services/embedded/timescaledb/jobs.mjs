// What background processes do in a real server: TimescaleDB's jobs and checkpoints.
import { query, rowsOf } from "./protocol.mjs";

const CHECKPOINT_LOOK_MS = 15_000;
// The engine never checkpoints by itself, so the log would grow for ever (in memory without a data directory, and to be
// replayed after a crash with one). 64 MB is four WAL segments.
const CHECKPOINT_BYTES = 64 * 2 ** 20;

// Telemetry would report to the maker over the network, which this engine does not have.
const DUE_JOBS = `
  SELECT job_id, extract(epoch FROM schedule_interval) * 1000 FROM timescaledb_information.jobs
  WHERE scheduled AND proc_name <> 'policy_telemetry' AND coalesce(initial_start <= now(), true) ORDER BY job_id`;
const WAL_POSITION = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')";

/** Submits its work like a client, so it waits its turn and never runs inside a client's transaction. */
export class Maintenance {
  label = "maintenance";
  congested = false;
  #scheduler;
  #tickSeconds;
  #timers = [];
  #lastRun = new Map();
  #checkpointAt = 0;
  #working = false;

  /** `tickSeconds` null: no jobs. */
  constructor(scheduler, tickSeconds) {
    this.#scheduler = scheduler;
    this.#tickSeconds = tickSeconds;
  }

  start() {
    this.#every(CHECKPOINT_LOOK_MS, () => this.#checkpoint());
    if (this.#tickSeconds !== null) this.#every(1000 * this.#tickSeconds, () => this.#tick());
  }

  stop() {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
  }

  #every(milliseconds, work) {
    this.#timers.push(setInterval(() => work().catch((error) => this.#log(error.message)), milliseconds));
  }

  /** Runs the jobs that are due by their schedule_interval, counted from their last run by this process. */
  async #tick() {
    if (this.#working) return;
    this.#working = true;
    try {
      for (const [id, interval] of await this.#rows(DUE_JOBS)) {
        const last = this.#lastRun.get(id);
        if (last !== undefined && Date.now() - last < Number(interval)) continue;
        this.#lastRun.set(id, Date.now());
        await this.#rows(`CALL run_job(${id})`).catch((error) => this.#log(`job ${id} failed: ${error.message}`));
      }
    } finally {
      this.#working = false;
    }
  }

  async #checkpoint() {
    const [[position]] = await this.#rows(WAL_POSITION);
    if (Number(position) - this.#checkpointAt < CHECKPOINT_BYTES) return;
    await this.#rows("CHECKPOINT");
    this.#checkpointAt = Number(position);
  }

  /** Rows of a simple query, run in turn. */
  #rows(sql) {
    return new Promise((resolve, reject) => {
      const done = ({ chunks }) => {
        try {
          resolve(rowsOf(Buffer.concat(chunks)));
        } catch (error) {
          reject(error);
        }
      };
      const unit = { client: this, messages: [query(sql)], prelude: [], restore: [], unnamed: "dropped", done };
      this.#scheduler.submit(unit);
    });
  }

  #log(text) {
    process.stderr.write(`timescaledb: ${text.replaceAll("\n", " ")}\n`);
  }
}
