// The language of the page, and its texts in it.

import { load, save } from "./store.js";
import { TEXTS } from "./texts.js";

let language = "en";
const listeners = [];

/** Return the text of that name with {values} filled in; some names stand for a list. */
export function t(name, values = {}) {
  const words = TEXTS[language][name] ?? TEXTS.en[name] ?? name;
  if (Array.isArray(words)) return words;
  return words.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

/** Return a number formatted for the language. */
export function number(value) {
  return new Intl.NumberFormat(language).format(value);
}

/** Return a date formatted for the language, or the text itself when it is no date. */
export function day(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  return new Intl.DateTimeFormat(language, { dateStyle: "medium" }).format(date);
}

/** Call `changed` whenever the language changes. */
export function onLanguage(changed) {
  listeners.push(changed);
}

function translate() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]"))
    node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of document.querySelectorAll("[data-t-placeholder]"))
    node.placeholder = t(node.dataset.tPlaceholder);
  for (const changed of listeners) changed();
}

/** Use the language chosen before, else the browser's. */
export function startLanguage(select) {
  const wanted = [load("language", ""), ...(navigator.languages ?? [navigator.language])];
  // "in" is what older systems call Indonesian.
  const known = wanted.map((tag) => tag.toLowerCase().split("-")[0].replace(/^in$/, "id"));
  language = known.find((tag) => tag in TEXTS) ?? "en";
  select.value = language;
  select.addEventListener("change", () => {
    language = select.value;
    save("language", language);
    translate();
  });
  translate();
}
