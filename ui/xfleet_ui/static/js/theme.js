// Light, dark or as the system: remembered, applied by theme-boot.js in every open tab.
export function startTheme() {
  const mark = () => {
    const choice = document.documentElement.dataset.themeChoice;
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      if (button === document.documentElement) continue;
      if (button.dataset.themeChoice === choice) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-theme-choice]");
    if (!button) return;
    try { localStorage.setItem("xfleet-theme", button.dataset.themeChoice); } catch { /* private mode: not remembered */ }
    dispatchEvent(new CustomEvent("xfleet:theme-choice"));
    mark();
  });
  mark();
}
