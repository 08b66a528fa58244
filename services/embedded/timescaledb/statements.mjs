// Prepared statements of one client, inside the one session that all clients share.
import { cstring, message, query, SYNC } from "./protocol.mjs";

const NUL = 0;
const LEADING = /^(?:\s+|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)+/;
const QUOTED = /'(?:[^']|'')*'|"(?:[^"]|"")*"/g;
const DEALLOCATE = /^(?:deallocate\s+(?:prepare\s+)?("[^"]+"|\w+)|discard\s+(all))\s*;?\s*$/i;
const NOTHING = "DO 'BEGIN END'"; // completes like a command and changes nothing

/** The SQL text of a message from an offset to its terminating NUL, if its first letter can be that of `word`. */
function textOf(bytes, from, word) {
  const first = bytes[from] | 0x20;
  const blankOrComment = first <= 0x2f;
  if (first !== word.charCodeAt(0) && !blankOrComment) return "";
  return bytes.toString("utf8", from, bytes.indexOf(NUL, from)).replace(LEADING, "");
}

/** { binary } when the SQL text at an offset of a message is one COPY .. FROM STDIN, else null. */
export function copyFromStdin(bytes, from) {
  const sql = textOf(bytes, from, "copy");
  const match = /^copy\s+(binary\s)?[\s\S]*?\sfrom\s+stdin\b([\s\S]*)$/i.exec(sql);
  if (match === null || /;\s*\S/.test(sql.replace(QUOTED, "''"))) return null;
  return { binary: match[1] !== undefined || /\bbinary\b/i.test(match[2]) };
}

/**
 * Translates a client's units for the shared session. Each named statement gets a name of its own in the engine, the
 * unnamed one is restored when another client has used it in between, and DEALLOCATE and DISCARD ALL, which drivers
 * send, close this client's statements only.
 *
 * A translation is { messages, prelude, restore, unnamed }: what to run for an answer; what to run before it, its
 * answer thrown away; what to run before that if another client had the unnamed statement last; and whether the unit
 * leaves the unnamed statement "kept", "set" or "dropped".
 */
export class Statements {
  #prefix;
  #names = new Map();
  #count = 0;
  #unnamed = null;

  constructor(prefix) {
    this.#prefix = prefix;
  }

  /** Translates a simple query. */
  simple(bytes) {
    const prelude = this.#deallocate(bytes, 5);
    const messages = prelude === null ? [bytes] : [query(NOTHING)];
    return { messages, prelude: prelude ?? [], restore: [], unnamed: "dropped" };
  }

  /** Translates extended-query messages up to and with Sync or Flush. */
  extended(unit) {
    const translation = { messages: [], prelude: [], restore: [], unnamed: "kept" };
    for (const bytes of unit) translation.messages.push(this.#translate(bytes, translation));
    return translation;
  }

  /** Messages that close every statement of this client. */
  closeAll() {
    const closing = [...this.#names.values()].map((name) => message("C", cstring(`S${name}`)));
    this.#names.clear();
    return closing.length === 0 ? [] : [...closing, SYNC];
  }

  #translate(bytes, translation) {
    switch (String.fromCharCode(bytes[0])) {
      case "P":
        return this.#parse(bytes, translation);
      case "B": {
        const nameAt = bytes.indexOf(NUL, 5) + 1;
        return this.#refer(bytes, nameAt, translation);
      }
      case "D":
        return bytes[5] === 0x53 ? this.#refer(bytes, 6, translation) : bytes;
      case "C":
        return bytes[5] === 0x53 ? this.#close(bytes) : bytes;
      default:
        return bytes;
    }
  }

  #parse(bytes, translation) {
    const sqlAt = bytes.indexOf(NUL, 5) + 1;
    const prelude = this.#deallocate(bytes, sqlAt);
    if (prelude !== null) {
      translation.prelude.push(...prelude);
      return message("P", bytes.subarray(5, sqlAt), cstring(NOTHING), Buffer.from([0, 0]));
    }
    if (sqlAt > 6) return this.#rename(bytes, 5, this.#nameFor(bytes.toString("utf8", 5, sqlAt - 1)));
    this.#unnamed = bytes;
    translation.unnamed = "set";
    return bytes;
  }

  #refer(bytes, nameAt, translation) {
    const end = bytes.indexOf(NUL, nameAt);
    if (end > nameAt) return this.#rename(bytes, nameAt, this.#nameFor(bytes.toString("utf8", nameAt, end)));
    if (translation.unnamed === "kept" && this.#unnamed !== null) translation.restore = [this.#unnamed, SYNC];
    return bytes;
  }

  #close(bytes) {
    const end = bytes.indexOf(NUL, 6);
    if (end === 6) return bytes;
    const name = bytes.toString("utf8", 6, end);
    const renamed = this.#rename(bytes, 6, this.#nameFor(name));
    this.#names.delete(name);
    return renamed;
  }

  #nameFor(name) {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    this.#count += 1;
    const own = `${this.#prefix}${this.#count}`;
    this.#names.set(name, own);
    return own;
  }

  #rename(bytes, nameAt, name) {
    const rest = bytes.subarray(bytes.indexOf(NUL, nameAt) + 1);
    return message(String.fromCharCode(bytes[0]), bytes.subarray(5, nameAt), cstring(name), rest);
  }

  /** Messages for DEALLOCATE name, DEALLOCATE ALL and DISCARD ALL; null when the text is none of these. */
  #deallocate(bytes, sqlAt) {
    const match = DEALLOCATE.exec(textOf(bytes, sqlAt, "deallocate"));
    if (match === null) return null;
    const given = match[1] ?? match[2];
    if (/^all$/i.test(given)) return this.closeAll().slice(0, -1);
    const name = given.startsWith('"') ? given.slice(1, -1) : given.toLowerCase();
    const own = this.#names.get(name);
    if (own === undefined) return null; // made by the SQL command PREPARE, or unknown: the engine answers
    this.#names.delete(name);
    return [message("C", cstring(`S${own}`))];
  }
}
