// Says whether the page is live: the state of the event stream, in words and colour.
const GIVE_UP_MS = 4000;

export function startLiveState() {
  let timer = null;
  const show = (state) => {
    clearTimeout(timer);
    for (const element of document.querySelectorAll("[data-live-state]")) {
      element.hidden = state === "idle";
      element.dataset.liveState = state;
    }
    document.body.dataset.live = state;
  };
  const waiting = () => {
    show("waiting");
    timer = setTimeout(() => show("lost"), GIVE_UP_MS);
  };
  // htmx may have connected before this module was loaded, and then its event is gone.
  const stream = document.querySelector("[data-live]");
  if (stream) stream._htmx?.sse?.status ? show("live") : waiting();
  document.addEventListener("htmx:sse:after:connection", () => show("live"));
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail?.status === 401 || event.detail?.status === 403) location.reload();
    show("lost");
  });
  document.addEventListener("htmx:sse:close", () => {
    if (document.querySelector("[data-live]") && !document.hidden) waiting();
  });
}
