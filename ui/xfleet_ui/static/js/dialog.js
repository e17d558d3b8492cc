// One native dialog for forms and details. A link opens it through htmx; without JavaScript the link goes to a page.
export function startDialog() {
  const dialog = document.getElementById("dialog");
  const content = document.getElementById("dialog-content");
  if (!dialog || !content) return;

  const close = () => { if (dialog.open) dialog.close(); };
  const open = () => {
    if (!content.firstElementChild) return; // closed again before htmx was done
    if (!dialog.open) dialog.showModal();
    (content.querySelector(".is-invalid, [autofocus]") ?? content.querySelector(".btn-close"))?.focus();
  };

  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail?.ctx?.target === content || event.target === content) open();
  });
  dialog.addEventListener("close", () => { content.replaceChildren(); });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) { // the backdrop: never throws away what was typed
      if (!content.querySelector("form[data-touched]")) close();
      return;
    }
    const closer = event.target.closest("[data-dialog-close]");
    if (closer) { event.preventDefault(); close(); }
  });
  document.body.addEventListener("dialog-close", close);
}
