// Reads the input of a summary: a link, a text, or the text of a file.

import { webAddress } from "./dom.js";

export const SHORTEST = 50;
export const LONGEST = 50_000;

/** Return {url} or {text} for a pasted text. */
export function readSource(given) {
  const text = given.trim();
  // Browsers show links without their scheme.
  const bare = /^[\w-]+(\.[\w-]+)+(:\d+)?(\/\S*)?$/u.test(text) ? `https://${text}` : text;
  const url = /\s/.test(text) ? null : webAddress(bare);
  return url ? { url: webAddress(text) ? text : bare } : { text };
}

/** Return the text of a file, or null for a binary file. */
export async function readFile(file) {
  const bytes = new Uint8Array(await file.slice(0, 4_000_000).arrayBuffer());
  if (bytes.subarray(0, 4_096).includes(0)) return null;
  const text = new TextDecoder().decode(bytes);
  if (text.startsWith("%PDF-")) return null;
  const markup = /\.html?$/i.test(file.name) || /^\s*<(!doctype html|html)/i.test(text);
  return markup ? withoutMarkup(text) : text;
}

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " " };

/** Return the text of an HTML page; it is only ever shown and sent as text. */
export function withoutMarkup(html) {
  return html
    .replace(/<(script|style|head|nav|footer|template|svg)\b[\s\S]*?<\/\1\s*>/gi, " ")
    .replace(/<!--[\s\S]*?-->/g, " ")
    .replace(/<\/(p|div|h\d|li|tr|section|article)\s*>|<br[^>]*>/gi, "\n")
    .replace(/<[^>]*>/g, "")
    .replace(/&(#x?[\da-f]+|\w+);/gi, (whole, name) => {
      if (name[0] !== "#") return ENTITIES[name.toLowerCase()] ?? whole;
      const code = /^#x/i.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
      return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "";
    })
    .replace(/[ \t]+/g, " ")
    .replace(/\s*\n\s*\n\s*/g, "\n\n")
    .trim();
}
