// Before the first paint, hence no module: the theme that was chosen here.
(() => {
  try {
    const chosen = localStorage.getItem("scitq.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // a browser that keeps nothing: the theme of its system
  }
})();
