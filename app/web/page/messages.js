// Draws the turns of a chat. Knows nothing of where their text comes from.

import { $, copyText, element, notify } from "./dom.js";
import { t } from "./language.js";
import { showMarkdown } from "./markdown.js";

// A reader who has scrolled up is not pulled down.
let atEnd = true;
$("messages").addEventListener("scroll", () => {
  const log = $("messages");
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
});
// A phone's keyboard makes the log smaller: its newest text stays in view.
new ResizeObserver(scrollToEnd).observe($("messages"));

function scrollToEnd() {
  if (atEnd) $("messages").scrollTop = $("messages").scrollHeight;
}

/** Show all turns; those already shown keep their nodes. */
export function showMessages(messages) {
  const log = $("messages");
  if (messages.length === 0) {
    log.replaceChildren(element("p", { className: "hint empty", text: t("chat_empty") }));
    return;
  }
  log.querySelector(".empty")?.remove();
  while (log.children.length > messages.length) log.lastChild.remove();
  messages.forEach((message, place) => {
    const node = log.children[place] ?? log.appendChild(frame());
    showMessage(node, message);
  });
  scrollToEnd();
}

function frame() {
  const copy = element("button", { type: "button", className: "button copy-message", text: t("copy") });
  const node = element(
    "article",
    { className: "message" },
    element("h2", { className: "who" }),
    element("div", { className: "pictures" }),
    element("details", { hidden: true }, element("summary"), element("p", { dir: "auto" })),
    element("div", { className: "text prose", dir: "auto" }),
    element("p", { className: "error" }),
    copy,
  );
  copy.addEventListener("click", async () => {
    notify(t((await copyText(node.words)) ? "copied" : "not_copied"));
  });
  return node;
}

function showMessage(node, message) {
  const [who, pictures, thoughts, text, problem, copy] = node.children;
  const { role, state } = message;
  node.dataset.role = role;
  node.dataset.state = state;
  node.words = message.text;
  node.setAttribute("aria-busy", String(state === "running"));
  who.textContent = t(role === "user" ? "you" : "assistant");
  const images = message.images ?? [];
  if (pictures.children.length !== images.length) pictures.replaceChildren(...images.map(picture));
  thoughts.hidden = !message.reasoning;
  thoughts.children[0].textContent = t(state === "running" && !message.text ? "thinking" : "thoughts");
  thoughts.children[1].textContent = message.reasoning ?? "";
  if (role === "user") text.textContent = message.text;
  else showMarkdown(text, message.text);
  problem.textContent = message.error || (message.cut ? t("cut") : "");
  copy.textContent = t("copy");
  copy.hidden = role === "user" || state === "running" || !message.text;
}

export function picture(url, place) {
  return element("img", { src: url, alt: t("attached", { number: place + 1 }) });
}
