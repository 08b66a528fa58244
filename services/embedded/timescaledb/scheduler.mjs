// One engine, one session, many clients: whose unit runs now.
import { query, SYNC } from "./protocol.mjs";

// A transaction left open while others wait is the usual reason for "it hangs": name the client that holds it.
const WARN_AFTER_MS = 30_000;

/**
 * Runs units one at a time, first come first served. From the unit that opens a transaction to the one that ends it,
 * only units of that client run. A client is a Session or the maintenance: { label, congested }.
 *
 * Unit: { client, messages, prelude, restore, unnamed, done(answer) }, see Statements for the middle ones; a unit
 * without messages only waits for its turn.
 */
export class Scheduler {
  #engine;
  #onFailure;
  #queue = [];
  #owner = null;
  #ownedSince = 0;
  #unnamedOwner = null;
  #scheduled = false;
  #drained = [];

  /** `onFailure(error)` is called when the engine is broken; nothing may be run afterwards. */
  constructor(engine, onFailure) {
    this.#engine = engine;
    this.#onFailure = onFailure;
    setInterval(() => this.#warn(), WARN_AFTER_MS).unref();
  }

  submit(unit) {
    this.#queue.push(unit);
    this.wake();
  }

  /** After what the client has sent, ends what it left open and closes its statements. */
  forget(client, closing) {
    this.submit({ client, leaving: closing, done: () => {} });
  }

  /** Resolves when nothing is left that can run. */
  drain() {
    return new Promise((resolve) => {
      this.#drained.push(resolve);
      this.wake();
    });
  }

  /** Looks again for a unit that may run: one was added, or a congested client has read its answers. */
  wake() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // One unit per turn of the event loop, so that sockets are read and written between units.
    setImmediate(() => {
      this.#scheduled = false;
      this.#step();
    });
  }

  #step() {
    const unit = this.#take();
    if (unit === undefined) {
      for (const resolve of this.#drained.splice(0)) resolve();
      return;
    }
    try {
      unit.done(unit.leaving === undefined ? this.#run(unit) : this.#clear(unit));
    } catch (error) {
      this.#onFailure(error);
      return;
    }
    this.wake();
  }

  #take() {
    const mayRun = ({ client }) => (this.#owner === null || client === this.#owner) && !client.congested;
    const index = this.#queue.findIndex(mayRun);
    return index < 0 ? undefined : this.#queue.splice(index, 1)[0];
  }

  #run({ client, messages, prelude, restore, unnamed }) {
    if (messages.length === 0) return { chunks: [] };
    if (restore.length > 0 && this.#unnamedOwner !== client) this.#engine.run(restore);
    if (restore.length > 0 || unnamed === "set") this.#unnamedOwner = client;
    if (unnamed === "dropped") this.#unnamedOwner = null;
    if (prelude.length > 0) this.#engine.run(prelude);
    const answer = this.#engine.run(messages);
    // No ReadyForQuery means that the unit ended in Flush: its rest must follow before anybody else's.
    this.#own(answer.status === "I" ? null : client);
    return answer;
  }

  #clear({ client, leaving }) {
    if (this.#owner === client) {
      const { status } = this.#engine.run([SYNC]);
      if (status !== "I") this.#engine.run([query("ROLLBACK")]);
      this.#own(null);
    }
    if (leaving.length > 0) this.#engine.run(leaving);
    return null;
  }

  #own(client) {
    if (client !== this.#owner) this.#ownedSince = Date.now();
    this.#owner = client;
  }

  #warn() {
    const milliseconds = Date.now() - this.#ownedSince;
    if (this.#owner === null || this.#queue.length === 0 || milliseconds < WARN_AFTER_MS) return;
    const seconds = Math.round(milliseconds / 1000);
    process.stderr.write(
      `timescaledb: ${this.#queue.length} units wait for a transaction open for ${seconds} s by ${this.#owner.label}\n`,
    );
  }
}
