/** The bytes of a stream, as they come, become blocks of lines; a block knows which bytes it shows. */

import { Terminal } from "./ansi.js";

const BLOCK_BYTES = 64 * 1024;
const NEWLINE = 10;
const RETURN = 13;

/**
 * @typedef {{from: number, to: number, lines: import("./ansi.js").Run[][]}} Block `lines` of the bytes [from, to)
 */

export class Feed {
  #terminal = new Terminal();
  #pending = new Uint8Array(0); // the line that has not ended yet
  #position;

  /** @param {number} offset of the first byte that comes */
  constructor(offset) {
    this.#position = offset;
  }

  /** @returns {number} the offset of the byte that comes next */
  get next() {
    return this.#position + this.#pending.length;
  }

  /**
   * Takes the bytes that follow.
   * @param {Uint8Array} bytes
   * @returns {Block[]} the lines that are whole now
   */
  take(bytes) {
    let left = joined(this.#pending, bytes);
    const blocks = [];
    for (let end = wholeLines(left); end > 0; end = wholeLines(left)) {
      const overwritten = left[end] === RETURN && left[end + 1] !== NEWLINE && left[end - 1] !== NEWLINE;
      blocks.push(this.#block(left.subarray(0, end), overwritten));
      left = left.subarray(end);
    }
    this.#pending = left.slice();
    return blocks;
  }

  /** The line that has not ended, as it is now. */
  unfinished() {
    return this.#pending.length ? this.#terminal.copy().lines(decoded(this.#pending, true)) : [];
  }

  /** All that is left, as a block; nothing more comes. */
  rest() {
    const left = this.#pending;
    this.#pending = new Uint8Array(0);
    return left.length ? [this.#block(left)] : [];
  }

  #block(bytes, overwritten = false) {
    const from = this.#position;
    this.#position += bytes.length;
    const lines = this.#terminal.lines(decoded(bytes));
    if (overwritten) lines.length = 0;
    else if (bytes.at(-1) === NEWLINE) lines.pop(); // what follows the last newline is the next block's
    return { from, to: this.#position, lines };
  }
}

/**
 * Where the first line begins that is in these bytes as a whole; they were cut out of the middle of a stream.
 * @param {Uint8Array} bytes
 */
export function firstLine(bytes) {
  const end = bytes.indexOf(NEWLINE);
  if (end >= 0 && end < bytes.length - 1) return end + 1;
  return characterStart(bytes, 0);
}

/** How many bytes make a block: whole lines, or, of a line that is too long for one, as much as fits; 0: wait for more. */
function wholeLines(bytes) {
  const within = bytes.subarray(0, BLOCK_BYTES);
  const end = within.lastIndexOf(NEWLINE) + 1;
  if (end > 0) return end;
  if (bytes.length <= BLOCK_BYTES) return 0;
  const returned = within.lastIndexOf(RETURN); // a progress bar: the line begins anew there
  return returned > 0 ? returned : characterBefore(bytes, BLOCK_BYTES);
}

const isInside = (byte) => (byte & 0xc0) === 0x80; // of a character of several bytes

function characterStart(bytes, at) {
  for (let start = at; start < at + 4 && start < bytes.length; start += 1) if (!isInside(bytes[start])) return start;
  return at;
}

function characterBefore(bytes, at) {
  for (let start = at; start > at - 4; start -= 1) if (!isInside(bytes[start])) return start;
  return at;
}

function decoded(bytes, goesOn = false) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes, { stream: goesOn });
}

function joined(first, second) {
  if (!first.length) return second;
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
