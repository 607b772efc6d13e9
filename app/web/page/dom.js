// Small helpers for the DOM. Text is only ever set as text, so nothing that a model or a page wrote
// can become markup.

export const $ = (id) => document.getElementById(id);

/** Return a new element; `text` is its text, other properties are set as they are. */
export function element(name, properties = {}, ...children) {
  const { text, ...rest } = properties;
  const node = Object.assign(document.createElement(name), rest);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

/** Set a text only when it changes, so that a selection inside it survives. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Cut what is too long to be shown; whole characters only. */
export function clip(text, limit) {
  const characters = [...String(text)];
  return characters.length > limit ? `${characters.slice(0, limit - 1).join("")}…` : String(text);
}

/** Return an http or https address, else null. */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** Scroll to what has just begun, unless most of it can be seen already. */
export function reveal(node) {
  if (node.getBoundingClientRect().top > innerHeight * 0.6) node.scrollIntoView({ block: "start" });
}

let clearing;

/** Show and announce a notice; it disappears after a while unless `stays`. */
export function notify(text, { stays = false, kind = "" } = {}) {
  const notice = $("notice");
  clearTimeout(clearing);
  notice.textContent = text;
  notice.dataset.kind = kind;
  notice.classList.toggle("shown", text !== "");
  if (text && !stays) clearing = setTimeout(() => notice.classList.remove("shown"), 4000);
}

/** Announce a text to screen readers only. */
export function announce(text) {
  $("announcer").textContent = text;
}

/** Offer a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Return a file name for a title. */
export function fileName(title, ending) {
  const name = title.normalize("NFKD").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${clip(name.toLowerCase() || "precis", 60).replace("…", "")}.${ending}`;
}

/** Copy a text; return whether the browser allowed it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No permission, or no clipboard without HTTPS: the old way still works there.
    const area = element("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
