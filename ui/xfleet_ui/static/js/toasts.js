// Short messages in the corner: the server's `toast` event, and requests that got no answer.
const SHOWN_MS = 4500;
const MAX_SHOWN = 4;

function show(holder, text, failed) {
  const card = document.createElement("div");
  card.className = failed ? "toast-card toast-danger" : "toast-card";
  const words = document.createElement("div");
  words.className = "toast-text";
  words.textContent = text;
  card.append(words);
  holder.append(card);
  arm(card);
}

function arm(card) {
  if (card.dataset.armed) return;
  card.dataset.armed = "true";
  if (!card.classList.contains("toast-danger")) setTimeout(() => card.remove(), SHOWN_MS);
}

export function startToasts() {
  const holder = document.getElementById("toasts");
  if (!holder) return;
  document.body.addEventListener("toast", (event) => show(holder, event.detail?.message ?? event.detail?.value ?? "", false));
  document.addEventListener("htmx:error", (event) => {
    if (event.detail?.ctx?.response || event.target?.closest?.("[data-live]")) return;
    show(holder, "The panel does not answer. Check the connection and try again.", true);
  });
  new MutationObserver(() => {
    for (const card of holder.children) arm(card);
    while (holder.children.length > MAX_SHOWN) holder.firstElementChild.remove();
  }).observe(holder, { childList: true });
  holder.addEventListener("click", (event) => event.target.closest("[data-toast-close]")?.closest(".toast-card")?.remove());
  // A modal dialog covers everything else; toasts must stay visible above it.
  document.getElementById("dialog")?.addEventListener("close", () => document.body.append(holder));
  document.addEventListener("htmx:after:swap", () => {
    const dialog = document.getElementById("dialog");
    if (dialog?.open && holder.parentElement !== dialog) dialog.append(holder);
  });
}
