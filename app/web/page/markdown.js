// Markdown as DOM nodes, while it is still being written: blocks that are complete stay as they are.
// The part of CommonMark and GitHub's tables that language models write; raw HTML stays text.
// Format: https://spec.commonmark.org

import { element } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const DEEPEST = 5;

/** Show a text in an element; called again with a longer text, it changes only what is new. */
export function showMarkdown(container, source) {
  const texts = blocksOf(source.replace(/\r\n?/g, "\n").split("\n"));
  const shown = container.shownBlocks ?? [];
  let same = 0;
  while (same < texts.length && same < shown.length && texts[same] === shown[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...texts.slice(same).map((text) => build(text.split("\n"), 0)));
  container.shownBlocks = texts;
}

/** Cut lines into the texts of their blocks. */
function blocksOf(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const end = endOf(lines, at);
    blocks.push(lines.slice(at, end).join("\n"));
    at = end;
  }
  return blocks;
}

function endOf(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return endOfFence(lines, at, fence[1]);
  if (HEADING.test(line) || RULE.test(line)) return at + 1;
  if (QUOTE.test(line)) return endWhere(lines, at, (next) => !next.trim());
  if (ITEM.test(line)) return endOfList(lines, at);
  if (isTable(lines, at)) return endWhere(lines, at, (next) => !next.includes("|"));
  return endWhere(lines, at, (next) => !next.trim() || startsBlock(next));
}

function startsBlock(line) {
  return (
    FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line)
  );
}

function endWhere(lines, at, ends) {
  let end = at + 1;
  while (end < lines.length && !ends(lines[end])) end += 1;
  return end;
}

function endOfFence(lines, at, fence) {
  for (let end = at + 1; end < lines.length; end += 1) {
    const text = lines[end].trim();
    if (text.startsWith(fence) && !text.replaceAll(fence[0], "")) return end + 1;
  }
  return lines.length;
}

function endOfList(lines, at) {
  const [, indent, first] = ITEM.exec(lines[at]);
  // A number after bullets, or the other way round, begins another list.
  const another = (line) => {
    const item = ITEM.exec(line);
    return item && item[1].length <= indent.length + 1 && /\d/.test(item[2]) !== /\d/.test(first);
  };
  let end = at + 1;
  while (end < lines.length) {
    const next = lines[end];
    if (another(next)) return end;
    if (!next.trim()) {
      const following = lines[end + 1] ?? "";
      if (another(following)) return end;
      if (!ITEM.test(following) && !/^ {2,}\S/.test(following)) return end;
    } else if (!ITEM.test(next) && !/^ /.test(next) && startsBlock(next)) {
      return end;
    }
    end += 1;
  }
  return end;
}

function isTable(lines, at) {
  const rule = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || /[^|:\-\s]/.test(rule)) return false;
  return cellsOf(rule).every((cell) => /^:?-+:?$/.test(cell));
}

function cellsOf(line) {
  let row = line.trim();
  if (row.startsWith("|")) row = row.slice(1);
  if (row.endsWith("|")) row = row.slice(0, -1);
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim());
}

/** Return the one node of a block. */
function build(lines, depth) {
  const line = lines[0];
  const heading = HEADING.exec(line);
  if (FENCE.test(line)) return codeBlock(lines);
  // A page has one h1 already.
  if (heading) {
    const text = withoutClosing(line.slice(heading[0].length).trim());
    return element(`h${Math.min(6, heading[1].length + 1)}`, {}, ...inline(text));
  }
  if (RULE.test(line)) return element("hr");
  if (QUOTE.test(line)) {
    return element("blockquote", {}, ...inside(lines.map((text) => text.replace(QUOTE, "")), depth));
  }
  if (ITEM.test(line)) return list(lines, depth);
  if (isTable(lines, 0)) return table(lines);
  return element("p", {}, ...inline(lines.join("\n").trim()));
}

/** Return a heading's text without the signs that may close it. */
function withoutClosing(text) {
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

function inside(lines, depth) {
  if (depth >= DEEPEST) return [lines.join("\n")];
  return blocksOf(lines).map((text) => build(text.split("\n"), depth + 1));
}

function codeBlock(lines) {
  const [, fence, name] = FENCE.exec(lines[0]);
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence);
  const text = lines.slice(1, closed ? -1 : undefined).join("\n");
  const block = element("pre", { tabIndex: 0 }, element("code", { text, dir: "ltr" }));
  if (name) block.dataset.language = name;
  return block;
}

function list(lines, depth) {
  const [, indent, first] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first);
  const made = element(ordered ? "ol" : "ul");
  if (ordered) made.start = parseInt(first, 10);
  let item = null;
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) {
      item = [line.slice(found[0].length)];
      made.append(element("li", { lines: item }));
    } else {
      item.push(line.replace(/^ {1,4}/, ""));
    }
  }
  for (const node of made.children) {
    const nodes = inside(node.lines, depth);
    // A single paragraph stands in its item without one.
    node.append(...nodes.flatMap((each, place) => (place === 0 && each.nodeName === "P" ? [...each.childNodes] : [each])));
    delete node.lines;
  }
  return made;
}

function table(lines) {
  const row = (line, name) =>
    element("tr", {}, ...cellsOf(line).map((cell) => element(name, {}, ...inline(cell))));
  const head = element("thead", {}, row(lines[0], "th"));
  const body = element("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  return element("div", { className: "table", tabIndex: 0 }, element("table", {}, head, body));
}
