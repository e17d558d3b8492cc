// Forms: parts that belong to one choice, a mark while sending, and a mark once touched.
function showParts(root) {
  for (const chosen of root.querySelectorAll("input[type=radio][data-shows]")) {
    const part = chosen.form?.querySelector(`[data-shown-by="${chosen.dataset.shows}"]`);
    if (part) part.hidden = !chosen.checked;
  }
  for (const custom of root.querySelectorAll('input[data-shows$="-custom"]:checked')) {
    custom.form.querySelector("details.advanced")?.setAttribute("open", "");
  }
}

export function startForms() {
  showParts(document);
  document.addEventListener("htmx:after:swap", () => showParts(document));
  document.addEventListener("change", (event) => { if (event.target.matches("[data-shows]")) showParts(document);
    if (event.target.matches("[data-submits]")) event.target.form?.requestSubmit();
  });
  document.addEventListener("input", (event) => { event.target.form?.setAttribute("data-touched", ""); });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form[data-form]:not([hx-post])")) event.target.classList.add("is-sending");
  });
  addEventListener("pageshow", () => { for (const form of document.querySelectorAll(".is-sending")) form.classList.remove("is-sending"); });
}
