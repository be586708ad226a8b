/** Nodes from data: text stays text. Nothing of the UI makes markup from strings. */

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "selected", "indeterminate"]);
const SCRIPT_URL = /^[\s\0-\x20]*(javascript|data|vbscript)\s*:/i;

/**
 * An HTML element; a button submits nothing unless it says so.
 * @param {string} tag
 * @param {object|null} [props] `class`, `text`, `on: {event: fn}`, `data: {}`, `style: {}`, any attribute; false, null, undefined are left out
 * @param {...(Node|string|number|Array|null|false)} children
 * @returns {HTMLElement}
 */
export function el(tag, props, ...children) {
  const node = document.createElement(tag);
  if (tag === "button") node.type = "button";
  for (const [name, value] of Object.entries(props ?? {})) set(node, name, value);
  append(node, children);
  return node;
}

/**
 * An SVG element; its attributes are as they are written.
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") listen(node, value);
    else if (!isAbsent(value)) node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

/** Children instead of those that are there. */
export function replace(parent, ...children) {
  parent.replaceChildren(...flat(children));
  return parent;
}

/** Shown, or hidden from everybody. */
export function show(node, yes) {
  node.hidden = !yes;
  return node;
}

function set(node, name, value) {
  if (name === "on") listen(node, value);
  else if (isAbsent(value)) return;
  else if (name === "class") node.className = value;
  else if (name === "text") node.textContent = value;
  else if (name === "data") Object.assign(node.dataset, value);
  else if (name === "style") for (const [key, it] of Object.entries(value)) node.style.setProperty(key, it);
  else if (PROPERTIES.has(name)) node[name] = value;
  else if (!isScript(name, value)) node.setAttribute(name, value === true ? "" : value);
}

/** A link that would run something is none: a task's input may be called anything. */
function isScript(name, value) {
  return /^on/i.test(name) || (/^(href|src|action|formaction)$/i.test(name) && SCRIPT_URL.test(value));
}

function listen(node, handlers) {
  for (const [event, handler] of Object.entries(handlers ?? {})) node.addEventListener(event, handler);
}

function append(node, children) {
  node.append(...flat(children));
}

function flat(children) {
  return children.flat(Infinity).filter((child) => !isAbsent(child) && child !== true).map((child) => (child instanceof Node ? child : String(child)));
}

function isAbsent(value) {
  return value === false || value === null || value === undefined;
}
