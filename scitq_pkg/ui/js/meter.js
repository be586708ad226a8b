/** How much of something is taken, as a bar. */

import { svg } from "./dom.js";

/**
 * @param {number} share 0 to 1
 * @param {boolean} isTooMuch
 */
export function meter(share, isTooMuch = false) {
  const width = Math.max(0.5, 100 * Math.min(1, share));
  return svg("svg", { class: `meter${isTooMuch ? " bad" : ""}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "meter-back", width: 100, height: 10 }), svg("rect", { class: "meter-full", width, height: 10 }));
}
