/**
 * What a terminal would show of a command's output: lines of runs of text with their colours.
 * Carriage returns and backspaces overwrite as they do there (progress bars); every other control sequence is left out.
 * Nothing here makes markup: a run is a text and the names of CSS classes.
 *
 * @typedef {{text: string, style: string}} Run
 */

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const LONGEST_LINE = 20_000; // characters: what is longer goes on in the next line, no browser lays out 10 MB in one
const WIDEST = 200; // columns that a sequence may move to without text there: else few bytes make many blanks
const MOST_RUNS = 400; // of colours in one line; further ones look like the one before
const LONGEST_SEQUENCE = 256; // characters of a control sequence; a longer one is text that happens to begin like one

// A control sequence (CSI), a string for the terminal (OSC, DCS...), another escape, one control character, or plain text.
const TOKENS = new RegExp(
  `\\x1b\\[[0-9:;<=>?]{0,${LONGEST_SEQUENCE}}[ -/]{0,8}[@-~]` +
    `|\\x1b[\\]PX^_][^\\x07\\x1b\\n]{0,${LONGEST_SEQUENCE * 8}}(?:\\x07|\\x1b\\\\)?` +
    "|\\x1b[ -/]{0,8}[0-~]?" +
    "|[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f]" +
    "|[^\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f]+",
  "g",
);

const PLAIN = Object.freeze({ colour: null, ground: null, bold: false, dim: false, italic: false, underline: false, inverse: false });

/** Reads output text, piece by piece; what colours are on goes from piece to piece. */
export class Terminal {
  #style = { ...PLAIN };
  #name = "";

  /** @returns {Terminal} one that goes on from here on its own */
  copy() {
    const other = new Terminal();
    other.#style = { ...this.#style };
    other.#name = this.#name;
    return other;
  }

  /**
   * The lines of a text. The last one is what follows the last newline (maybe nothing).
   * @param {string} text
   * @returns {Run[][]}
   */
  lines(text) {
    const lines = [];
    let line = new Line();
    for (const [token] of text.matchAll(TOKENS)) {
      if (token === "\n" || line.length > LONGEST_LINE) {
        lines.push(line.runs);
        line = new Line();
        if (token === "\n") continue;
      }
      this.#take(token, line, lines);
    }
    lines.push(line.runs);
    return lines;
  }

  #take(token, line, lines) {
    const first = token.charCodeAt(0);
    if (first === 0x0d) line.column = 0;
    else if (first === 0x08) line.column = Math.max(0, line.column - 1);
    else if (first === 0x1b) this.#obey(token, line);
    else if (first === 0x07) return; // the bell
    else if ((first < 0x20 && first !== 0x09) || (first >= 0x7f && first < 0xa0)) line.put(picture(first), "ansi-control");
    else this.#put(token, line, lines);
  }

  #put(text, line, lines) {
    for (let start = 0; start < text.length; ) {
      if (line.length >= LONGEST_LINE && line.column === line.length) {
        lines.push(line.runs);
        line.begin();
      }
      const end = start + Math.max(1, LONGEST_LINE - line.column);
      line.put(text.slice(start, end), this.#name);
      start = end;
    }
  }

  #obey(sequence, line) {
    const numbers = () => sequence.slice(2, -1).split(/[;:]/).map(Number);
    if (!sequence.startsWith("\x1b[")) return;
    switch (sequence.at(-1)) {
      case "m":
        this.#paint(sequence.slice(2, -1));
        break;
      case "K":
        line.erase(numbers()[0] || 0);
        break;
      case "G":
        line.move((numbers()[0] || 1) - 1);
        break;
      case "C":
        line.move(line.column + (numbers()[0] || 1));
        break;
      case "D":
        line.move(line.column - (numbers()[0] || 1));
        break;
      default: // moves to other lines and questions to the terminal: nothing to show
    }
  }

  #paint(parameters) {
    if (!/^[0-9;:]*$/.test(parameters)) return;
    const codes = parameters.split(/[;:]/).map(Number);
    for (let at = 0; at < codes.length; at += 1) at += paint(this.#style, codes, at);
    this.#name = className(this.#style);
  }
}

/** One line as it is written; `column` is where the next character goes. */
class Line {
  runs = [];
  length = 0;
  column = 0;

  begin() {
    this.runs = [];
    this.length = 0;
    this.column = 0;
  }

  put(text, style) {
    if (this.column < this.length) this.#overwrite(text, style);
    else this.#append(text, style);
    this.column += text.length;
  }

  move(column) {
    this.column = Math.min(Math.max(0, column), Math.max(this.length, WIDEST));
    if (this.column > this.length) {
      const blanks = this.column - this.length;
      this.#append(" ".repeat(blanks), "");
    }
  }

  /** 0: from here to the end, 1: up to here, 2: all of it. */
  erase(what) {
    const here = this.column;
    if (what === 0) this.#set(this.#cut(0, here));
    else if (what === 2) this.#set([{ text: " ".repeat(here), style: "" }]);
    else this.#set([{ text: " ".repeat(here), style: "" }, ...this.#cut(here, this.length)]);
  }

  #append(text, style) {
    const last = this.runs.at(-1);
    if (last && (last.style === style || this.runs.length >= MOST_RUNS)) last.text += text;
    else this.runs.push({ text, style });
    this.length += text.length;
  }

  #overwrite(text, style) {
    const after = this.#cut(this.column + text.length, this.length);
    const before = this.#cut(0, this.column);
    const many = before.length + after.length >= MOST_RUNS;
    this.#set([...before, { text, style: many ? "" : style }, ...after]);
    if (many) this.#set([{ text: this.runs.map((run) => run.text).join(""), style: "" }]);
  }

  #set(runs) {
    this.runs = [];
    for (const { text, style } of runs) {
      const last = this.runs.at(-1);
      if (last?.style === style) last.text += text;
      else if (text) this.runs.push({ text, style });
    }
    this.length = this.runs.reduce((sum, run) => sum + run.text.length, 0);
  }

  /** The runs between two columns. */
  #cut(from, to) {
    const cut = [];
    let at = 0;
    for (const run of this.runs) {
      const text = run.text.slice(Math.max(0, from - at), Math.max(0, to - at));
      if (text) cut.push({ text, style: run.style });
      at += run.text.length;
    }
    return cut;
  }
}

/** Lets the code at this place change the style; how many more of the codes belonged to it. */
function paint(style, codes, at) {
  const code = codes[at];
  if (code === 0) Object.assign(style, PLAIN);
  else if (code === 1) style.bold = true;
  else if (code === 2) style.dim = true;
  else if (code === 3) style.italic = true;
  else if (code === 4) style.underline = true;
  else if (code === 7) style.inverse = true;
  else if (code === 22) style.bold = style.dim = false;
  else if (code === 23) style.italic = false;
  else if (code === 24) style.underline = false;
  else if (code === 27) style.inverse = false;
  else if (code === 39) style.colour = null;
  else if (code === 49) style.ground = null;
  else return paintColour(style, codes, at);
  return 0;
}

function paintColour(style, codes, at) {
  const code = codes[at];
  if (code >= 30 && code <= 37) style.colour = NAMES[code - 30];
  else if (code >= 40 && code <= 47) style.ground = NAMES[code - 40];
  else if (code >= 90 && code <= 97) style.colour = `bright-${NAMES[code - 90]}`;
  else if (code >= 100 && code <= 107) style.ground = `bright-${NAMES[code - 100]}`;
  else if (code === 38 || code === 48) return paintOfMany(style, codes, at);
  return 0;
}

/** 256 colours and true colours, by the nearest of the sixteen: those are readable in both themes. */
function paintOfMany(style, codes, at) {
  const which = codes[at] === 38 ? "colour" : "ground";
  if (codes[at + 1] === 5) {
    style[which] = ofPalette(codes[at + 2] ?? 0);
    return 2;
  }
  if (codes[at + 1] === 2) {
    style[which] = nearest(codes[at + 2] ?? 0, codes[at + 3] ?? 0, codes[at + 4] ?? 0);
    return 4;
  }
  return 1;
}

function ofPalette(number) {
  if (number < 8) return NAMES[number];
  if (number < 16) return `bright-${NAMES[number - 8]}`;
  if (number >= 232) return nearest(...Array(3).fill(8 + 10 * (number - 232)));
  const level = (part) => (part ? 55 + 40 * part : 0);
  const cube = number - 16;
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function nearest(red, green, blue) {
  const most = Math.max(red, green, blue);
  const bit = (part) => (part > most / 2 && part > 48 ? 1 : 0);
  const name = NAMES[bit(red) + 2 * bit(green) + 4 * bit(blue)];
  return most > 200 ? `bright-${name}` : name;
}

function className(style) {
  const names = [];
  if (style.colour) names.push(`ansi-${style.colour}`);
  if (style.inverse) names.push("ansi-inverse");
  else if (style.ground) names.push(`ansi-on-${style.ground}`);
  for (const name of ["bold", "dim", "italic", "underline"]) if (style[name]) names.push(`ansi-${name}`);
  return names.join(" ");
}

/** A control character as something to see. */
function picture(code) {
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "\u2421" : "\ufffd";
}
