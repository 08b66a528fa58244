// Prepared statements of one client, inside the one session that all clients share.
import { cstring, message, SYNC } from "./protocol.mjs";

const NUL = 0;
const LEADING = /^(?:\s+|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)+/;
const DEALLOCATE = /^(?:deallocate\s+(?:prepare\s+)?("(?:[^"]|"")+"|\w+)|discard\s+all)\s*;?\s*$/i;

/** The SQL text of a message from an offset to its terminating NUL. */
function textAt(bytes, from) {
  return bytes.toString("utf8", from, bytes.indexOf(NUL, from));
}

/** Cheap look at the first word, so that the text of a large query is not decoded for nothing. */
function mayBegin(bytes, from, word) {
  const first = bytes[from] | 0x20;
  return first === word.charCodeAt(0) || first <= 0x2f;
}

/** { binary } when the message holds a COPY .. FROM STDIN as its only statement, else null. */
export function copyFromStdin(bytes, from) {
  if (!mayBegin(bytes, from, "copy")) return null;
  const sql = textAt(bytes, from).replace(LEADING, "");
  const match = /^copy\s+(binary\s)?[^;]*?\sfrom\s+stdin\b([^;]*);?\s*$/i.exec(sql);
  if (match === null) return null;
  return { binary: match[1] !== undefined || /\bbinary\b/i.test(match[2]) };
}

/**
 * Gives each named statement of a client a name of its own in the engine, keeps the unnamed one across units of other
 * clients, and turns DEALLOCATE and DISCARD ALL, which drivers send, into closing this client's statements only.
 */
export class Statements {
  #prefix;
  #names = new Map();
  #count = 0;
  #unnamed = null;

  constructor(prefix) {
    this.#prefix = prefix;
  }

  /** Messages that do what this simple query asks for. */
  simple(bytes) {
    const closing = this.#deallocated(bytes, 5);
    return closing === null ? [bytes] : [...closing, message("Q", cstring("DO ''"))];
  }
}
