// The view that writes an article: outline, sections, style.

import { request } from "../api.js";
import { $, announce, clip, copyText, download, element, fileName, notify, reveal, setText } from "../dom.js";
import { Entries } from "../history.js";
import { onLanguage, t } from "../language.js";
import { showMarkdown } from "../markdown.js";
import { errorText, follow } from "../stream.js";

const STEPS = ["outline", "content", "style"];
const entries = new Entries("jobs", { href: (id) => `write?job=${id}`, open });
// What is shown: {id, topic, state, step, progress, sections, drafts, article, error, controller}.
let shown = null;
let drawing = false;

export function start() {
  $("write-form").addEventListener("submit", submit);
  $("topic").addEventListener("input", () => showError(""));
  $("cancel").addEventListener("click", () => cancel(shown));
  $("job-retry").addEventListener("click", () => begin(shown.topic));
  $("article-copy").addEventListener("click", async () => {
    notify(t((await copyText(shown.article)) ? "copied" : "not_copied"));
  });
  $("article-md").addEventListener("click", () => {
    download(fileName(shown.topic, "md"), "text/markdown", `${shown.article}\n`);
  });
  onLanguage(() => {
    $("examples").replaceChildren(...t("examples").map(example));
    draw();
  });
  entries.draw();
}

export function show(query, { again = false } = {}) {
  refreshOthers();
  const id = query.get("job");
  if (id) {
    if (shown?.id !== id) open(id);
  } else if (again || !shown) {
    leave();
    shown = null;
    draw();
    entries.mark(null);
  } else if (shown.id) {
    history.replaceState(null, "", `write?job=${encodeURIComponent(shown.id)}`);
  }
}

/** Update the running jobs of the list that this view does not follow. */
function refreshOthers() {
  for (const { id, state } of entries.all()) {
    if (state === "running" && id !== shown?.id) refresh(id).catch(() => {});
  }
}

async function refresh(id) {
  const response = await request(`jobs/${encodeURIComponent(id)}`);
  const { status, final_article: article, sections } = await response.json();
  if (status === "complete") entries.put({ id, state: "done", article, sections });
  else if (status !== "running") entries.put({ id, state: status === "cancelled" ? "stopped" : "failed" });
}

function example(topic) {
  const button = element("button", { type: "button", className: "button example", text: topic });
  button.addEventListener("click", () => {
    $("topic").value = topic;
    showError("");
    $("topic").focus();
  });
  return button;
}

function showError(problem) {
  $("topic-error").textContent = problem;
  $("topic").setAttribute("aria-invalid", String(problem !== ""));
}

function submit(event) {
  event.preventDefault();
  const topic = $("topic").value.trim();
  showError(topic ? "" : t("topic_missing"));
  if (topic) begin(topic);
  else $("topic").focus();
}

/** Start a job; a refusal is shown where the article would be. */
async function begin(topic) {
  leave();
  const own = blank({ topic });
  shown = own;
  draw();
  reveal($("job"));
  try {
    const response = await request("start-job", { method: "POST", body: { topic } });
    own.id = (await response.json()).job_id;
  } catch (error) {
    // Without an id there is nothing to resume; only a new try by hand helps.
    return end(own, "failed", errorText(error));
  }
  entries.put({ id: own.id, title: topic, state: "running" });
  if (own.cancelLater) cancel(own);
  if (shown === own) run(own);
}

/** Show an earlier job: a finished one from the history, any other from the server. */
function open(id) {
  history.replaceState(null, "", `write?job=${encodeURIComponent(id)}`);
  const entry = entries.find(id);
  leave();
  shown = blank({ id, topic: entry?.title ?? "" });
  if (entry?.article) {
    const { article, sections } = entry;
    Object.assign(shown, { article, sections, state: "done", step: "complete", progress: 100 });
    shown.drafts = sections.map(() => "");
    draw();
    entries.mark(id);
  } else {
    run(shown);
  }
}

function blank(known) {
  const empty = { sections: [], drafts: [], article: "", error: "" };
  return { ...empty, state: "running", step: "connected", progress: 0, ...known };
}

async function run(own) {
  own.controller = new AbortController();
  const { signal } = own.controller;
  history.replaceState(null, "", `write?job=${encodeURIComponent(own.id)}`);
  draw();
  entries.mark(own.id);
  const path = `progress/${encodeURIComponent(own.id)}`;
  try {
    await follow({ path, onEvent: (event) => onEvent(own, JSON.parse(event.data)), signal });
  } catch (error) {
    if (!signal.aborted) end(own, "failed", errorText(error));
  }
}

/** Handle one event; return true when it is the last one. */
function onEvent(own, { step, progress, data }) {
  own.progress = progress;
  if (step === "error") {
    const cancelled = data.code === "cancelled";
    end(own, cancelled ? "stopped" : "failed", cancelled ? "" : data.error);
    return true;
  }
  if (step !== own.step && shown === own) announce(stepText(step));
  own.step = step;
  if (step === "connected") own.topic = data.topic ?? own.topic;
  if (step === "outline") Object.assign(own, { sections: data.sections, drafts: data.sections.map(() => null) });
  if (step === "content") placeDraft(own, data);
  if (step === "style") own.article += data.text ?? "";
  if (step === "complete") {
    own.article = data.final_article;
    end(own, "done");
    return true;
  }
  if (shown === own) drawSoon();
  return false;
}

/** Put a section under its title; of equal titles, under the first that is still empty. */
function placeDraft(own, { section, text }) {
  const place = own.sections.findIndex((title, at) => title === section && own.drafts[at] === null);
  if (place >= 0) own.drafts[place] = text ?? "";
}

function stepText(step) {
  return step === "connected" ? t("job_started") : step === "complete" ? "" : t(`step_${step}`);
}

function end(own, state, error = "") {
  Object.assign(own, { state, error });
  const entry = { id: own.id, title: own.topic, state };
  if (state === "done") Object.assign(entry, { article: own.article, sections: own.sections });
  if (entries.find(own.id) || state === "done") entries.put(entry);
  if (shown !== own) return;
  const focused = document.activeElement === $("cancel");
  draw();
  if (focused) $(state === "done" ? "article-copy" : "job-retry").focus();
  announce(state === "done" ? t("job_done") : error || t(state));
}

function leave() {
  shown?.controller?.abort();
  notify("");
}

async function cancel(own) {
  // Before the server has answered with an id there is nothing to cancel.
  own.cancelLater = !own.id;
  if (own.cancelLater) return;
  try {
    await request(`jobs/${encodeURIComponent(own.id)}`, { method: "DELETE" });
  } catch (error) {
    notify(errorText(error), { kind: "bad" });
  }
}

/** Draw at most once a frame. */
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const own = shown;
  $("job").hidden = !own;
  document.body.classList.toggle("writing", own?.state === "running");
  if (!own) return;
  $("job").dataset.state = own.state;
  $("job").setAttribute("aria-busy", String(own.state === "running"));
  setText($("job-topic"), clip(own.topic, 200));
  const now = STEPS.indexOf(own.step);
  STEPS.forEach((step, place) => {
    const node = $("steps").children[place];
    node.dataset.state = stateOf(own, place, now);
    node.toggleAttribute("data-broken", own.state === "failed" && place === activeStep(own, now));
    setText(node.firstElementChild, node.dataset.state === "done" ? "✓" : String(place + 1));
    if (node.dataset.state === "active") node.setAttribute("aria-current", "step");
    else node.removeAttribute("aria-current");
  });
  $("progress").value = own.progress;
  $("sections").replaceChildren(
    ...own.sections.map((title, place) => {
      const item = element("li", { text: clip(title, 120), dir: "auto" });
      item.dataset.state = own.drafts[place] === null ? "waiting" : "done";
      return item;
    }),
  );
  showMarkdown($("article"), own.article || draftOf(own));
  $("article").dataset.kind = own.article ? "article" : "draft";
  setText($("job-error"), own.error);
  $("job-retry").hidden = !["failed", "stopped"].includes(own.state) || !own.topic;
}

/** Return the running step: the outline has an event at its end, the others while they run. */
function activeStep(own, now) {
  if (own.step === "connected") return 0;
  if (own.step === "outline") return 1;
  const finished = own.step === "content" && own.drafts.every((draft) => draft !== null);
  return finished ? 2 : now;
}

function stateOf(own, place, now) {
  if (own.step === "complete") return "done";
  const at = activeStep(own, now);
  if (place < at) return "done";
  return place === at && own.state === "running" ? "active" : "waiting";
}

/** Return the finished sections up to the first gap, so that a late one moves none below it. */
function draftOf(own) {
  const first = own.drafts.indexOf(null);
  const ready = own.sections.slice(0, first < 0 ? undefined : first);
  return ready.map((title, place) => `## ${title}\n\n${own.drafts[place]}`).join("\n\n");
}
