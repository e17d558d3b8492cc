// A log that is followed: stays at its end while the reader is there, and keeps only its newest lines.
const MAX_LINES = 3000;
const NEAR_PX = 48;

function follow(view) {
  if (view.dataset.following) return;
  view.dataset.following = "true";
  let atEnd = true;
  view.addEventListener("scroll", () => { atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR_PX; });
  view.scrollTop = view.scrollHeight;
  new MutationObserver(() => {
    while (view.childElementCount > MAX_LINES) view.firstElementChild.remove();
    if (atEnd) view.scrollTop = view.scrollHeight;
  }).observe(view, { childList: true });
}

export function startLogs() {
  const all = () => { for (const view of document.querySelectorAll("[data-log]")) follow(view); };
  all();
  document.addEventListener("htmx:after:settle", all);
}
