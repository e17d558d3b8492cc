// Shows what only works with JavaScript; without it those controls stay hidden.
export function reveal(root) {
  for (const element of root.querySelectorAll("[data-needs-script][hidden]")) element.hidden = false;
}
