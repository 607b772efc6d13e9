// The frame around the views: which one is shown, in which language and colours.
// A new view is one <section id="view-NAME">, one link with data-view, one line in VIEWS.

import { $ } from "./dom.js";
import { onLanguage, startLanguage, t } from "./language.js";
import { load, save } from "./store.js";
import * as chat from "./views/chat.js";
import * as summarize from "./views/summarize.js";
import * as write from "./views/write.js";

// Each has start(), called once, and show(query), called whenever its address is opened.
const VIEWS = { summarize, chat, write };
const BASE = new URL("./", document.baseURI).pathname;

function viewOf(pathname) {
  const name = pathname.slice(BASE.length) || "summarize";
  return name in VIEWS ? name : "summarize";
}

function show({ moveFocus, again = false }) {
  const name = viewOf(location.pathname);
  for (const other of Object.keys(VIEWS)) $(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(name)} · Precis`;
  VIEWS[name].show(new URLSearchParams(location.search), { again });
  if (moveFocus) $(`${name}-heading`).focus();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-view]");
  const plain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button);
  if (!link || !plain) return;
  event.preventDefault();
  const here = viewOf(location.pathname) === link.dataset.view;
  if (!here || location.search) history.pushState(null, "", link.href);
  show({ moveFocus: true, again: here });
});
addEventListener("popstate", () => show({ moveFocus: false }));

function colour(theme) {
  document.documentElement.dataset.theme = theme;
}
$("theme").value = load("theme", "auto");
colour($("theme").value);
$("theme").addEventListener("change", () => {
  save("theme", $("theme").value);
  colour($("theme").value);
});

for (const view of Object.values(VIEWS)) view.start();
onLanguage(() => {
  document.title = `${t(viewOf(location.pathname))} · Precis`;
});
startLanguage($("language"));
show({ moveFocus: false });
