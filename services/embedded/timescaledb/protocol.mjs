// Frontend/backend protocol 3.0: cutting a byte stream into messages, and building the few messages we send ourselves.
// Layout of every message after start-up: type (1 byte), length (int32, itself included), body.

export const STARTUP_V3 = 196608;
export const CANCEL_REQUEST = 80877102;
export const SSL_REQUEST = 80877103;
export const GSSENC_REQUEST = 80877104;

// PostgreSQL's own limits (MAX_STARTUP_PACKET_LENGTH; PQ_LARGE_MESSAGE_LIMIT is MaxAllocSize - 1).
const MAX_STARTUP_BYTES = 10_000;
const MAX_MESSAGE_BYTES = 0x3fffffff - 1;

/** Builds one message from a type letter and body parts (Buffers). */
export function message(type, ...parts) {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

export const cstring = (text) => Buffer.from(`${text}\0`, "utf8");

export function int32(...values) {
  const buffer = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => buffer.writeInt32BE(value, 4 * index));
  return buffer;
}

export const SYNC = message("S");
export const query = (sql) => message("Q", cstring(sql));
export const readyForQuery = (status) => message("Z", Buffer.from(status, "latin1"));

/** ErrorResponse ("E") or NoticeResponse ("N"). */
export function report(type, severity, sqlstate, text) {
  const fields = ["S", severity, "V", severity, "C", sqlstate, "M", text];
  const parts = [];
  for (let index = 0; index < fields.length; index += 2) parts.push(cstring(fields[index] + fields[index + 1]));
  return message(type, ...parts, Buffer.from([0]));
}

/** Cuts incoming chunks into messages. Bytes are copied only when a message spans chunks, and then once. */
export class Framer {
  #chunks = [];
  #length = 0;
  #needed = 4;
  startup = true;

  push(chunk) {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** Next whole message, head included; null when more bytes are needed. Throws RangeError on an impossible length. */
  next() {
    if (this.#length < this.#needed) return null;
    let buffer = this.#join();
    const lengthAt = this.startup ? 0 : 1;
    if (buffer.length < lengthAt + 4) return this.#wait(lengthAt + 4);
    const declared = buffer.readInt32BE(lengthAt);
    const limit = this.startup ? MAX_STARTUP_BYTES : MAX_MESSAGE_BYTES;
    if (declared < (this.startup ? 8 : 4) || declared > limit) throw new RangeError(`message length ${declared}`);
    const size = lengthAt + declared;
    if (buffer.length < size) return this.#wait(size);
    this.#chunks = buffer.length > size ? [buffer.subarray(size)] : [];
    this.#length -= size;
    this.#needed = 1;
    return buffer.subarray(0, size);
  }

  #join() {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks, this.#length)];
    return this.#chunks[0];
  }

  #wait(bytes) {
    this.#needed = bytes;
    return null;
  }
}

/** Yields [type, body] of each backend message in a buffer of whole messages. */
export function* backendMessages(buffer) {
  for (let at = 0; at < buffer.length; ) {
    const size = buffer.readInt32BE(at + 1);
    yield [String.fromCharCode(buffer[at]), buffer.subarray(at + 5, at + 1 + size)];
    at += 1 + size;
  }
}

/** Rows of a text-format answer: arrays of strings and nulls. Throws Error with the server's message on failure. */
export function rowsOf(answer) {
  const rows = [];
  for (const [type, body] of backendMessages(answer)) {
    if (type === "E") throw new Error(errorText(body));
    if (type === "D") rows.push(rowOf(body));
  }
  return rows;
}

function rowOf(body) {
  const row = [];
  let at = 2;
  for (let column = body.readInt16BE(0); column > 0; column -= 1) {
    const size = body.readInt32BE(at);
    row.push(size < 0 ? null : body.toString("utf8", at + 4, at + 4 + size));
    at += 4 + Math.max(size, 0);
  }
  return row;
}

function errorText(body) {
  const fields = Object.fromEntries(
    body.toString("utf8").split("\0").filter(Boolean).map((field) => [field[0], field.slice(1)]),
  );
  return `${fields.C}: ${fields.M}`;
}
