/** Loading and drawing again what changed, without haste: what somebody looks at closely stays. */

import { replace } from "./dom.js";

const REST = 30; // times what the loading took
const MOST_MS = 30_000; // of rest

/**
 * Loads at once, and again after each call of what it returns: never twice at the same time, and resting so long that many open pages cost the server little.
 * @param {object} ctx of the page: it ends when that is left
 * @param {() => Promise<void>} load
 * @param {(error: Error|null) => void} told how it went, each time
 * @param {number} least milliseconds of rest
 * @returns {() => void} to be called when something changed
 */
export function refresher(ctx, load, told, least = 1000) {
  let isBusy = false;
  let isDue = false;
  let isLeft = false;

  async function run() {
    if (isLeft) return;
    if (isBusy || document.hidden) {
      isDue = true;
      return;
    }
    isBusy = true;
    isDue = false;
    const began = performance.now();
    const error = await load().then(() => null, (problem) => problem);
    if (isLeft) return;
    told(error);
    isDue ||= Boolean(error) && !(error.status >= 400 && error.status < 500); // it may answer again
    setTimeout(rested, Math.max(least, error ? 0 : Math.min(MOST_MS, REST * (performance.now() - began))));
  }
  function rested() {
    isBusy = false;
    if (isDue) run();
  }
  const seen = () => isDue && run();
  document.addEventListener("visibilitychange", seen);
  ctx.onLeave(() => {
    isLeft = true;
    document.removeEventListener("visibilitychange", seen);
  });
  run();
  return run;
}

/**
 * Draws into a node what depends on its width; not while the pointer or the focus is within it, and a table that was opened stays open.
 * @param {object} ctx of the page
 * @param {HTMLElement} node
 * @returns {(make: (width: number) => Node|Node[]) => void}
 */
export function drawing(ctx, node) {
  let newest = null;
  let isDue = false;
  let width = 0;
  const isHeld = () => node.childElementCount > 0 && (node.matches(":hover") || node.contains(document.activeElement));
  const draw = () => {
    if (!isDue || !newest || isHeld() || !node.clientWidth) return;
    isDue = false;
    width = node.clientWidth;
    const wasOpen = node.querySelector("details")?.open;
    replace(node, newest(width));
    if (wasOpen && node.querySelector("details")) node.querySelector("details").open = true;
  };
  const resized = () => {
    isDue ||= Math.abs(node.clientWidth - width) > 4;
    draw();
  };
  const observer = new ResizeObserver(resized);
  observer.observe(node);
  ctx.onLeave(() => observer.disconnect());
  node.addEventListener("pointerleave", draw);
  node.addEventListener("focusout", () => setTimeout(draw));
  return (make) => {
    newest = make;
    isDue = true;
    draw();
  };
}
