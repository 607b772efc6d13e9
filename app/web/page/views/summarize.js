// The view that turns a link or a text into a summary.

import { newId, request } from "../api.js";
import { asMarkdown, showSource, showSummary } from "../card.js";
import { $, announce, clip, copyText, download, element, fileName, notify, reveal } from "../dom.js";
import { Entries } from "../history.js";
import { number, onLanguage, t } from "../language.js";
import { LONGEST, SHORTEST, readFile, readSource } from "../source.js";
import { load, save } from "../store.js";
import { errorText, follow } from "../stream.js";

const PATH = "api/v4/scrape-and-summarize/stream-ndjson";
const entries = new Entries("history", { href: (id) => `./?session=${id}`, open });
// What the card shows:
// {id, input, state, meta, summary, stage, seconds, error, started, stopping, controller}.
let shown = null;
let ticking;

export function start() {
  $("summarize-form").addEventListener("submit", submit);
  $("source").addEventListener("keydown", (event) => {
    const link = readSource($("source").value).url;
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (link || event.ctrlKey || event.metaKey) submit(event);
  });
  $("source").addEventListener("input", () => showError(""));
  $("example").addEventListener("click", () => {
    $("source").value = t("example_text");
    showError("");
    $("summarize").focus();
  });
  $("file").addEventListener("change", () => openFile($("file").files[0]));
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
    openFile(event.dataTransfer.files[0]);
  });
  const style = load("style", "executive");
  for (const radio of form.elements.style) radio.checked = radio.value === style;
  $("stop").addEventListener("click", stop);
  $("retry").addEventListener("click", () => begin(shown.input));
  $("copy").addEventListener("click", () => copyWithNotice(asMarkdown(shown.summary, shown.meta)));
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
  entries.draw();
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
    entries.mark(null);
  } else {
    history.replaceState(null, "", `./?session=${shown.id}`);
  }
  // What another app shares arrives in the address. It only fills the form: a link must not start
  // a request.
  const given = query.get("url") || query.get("text") || query.get("title");
  // Phones put the link somewhere in the shared text.
  const link = given?.length < 500 && /https?:\/\/\S+/.exec(given);
  if (given) $("source").value = link ? link[0] : given;
}

function submit(event) {
  event.preventDefault();
  const input = readSource($("source").value);
  const problem = problemOf(input);
  showError(problem);
  if (problem) return $("source").focus();
  if (input.text?.length > LONGEST) {
    input.text = input.text.slice(0, LONGEST);
    notify(t("source_cut"));
  }
  input.style = $("summarize-form").elements.style.value;
  save("style", input.style);
  begin(input);
}

function problemOf(input) {
  if (input.url) return "";
  if (!input.text) return t("source_missing");
  const count = input.text.length;
  return count < SHORTEST ? t("source_short", { count }) : "";
}

function showError(problem) {
  $("source-error").textContent = problem;
  $("source").setAttribute("aria-invalid", String(problem !== ""));
}

/** Fill the form with a file's text. */
async function openFile(file) {
  if (!file) return;
  $("file").value = "";
  const text = await readFile(file).catch(() => null);
  if (text === null) return showError(t("file_kind"));
  showError("");
  $("source").value = text.slice(0, LONGEST);
  if (text.length > LONGEST) notify(t("source_cut"));
  $("source").focus();
}

/** Request a summary under an id made here, so that a reload finds it again. */
function begin(input) {
  const id = newId();
  entries.put({ id, title: input.url ?? clip(input.text, 90), state: "running", input });
  const body = { ...input, session_id: id, include_status: true };
  const post = (signal) => request(PATH, { method: "POST", body, signal });
  const stage = { stage: input.url ? "scraping" : "starting" };
  run({ id, input, stage, start: post });
}

/** Show an earlier summary: a finished one from the history, any other from the server. */
function open(id) {
  history.replaceState(null, "", `./?session=${id}`);
  if (shown?.id === id && shown.state === "running") return;
  const entry = entries.find(id);
  if (entry?.summary) {
    leave();
    const { input, meta, summary } = entry;
    shown = { id, input, meta, summary, state: "done", stage: { stage: "saved" } };
    draw();
    entries.mark(id);
    return;
  }
  run({ id, input: entry?.input, stage: { stage: "starting" } });
}

async function run({ id, input, stage, start: post }) {
  leave();
  const controller = new AbortController();
  const own = { id, input, stage, state: "running", summary: null, meta: null, controller };
  own.started = Date.now();
  shown = own;
  history.replaceState(null, "", `./?session=${id}`);
  draw();
  entries.mark(id);
  ticking = setInterval(() => shown === own && drawStage(), 1000);
  reveal($("card"));
  const path = `api/sessions/${id}/events`;
  try {
    await follow({
      path,
      start: post,
      onEvent: (event) => onEvent(own, JSON.parse(event.data)),
      signal: controller.signal,
    });
  } catch (error) {
    if (!controller.signal.aborted) end(own, "failed", { error: errorText(error) });
  }
}

/** Handle one event; return true when it is the last one. */
function onEvent(own, data) {
  if (data.type === "metadata") own.meta = data.data;
  else if (data.type === "status") own.stage = data.data;
  else if (data.done && data.error !== undefined) {
    const stopped = wasStopped(own, data.code);
    end(own, stopped ? "stopped" : "failed", { error: stopped ? "" : data.error });
  } else {
    own.summary = data.state;
    if (data.done) end(own, "done", { seconds: data.latency_ms / 1000 });
    else if (own.stage.stage !== "writing") own.stage = { stage: "writing" };
  }
  if (shown === own) draw();
  return data.done === true;
}

/** Return whether a person has stopped it; other tabs and a reload know it from the history. */
function wasStopped(own, code) {
  return code === "cancelled" || own.stopping || entries.find(own.id)?.stopping === true;
}

function end(own, state, { error = "", seconds = null }) {
  Object.assign(own, { state, error, seconds, stage: { stage: state } });
  const entry = { id: own.id, state };
  if (state === "done") {
    Object.assign(entry, { title: own.summary.title, summary: own.summary, meta: own.meta });
    entry.note = own.meta?.site_name;
    // A long text is not kept beside its summary.
    if (own.input?.text?.length > 2000) entry.input = undefined;
  }
  if (entries.find(own.id) || state === "done") entries.put(entry);
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
  markStopping(own, true);
  try {
    await request(`v1/cancel/${own.id}`, { method: "POST" });
  } catch (error) {
    markStopping(own, false);
    notify(errorText(error), { kind: "bad" });
  }
}

/** Remember that Stop was pressed, for this tab, for a reload, and for other tabs. */
function markStopping(own, stopping) {
  own.stopping = stopping;
  if (entries.find(own.id)) entries.put({ id: own.id, stopping });
}

async function copyWithNotice(text) {
  notify(t((await copyText(text)) ? "copied" : "not_copied"));
}

async function share() {
  const text = asMarkdown(shown.summary, shown.meta);
  if (!navigator.share) return copyWithNotice(text);
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

let announcedStage = "";

function drawStage() {
  const own = shown;
  const text = stageText(own);
  const elapsed = Math.round((Date.now() - own.started) / 1000);
  const parts = [element("span", { text })];
  if (own.state === "running") parts.push(element("span", { className: "elapsed", text: `${elapsed} s` }));
  $("stage").replaceChildren(...parts);
  if (own.stage.stage !== announcedStage) announce(text);
  announcedStage = own.stage.stage;
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
  $("retry").hidden = !own.input || !["failed", "stopped"].includes(own.state);
  if (focused && before === "running" && own.state !== "running") {
    (own.state === "done" ? $("copy") : $("retry")).focus();
  }
}
