/** Loading again what changed: never twice at the same time, and resting so that it costs a tenth of the time at most. */

const REST = 10; // times what the loading took

/**
 * Loads at once, and again after each call of what it returns.
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
    setTimeout(rested, Math.max(least, REST * (performance.now() - began)));
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
