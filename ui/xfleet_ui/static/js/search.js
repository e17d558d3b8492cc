// Ctrl-K, Cmd-K or a plain "/" goes to the search field of the page, else to that of the top bar.
export function startSearch() {
  document.addEventListener("keydown", (event) => {
    const chord = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
    const slash = event.key === "/" && !event.target.closest?.("input, textarea, select, [contenteditable]");
    if (!chord && !slash) return;
    if (document.getElementById("dialog")?.open) return;
    const fields = [...document.querySelectorAll("[data-search-focus]")].filter((field) => field.offsetParent);
    const field = fields.find((candidate) => candidate.closest("main")) ?? fields[0];
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
}
