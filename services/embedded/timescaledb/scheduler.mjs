// One engine, one session, many clients: who may run a unit now.
import { query, SYNC } from "./protocol.mjs";

// A transaction left open while others wait is the usual reason for "it hangs": name it.
const WARN_AFTER_MS = 30_000;

/**
 * Runs units one at a time, first come first served. From the unit that opens a transaction to the one that ends it,
 * only units of that client run. A client here is any object: a Session, or the maintenance.
 *
 * Unit: { client, messages: Buffer[], before?: () => Buffer[] | null, done: (answer) => void }
 */
export class Scheduler {
  #engine;
  #onFailure;
  #queue = [];
  #owner = null;
  #ownedSince = 0;
  #warned = false;
  #scheduled = false;
  #idle = [];
  unnamedOwner = null;

  constructor(engine, onFailure) {
    this.#engine = engine;
    this.#onFailure = onFailure;
    setInterval(() => this.#warn(), WARN_AFTER_MS / 2).unref();
  }

  get busy() {
    return this.#owner !== null || this.#queue.length > 0;
  }

  submit(unit) {
    this.#queue.push(unit);
    this.#wake();
  }

  /** A promise of the rows of a simple query, run in turn. */
  rows(client, sql) {
    return new Promise((resolve, reject) => {
      this.submit({ client, messages: [query(sql)], done: (answer) => resolve(answer), reject });
    });
  }

  /** Ends what a client that went away has left open, after its last whole unit. */
  forget(client, closing) {
    this.submit({ client, messages: [], done: () => {}, leaving: closing });
  }

  /** Resolves when nothing is queued that can still run. */
  drain() {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#wake();
    });
  }

  #wake() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#step());
  }

  // One unit per turn of the event loop, so that sockets are read and written between units.
  #step() {
    this.#scheduled = false;
    const unit = this.#take();
    if (unit === null) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    try {
      unit.done(unit.leaving ? this.#clear(unit) : this.#run(unit));
    } catch (error) {
      this.#onFailure(error);
      return;
    }
    this.#wake();
  }

  #take() {
    const index = this.#owner === null ? 0 : this.#queue.findIndex((unit) => unit.client === this.#owner);
    if (index < 0 || this.#queue.length === 0) return null;
    return this.#queue.splice(index, 1)[0];
  }

  #run(unit) {
    const before = unit.before?.() ?? null;
    if (before !== null) this.#engine.run(before);
    const answer = this.#engine.run(unit.messages);
    // No ReadyForQuery: a unit that ended in Flush. The rest of it must follow before anybody else's.
    this.#own(answer.status === "I" ? null : unit.client);
    return answer;
  }

  #clear(unit) {
    if (this.#owner === unit.client) {
      const { status } = this.#engine.run([SYNC]);
      if (status !== "I") this.#engine.run([query("ROLLBACK")]);
    }
    if (unit.leaving.length > 0) this.#engine.run(unit.leaving);
    this.#own(null);
    return null;
  }

  #own(client) {
    if (client !== this.#owner) {
      this.#ownedSince = Date.now();
      this.#warned = false;
    }
    this.#owner = client;
  }

  #warn() {
    const waiting = this.#queue.length;
    if (this.#warned || this.#owner === null || waiting === 0 || Date.now() - this.#ownedSince < WARN_AFTER_MS) return;
    this.#warned = true;
    const seconds = Math.round((Date.now() - this.#ownedSince) / 1000);
    process.stderr.write(
      `timescaledb: ${waiting} waiting for a transaction open for ${seconds} s (${this.#owner.label})\n`,
    );
  }
}
