// The view that turns a link or a text into a summary.

import { newId, request } from "../api.js";
import { asMarkdown, showSource, showSummary } from "../card.js";
import { $, announce, clip, copyText, download, element, fileName, notify, reveal } from "../dom.js";
import { Entries } from "../history.js";
import { number, onLanguage, t } from "../language.js";
import { LONGEST, SHORTEST, readFile, readSource } from "../source.js";
import { load, save } from "../store.js";
import { follow, words } from "../stream.js";

const PATH = "api/v4/scrape-and-summarize/stream-ndjson";
const kept = new Entries("history", { href: (id) => `./?session=${id}`, open });
// What the card shows: {id, ask, state, meta, summary, stage, seconds, error, started, controller}.
let shown = null;
let ticking;

export function start() {
  $("summarize-form").addEventListener("submit", submit);
  $("source").addEventListener("keydown", (event) => {
    const link = readSource($("source").value).url;
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (link || event.ctrlKey || event.metaKey) submit(event);
  });
  $("source").addEventListener("input", () => complain(""));
  $("example").addEventListener("click", () => {
    $("source").value = t("example_text");
    complain("");
    $("summarize").focus();
  });
  $("file").addEventListener("change", () => take($("file").files[0]));
  const form = $("summarize-form");
  form.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    form.classList.add("dropping");
  });
  form.addEventListener("dragleave", () => form.classList.remove("dropping"));
  form.addEventListener("drop", (event) => {
    form.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  const style = load("style", "executive");
  for (const radio of form.elements.style) radio.checked = radio.value === style;
  $("stop").addEventListener("click", stop);
  $("retry").addEventListener("click", () => begin(shown.ask));
  $("copy").addEventListener("click", () => copied(asMarkdown(shown.summary, shown.meta)));
  $("share").addEventListener("click", share);
  $("download-md").addEventListener("click", () => {
    const text = asMarkdown(shown.summary, shown.meta);
    download(fileName(shown.summary.title, "md"), "text/markdown", text);
  });
  $("download-json").addEventListener("click", () => {
    const text = `${JSON.stringify(shown.summary, null, 2)}\n`;
    download(fileName(shown.summary.title, "json"), "application/json", text);
  });
  onLanguage(draw);
  kept.draw();
}

export function show(query, { again = false } = {}) {
  const id = query.get("session");
  if (id) {
    if (shown?.id !== id) open(id);
    return;
  }
  if (again || !shown) {
    leave();
    shown = null;
    draw();
    kept.mark(null);
  } else {
    history.replaceState(null, "", `./?session=${shown.id}`);
  }
  // What another app shares arrives in the address; it is sent by hand, not by whoever linked here.
  const given = query.get("url") || query.get("text") || query.get("title");
  // Phones put the link among the words of the text.
  const link = given?.length < 500 && /https?:\/\/\S+/.exec(given);
  if (given) $("source").value = link ? link[0] : given;
}

function submit(event) {
  event.preventDefault();
  const ask = readSource($("source").value);
  const problem = problemOf(ask);
  complain(problem);
  if (problem) return $("source").focus();
  if (ask.text?.length > LONGEST) {
    ask.text = ask.text.slice(0, LONGEST);
    notify(t("source_cut"));
  }
  ask.style = $("summarize-form").elements.style.value;
  save("style", ask.style);
  begin(ask);
}

function problemOf(ask) {
  if (ask.url) return "";
  if (!ask.text) return t("source_missing");
  const count = ask.text.length;
  return count < SHORTEST ? t("source_short", { count }) : "";
}

function complain(problem) {
  $("source-error").textContent = problem;
  $("source").setAttribute("aria-invalid", String(problem !== ""));
}

async function take(file) {
  if (!file) return;
  $("file").value = "";
  const text = await readFile(file).catch(() => null);
  if (text === null) return complain(t("file_kind"));
  complain("");
  $("source").value = text.slice(0, LONGEST);
  if (text.length > LONGEST) notify(t("source_cut"));
  $("source").focus();
}

/** Ask for a summary; it has its own id from the start, so that it can be found again. */
function begin(ask) {
  const id = newId();
  kept.put({ id, title: ask.url ?? clip(ask.text, 90), state: "running", ask });
  const body = { ...ask, session_id: id, include_status: true };
  const post = (signal) => request(PATH, { method: "POST", body, signal });
  const stage = { stage: ask.url ? "scraping" : "starting" };
  run({ id, ask, stage, start: post });
}

/** Show one that was made before: a finished one from this browser, any other from the server. */
function open(id) {
  history.replaceState(null, "", `./?session=${id}`);
  if (shown?.id === id && shown.state === "running") return;
  const entry = kept.find(id);
  if (entry?.summary) {
    leave();
    const { ask, meta, summary } = entry;
    shown = { id, ask, meta, summary, state: "done", stage: { stage: "saved" } };
    draw();
    kept.mark(id);
    return;
  }
  run({ id, ask: entry?.ask, stage: { stage: "starting" } });
}

async function run({ id, ask, stage, start: post }) {
  leave();
  const controller = new AbortController();
  const own = { id, ask, stage, state: "running", summary: null, meta: null, controller };
  own.started = Date.now();
  shown = own;
  history.replaceState(null, "", `./?session=${id}`);
  draw();
  kept.mark(id);
  ticking = setInterval(() => shown === own && drawStage(), 1000);
  reveal($("card"));
  const onEvent = (event) => hear(own, JSON.parse(event.data));
  const path = `api/sessions/${id}/events`;
  try {
    await follow({ path, start: post, onEvent, signal: controller.signal });
  } catch (error) {
    if (!controller.signal.aborted) end(own, "failed", { error: words(error) });
  }
}

/** Take one event; true when it is the last one. */
function hear(own, data) {
  if (data.type === "metadata") own.meta = data.data;
  else if (data.type === "status") own.stage = data.data;
  else if (data.done && data.error !== undefined) {
    const cancelled = own.stopping || data.error === "the session was cancelled";
    end(own, cancelled ? "stopped" : "failed", { error: cancelled ? "" : data.error });
  } else {
    own.summary = data.state;
    if (data.done) end(own, "done", { seconds: data.latency_ms / 1000 });
    else if (own.stage.stage !== "writing") own.stage = { stage: "writing" };
  }
  if (shown === own) draw();
  return data.done === true;
}

function end(own, state, { error = "", seconds = null }) {
  Object.assign(own, { state, error, seconds, stage: { stage: state } });
  const entry = { id: own.id, state };
  if (state === "done") {
    Object.assign(entry, { title: own.summary.title, summary: own.summary, meta: own.meta });
    entry.note = own.meta?.site_name;
    // A long text is not kept beside its summary.
    if (own.ask?.text?.length > 2000) entry.ask = undefined;
  }
  if (kept.find(own.id) || state === "done") kept.put(entry);
  if (shown !== own) return;
  clearInterval(ticking);
  draw();
  announce(stageText(own));
}

function leave() {
  clearInterval(ticking);
  shown?.controller?.abort();
  notify("");
}

async function stop() {
  const own = shown;
  own.stopping = true;
  try {
    await request(`v1/cancel/${own.id}`, { method: "POST" });
  } catch (error) {
    own.stopping = false;
    notify(words(error), { kind: "bad" });
  }
}

async function copied(text) {
  notify(t((await copyText(text)) ? "copied" : "not_copied"));
}

async function share() {
  const text = asMarkdown(shown.summary, shown.meta);
  if (!navigator.share) return copied(text);
  await navigator.share({ title: shown.summary.title, text }).catch(() => {});
}

function stageText(own) {
  const { stage, position, progress } = own.stage;
  if (stage === "done") {
    const seconds = number(Math.max(0.1, Math.round(own.seconds * 10) / 10));
    return t("stage_done", { seconds });
  }
  if (stage === "queued") return t(position ? "stage_queued" : "stage_waiting", { position });
  const percent = progress > 0 && progress < 1 ? ` ${Math.round(progress * 100)} %` : "";
  return t(`stage_${stage}`) + percent;
}

let said = "";

function drawStage() {
  const own = shown;
  const text = stageText(own);
  const elapsed = Math.round((Date.now() - own.started) / 1000);
  const parts = [element("span", { text })];
  if (own.state === "running") parts.push(element("span", { className: "elapsed", text: `${elapsed} s` }));
  $("stage").replaceChildren(...parts);
  if (own.stage.stage !== said) announce(text);
  said = own.stage.stage;
}

function draw() {
  const own = shown;
  const card = $("card");
  card.hidden = !own;
  $("summarize").disabled = own?.state === "running";
  document.body.classList.toggle("summarizing", own?.state === "running");
  if (!own) return;
  const before = card.dataset.state;
  const focused = document.activeElement === $("stop");
  card.dataset.state = own.state;
  card.setAttribute("aria-busy", String(own.state === "running"));
  drawStage();
  showSource(own.meta);
  if (!own.meta) $("card-engine").textContent = "";
  showSummary(own.summary);
  $("card-error").textContent = own.error ?? "";
  $("retry").hidden = !own.ask || !["failed", "stopped"].includes(own.state);
  if (focused && before === "running" && own.state !== "running") {
    (own.state === "done" ? $("copy") : $("retry")).focus();
  }
}
