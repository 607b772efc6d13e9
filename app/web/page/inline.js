// The inline part of Markdown as DOM nodes: emphasis, code, links. Built node by node, so that
// markup in the text stays text.

import { element, webAddress } from "./dom.js";

// A text beyond this is shown without formatting: searching it for ends would take too long.
const LONGEST = 20_000;
const DEEPEST = 6;
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];
const BARE = /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]*_~]/y;
const ANGLE = /<(https?:\/\/[^\s<>]+)>/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** Return the nodes of a text. */
export function inline(text, depth = 0) {
  if (depth > DEEPEST || text.length > LONGEST) return [text];
  const nodes = [];
  // Marks that nothing closes any more: looked for once, not at each of their openings.
  const open = new Set();
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) nodes.push(plain);
    plain = "";
  };
  while (at < text.length) {
    const found = special(text, at, depth, open);
    if (found) {
      flush();
      nodes.push(...found.nodes);
      at = found.end;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  flush();
  return nodes;
}

/** Return the nodes that begin at a place and where they end, or null for a plain character. */
function special(text, at, depth, open) {
  switch (text[at]) {
    case "\\":
      return PUNCTUATION.test(text[at + 1] ?? "") ? { nodes: [text[at + 1]], end: at + 2 } : null;
    case "`":
      return code(text, at, open);
    case "[":
      return link(text, at, at + 1, depth);
    case "!":
      // A picture of another host is not loaded, only linked.
      return text[at + 1] === "[" ? link(text, at, at + 2, depth) : null;
    case "<":
      return address(ANGLE, text, at);
    case "h":
      return WORD.test(text[at - 1] ?? "") ? null : address(BARE, text, at);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, depth, open);
    default:
      return null;
  }
}

function code(text, at, open) {
  const ticks = /`+/y;
  ticks.lastIndex = at;
  const fence = ticks.exec(text)[0];
  let end = open.has(fence) ? -1 : text.indexOf(fence, at + fence.length);
  while (end >= 0 && (text[end + fence.length] === "`" || text[end - 1] === "`")) {
    end = text.indexOf(fence, end + 1);
  }
  if (end < 0) {
    open.add(fence);
    return { nodes: [fence], end: at + fence.length };
  }
  const inside = text.slice(at + fence.length, end).replace(/\n/g, " ");
  const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
  const trimmed = padded ? inside.slice(1, -1) : inside;
  return { nodes: [element("code", { text: trimmed })], end: end + fence.length };
}

function emphasis(text, at, depth, open) {
  for (const [mark, name] of MARKS) {
    if (open.has(mark) || !text.startsWith(mark, at)) continue;
    const from = at + mark.length;
    if (!text[from] || /\s/.test(text[from])) continue;
    // An underscore inside a word is a part of it.
    if (mark[0] === "_" && WORD.test(text[at - 1] ?? "")) continue;
    const end = closing(text, mark, from);
    if (end < 0) {
      open.add(mark);
      continue;
    }
    const nodes = inline(text.slice(from, end), depth + 1);
    return { nodes: [element(name, {}, ...nodes)], end: end + mark.length };
  }
  const run = /[*_~]+/y;
  run.lastIndex = at;
  return { nodes: [run.exec(text)[0]], end: run.lastIndex };
}

function closing(text, mark, from) {
  for (let end = text.indexOf(mark, from + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
    const after = text[end + mark.length] ?? "";
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    if (mark === "*" && (after === "*" || text[end - 1] === "*")) {
      if (after === "*") end += 1;
      continue;
    }
    if (mark[0] === "_" && WORD.test(after)) continue;
    return end;
  }
  return -1;
}

function link(text, at, from, depth) {
  const middle = text.indexOf("](", from);
  const end = middle < 0 ? -1 : closingParenthesis(text, middle + 2);
  if (end < 0 || middle - from > 1000) return null;
  const target = text.slice(middle + 2, end).trim().split(/\s/)[0].replace(/^<|>$/g, "");
  const words = text.slice(from, middle);
  const href = webAddress(target);
  // An address that is none of the web is shown as it was written.
  if (!href) return { nodes: [text.slice(at, end + 1)], end: end + 1 };
  return { nodes: [anchor(href, inline(words || target, depth + 1))], end: end + 1 };
}

function closingParenthesis(text, from) {
  let open = 1;
  for (let at = from; at < text.length && at - from < 2000; at += 1) {
    if (text[at] === "(") open += 1;
    if (text[at] === ")" && --open === 0) return at;
    if (text[at] === "\n") return -1;
  }
  return -1;
}

function address(pattern, text, at) {
  pattern.lastIndex = at;
  const found = pattern.exec(text);
  const written = found?.[1] ?? found?.[0];
  const href = written && webAddress(written);
  return href ? { nodes: [anchor(href, [written])], end: pattern.lastIndex } : null;
}

function anchor(href, nodes) {
  return element("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...nodes);
}
