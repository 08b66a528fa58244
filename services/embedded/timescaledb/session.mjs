// One client connection: start-up, cutting messages into units, COPY FROM STDIN, and writing answers.
import { randomInt } from "node:crypto";

import * as protocol from "./protocol.mjs";
import { copyFromStdin, Statements } from "./statements.mjs";

// Units a client may have waiting before its socket is no longer read, and bytes of one COPY.
const MAX_QUEUED_UNITS = 64;
const MAX_COPY_BYTES = 2 ** 30;

let sessionCount = 0;

export class Session {
  #socket;
  #scheduler;
  #server;
  #framer = new protocol.Framer();
  #statements;
  #unit = [];
  #queued = 0;
  #copy = null;
  #skipSync = false;
  #left = false;
  label;

  constructor(socket, scheduler, server) {
    sessionCount += 1;
    this.id = sessionCount;
    this.label = `client ${this.id}`;
    this.#socket = socket;
    this.#scheduler = scheduler;
    this.#server = server;
    this.#statements = new Statements(`c${this.id}_`);
    socket.on("data", (chunk) => this.#receive(chunk));
    socket.on("drain", () => this.#drained());
    socket.on("error", () => {}); // reset by the client: "close" follows
    socket.on("close", () => this.#leave());
  }

  /** Tells the client that the server stops, and hangs up. */
  shutDown() {
    this.#fatal("57P01", "terminating connection: the embedded server is stopping");
  }

  #receive(chunk) {
    this.#framer.push(chunk);
    try {
      for (let bytes = this.#framer.next(); bytes !== null; bytes = this.#framer.next()) {
        if (this.#left) return;
        if (this.#framer.startup) this.#startUp(bytes);
        else this.#accept(bytes);
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#fatal("08P01", `invalid message: ${error.message}`);
    }
    this.#flow();
  }

  // ---- start-up -------------------------------------------------------------------------------------------------

  #startUp(bytes) {
    const code = bytes.readInt32BE(4);
    if (code === protocol.SSL_REQUEST || code === protocol.GSSENC_REQUEST) return void this.#socket.write("N");
    // One engine that cannot be interrupted: a cancel request is taken and has no effect.
    if (code === protocol.CANCEL_REQUEST) return void this.#socket.end();
    if (code >> 16 !== 3) return this.#fatal("0A000", `unsupported frontend protocol ${code >> 16}.${code & 0xffff}`);
    const words = bytes.toString("utf8", 8).split("\0");
    const given = new Map();
    for (let index = 0; index + 1 < words.length && words[index] !== ""; index += 2) given.set(words[index], words[index + 1]);
    const database = given.get("database") ?? given.get("user");
    if (database !== this.#server.database) {
      return this.#fatal("3D000", `database "${database}" does not exist, this server has "${this.#server.database}" only`);
    }
    this.#framer.startup = false;
    this.label = `${this.label}, application ${given.get("application_name") || "unnamed"}`;
    this.#socket.write(Buffer.concat([...this.#welcome(given, code & 0xffff)]));
  }

  *#welcome(given, minor) {
    if (minor > 0) yield protocol.message("v", protocol.int32(0, 0)); // NegotiateProtocolVersion: 3.0, no options
    yield protocol.message("R", protocol.int32(0));
    const parameters = { ...this.#server.parameters, application_name: given.get("application_name") ?? "" };
    for (const [name, value] of Object.entries(parameters)) {
      yield protocol.message("S", protocol.cstring(name), protocol.cstring(value));
    }
    if (given.get("options")) {
      yield protocol.report("N", "WARNING", "01000", "start-up options are ignored: all clients share one session");
    }
    yield protocol.message("K", protocol.int32(this.id, randomInt(2 ** 31 - 1)));
    yield protocol.readyForQuery("I");
  }

  // ---- messages into units --------------------------------------------------------------------------------------

  #accept(bytes) {
    const type = String.fromCharCode(bytes[0]);
    if (this.#copy !== null && "dcfSH".includes(type)) this.#acceptCopy(type, bytes);
    else if (type === "Q") this.#simple(bytes);
    else if ("PBDECH".includes(type)) this.#extended(type, bytes);
    else if (type === "S") this.#sync(bytes);
    else if (type === "F") this.#submit(plain([bytes]));
    else if (type === "X") this.#socket.end();
    // CopyData, CopyDone and CopyFail left over from a COPY that failed are to be ignored, as the protocol says.
    else if (!"dcf".includes(type)) this.#fatal("08P01", `invalid frontend message type ${bytes[0]}`);
  }

  #extended(type, bytes) {
    this.#unit.push(bytes);
    if (type === "H") this.#endUnit();
  }

  #simple(bytes) {
    const copy = copyFromStdin(bytes, 5);
    if (copy === null) this.#submit(this.#statements.simple(bytes));
    else this.#beginCopy(bytes, copy, []);
  }

  #sync(bytes) {
    if (this.#skipSync) return void (this.#skipSync = false);
    const [parse, execute] = ["P", "E"].map((type) => this.#unit.find((each) => each[0] === type.charCodeAt(0)));
    const copy = parse && execute ? copyFromStdin(parse, parse.indexOf(0, 5) + 1) : null;
    if (copy !== null) return this.#beginExtendedCopy(parse, copy);
    this.#unit.push(bytes);
    this.#endUnit();
  }

  #endUnit() {
    const unit = this.#unit;
    this.#unit = [];
    this.#submit(this.#statements.extended(unit));
  }

  #submit(work, answer = (chunks) => chunks) {
    this.#queued += 1;
    const done = ({ chunks }) => {
      this.#queued -= 1;
      this.#write(answer(chunks));
      this.#flow();
    };
    this.#scheduler.submit({ client: this, ...work, done });
  }

  // ---- COPY FROM STDIN ------------------------------------------------------------------------------------------
  // The engine reads a unit to its end and cannot wait for a client, so the data is collected first. The errors of a
  // wrong statement therefore come after the data instead of before it.

  #beginCopy(statement, copy, preface) {
    this.#copy = { statement, data: [], bytes: 0, extended: preface.length > 0 };
    const format = copy.binary ? 1 : 0;
    const ready = protocol.message("G", Buffer.from([format, 0, 0])); // zero columns named: no driver looks at them
    // In its turn, behind answers that are still to come.
    this.#submit(plain([]), () => [...preface, ready]);
  }

  #beginExtendedCopy(parse, copy) {
    const answers = { P: "1", B: "2", D: "n" };
    const preface = this.#unit
      .map((each) => answers[String.fromCharCode(each[0])])
      .filter((type) => type !== undefined)
      .map((type) => protocol.message(type));
    this.#unit = [];
    const from = parse.indexOf(0, 5) + 1;
    this.#beginCopy(protocol.message("Q", parse.subarray(from, parse.indexOf(0, from) + 1)), copy, preface);
  }

  #acceptCopy(type, bytes) {
    const copy = this.#copy;
    if (type === "S" || type === "H") return; // ignored in copy-in mode, as the protocol says
    copy.bytes += bytes.length;
    if (type === "d" && copy.bytes <= MAX_COPY_BYTES) return void copy.data.push(bytes);
    if (type === "d") {
      copy.data = [];
      return this.#fatal("54000", `COPY data exceeds ${MAX_COPY_BYTES} bytes, which this server holds in memory`);
    }
    this.#copy = null;
    this.#skipSync = copy.extended;
    this.#submit(plain([copy.statement, ...copy.data, bytes]), withoutCopyInResponse);
  }

  // ---- answers --------------------------------------------------------------------------------------------------

  #write(chunks) {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#socket.cork();
    for (const chunk of chunks) this.#socket.write(chunk);
    this.#socket.uncork();
  }

  /** True while answers wait to be read: the scheduler then runs nothing for this client. */
  get congested() {
    return !this.#left && this.#socket.writableNeedDrain;
  }

  #drained() {
    this.#flow();
    this.#scheduler.wake();
  }

  /** Stops reading from a client that does not take its answers, or sends faster than the engine works. */
  #flow() {
    const wait = this.congested || (this.#queued >= MAX_QUEUED_UNITS && this.#copy === null);
    if (wait) this.#socket.pause();
    else this.#socket.resume();
  }

  #fatal(sqlstate, text) {
    if (this.#socket.writable) this.#socket.end(protocol.report("E", "FATAL", sqlstate, text));
    this.#leave();
  }

  #leave() {
    if (this.#left) return;
    this.#left = true;
    this.#unit = [];
    this.#copy = null;
    this.#scheduler.forget(this, this.#statements.closeAll());
  }
}

/** Work that touches no prepared statement but the unnamed one, which a simple query drops. */
function plain(messages) {
  return { messages, prelude: [], restore: [], unnamed: "dropped" };
}

/** The engine flushes its CopyInResponse before it reads data: it ends the first chunk, after notices if there are any. */
function withoutCopyInResponse([first, ...rest]) {
  if (first === undefined) return [];
  for (let at = 0; at < first.length; at += 1 + first.readInt32BE(at + 1)) {
    if (first[at] === 0x47) return [first.subarray(0, at), ...rest];
  }
  return [first, ...rest];
}
