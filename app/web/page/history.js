// The list of what this browser has made: shown at the side, reopened, deleted.

import { $, clip, element } from "./dom.js";
import { day, onLanguage, t } from "./language.js";
import { load, onChange, save } from "./store.js";

const MOST = 50;

export class Entries {
  /**
   * `name`: its key in the store and the id of its list element; `href(id)`: the address of an
   * entry; `open(id)`: shows an entry.
   */
  constructor(name, { href, open }) {
    this.name = name;
    this.href = href;
    this.open = open;
    this.current = null;
    $(`${name}-clear`).addEventListener("click", () => this.#store([]));
    onLanguage(() => this.draw());
    onChange(name, () => this.draw());
  }

  all() {
    const stored = load(this.name, []);
    return Array.isArray(stored) ? stored : [];
  }

  find(id) {
    return this.all().find((entry) => entry.id === id) ?? null;
  }

  /** Add an entry or update it: {id, at, title, state, …}. */
  put(entry) {
    const all = this.all();
    const place = all.findIndex((other) => other.id === entry.id);
    if (place < 0) all.unshift({ at: Date.now(), ...entry });
    else all[place] = { ...all[place], ...entry };
    this.#store(all.slice(0, MOST));
  }

  delete(id) {
    this.#store(this.all().filter((entry) => entry.id !== id));
  }

  /** Mark the entry that is shown. */
  mark(id) {
    this.current = id;
    this.draw();
  }

  draw() {
    const all = this.all();
    $(`${this.name}-empty`).hidden = all.length > 0;
    $(`${this.name}-clear`).hidden = all.length === 0;
    $(this.name).replaceChildren(...all.map((entry) => this.#row(entry)));
  }

  #store(entries) {
    // When the browser is out of space, the oldest are dropped first.
    while (!save(this.name, entries) && entries.length > 1) entries.pop();
    this.draw();
  }

  #row(entry) {
    const title = clip(entry.title || "…", 90);
    const link = element("a", { href: this.href(entry.id), dir: "auto", text: title });
    if (entry.id === this.current) link.setAttribute("aria-current", "true");
    link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
      event.preventDefault();
      this.open(entry.id);
    });
    const note = [entry.state === "done" ? "" : t(entry.state), day(entry.at), entry.note];
    const remove = element("button", { type: "button", className: "remove", text: "×" });
    remove.setAttribute("aria-label", t("delete", { title }));
    remove.addEventListener("click", () => {
      const place = this.all().findIndex((other) => other.id === entry.id);
      this.delete(entry.id);
      // The focus stays in the list, for those who use a keyboard.
      const links = $(this.name).querySelectorAll("a");
      links[Math.min(place, links.length - 1)]?.focus();
    });
    const small = element("small", { text: note.filter(Boolean).join(" · "), dir: "auto" });
    return element("li", {}, element("div", {}, link, small), remove);
  }
}
