/** Characters that are not seen, or that turn the direction of writing: a name or a command may be called anything. */

const CONTROLS = "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069";
const DECEIVING = new RegExp(`[${CONTROLS}\\t\\n\\ufeff]`, "g");
const INVISIBLE = new RegExp(`[${CONTROLS}\\u00a0\\u00ad\\u200b-\\u200f\\u2060-\\u2065\\ufeff]`, "g");

const escaped = (found) => `\\u{${found.codePointAt(0).toString(16)}}`;

/** A text of several lines, in which everything can be seen: for a look at each difference. */
export function visible(text) {
  return text.replace(INVISIBLE, escaped);
}

/** Whether a text holds characters that `visible` would show. */
export function hidesSomething(text) {
  return text.search(INVISIBLE) >= 0;
}

/** A name as one line that is read in its own order. */
export function named(text) {
  return text.replace(DECEIVING, escaped);
}
