// Runs before the first paint, so that the remembered theme never flashes. Kept tiny: it blocks rendering.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("xfleet-theme"); } catch { return null; } };
  const apply = () => {
    const choice = stored() ?? "auto";
    root.dataset.themeChoice = choice;
    root.dataset.bsTheme = choice === "light" || choice === "dark" ? choice : system.matches ? "dark" : "light";
    dispatchEvent(new CustomEvent("xfleet:theme"));
  };
  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", apply);
  addEventListener("xfleet:theme-choice", apply);
})();
