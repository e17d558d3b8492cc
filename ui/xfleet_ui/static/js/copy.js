// Copy buttons: the text of the field they name, with a check mark as the answer.
const DONE_MS = 1600;

async function put(text, field) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  // Plain HTTP has no clipboard API; the old command still copies a selection.
  field.select();
  if (!document.execCommand("copy")) throw new Error("copying is not allowed here");
}

export function startCopy() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const field = document.querySelector(button.dataset.copy);
    if (!field) return;
    try {
      await put(field.value, field);
    } catch {
      field.select();
      return;
    }
    const [ready, done] = ["ready", "done"].map((name) => button.querySelector(`[data-copy-icon="${name}"]`));
    ready.hidden = true;
    done.hidden = false;
    setTimeout(() => { ready.hidden = false; done.hidden = true; }, DONE_MS);
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches?.("[data-select-all]")) event.target.select();
  });
}
