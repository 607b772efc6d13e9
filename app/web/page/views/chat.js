// The view that chats. The conversation is stored in the browser; each answer is a stream that
// survives a reload and a lost connection.

import { newId, request } from "../api.js";
import { $, announce, element, notify } from "../dom.js";
import { readImages } from "../images.js";
import { onLanguage, t } from "../language.js";
import { picture, showMessages } from "../messages.js";
import { load, onChange, save } from "../store.js";
import { errorText, follow } from "../stream.js";

const MAX_TOKENS = 1024;
const MOST_IMAGES = 4;
const SAVE_EVERY_MS = 1000;
const TAKE_OVER_MS = 5000;

// Turns: {role, text, state, images?, session?, reasoning?, error?, cut?}.
let messages = [];
let attached = [];
let controller = null;
// The turn that this tab reads from the server; another tab may be reading one too.
let followed = null;
let takeOverTimer;
let drawing = false;
let savedAt = 0;

export function start() {
  messages = load("chat", []);
  $("chat-form").addEventListener("submit", submit);
  $("message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  $("message").addEventListener("input", () => fit($("message")));
  $("message").addEventListener("paste", (event) => {
    if (!$("attach-button").hidden) attach(event.clipboardData.files);
  });
  $("attach").addEventListener("change", async () => {
    await attach($("attach").files);
    $("attach").value = "";
  });
  $("chat-stop").addEventListener("click", stop);
  $("chat-retry").addEventListener("click", retry);
  $("chat-new").addEventListener("click", newChat);
  onLanguage(draw);
  onChange("chat", onOtherTab);
  draw();
  resume();
}

export function show() {
  draw();
  $("messages").scrollTop = $("messages").scrollHeight;
  request("health")
    .then((response) => response.json())
    .then((health) => {
      $("attach-button").hidden = !health.roles?.vision;
    })
    .catch(() => {});
}

/** Show what another tab receives; when it stops receiving, continue here. */
function onOtherTab() {
  if (followed) return;
  messages = load("chat", []);
  draw();
  clearTimeout(takeOverTimer);
  takeOverTimer = setTimeout(() => followed || resume(), TAKE_OVER_MS);
}

function running() {
  return messages.at(-1)?.state === "running";
}

function submit(event) {
  event.preventDefault();
  const text = $("message").value.trim();
  if (running() || (!text && !attached.length)) return;
  messages.push({ role: "user", text, state: "done", images: attached });
  attached = [];
  $("message").value = "";
  fit($("message"));
  answer();
  $("messages").scrollTop = $("messages").scrollHeight;
}

/** Request the next turn under an id made here, so that a reload finds it again. */
function answer() {
  const session = newId();
  const body = { stream: true, session_id: session, max_tokens: MAX_TOKENS, messages: apiMessages() };
  const message = { role: "assistant", text: "", state: "running", session };
  messages.push(message);
  store();
  run(message, (signal) => request("v1/chat/completions", { method: "POST", body, signal }));
}

/** Return the turns as the API wants them: two of the same role in a row become one. */
function apiMessages() {
  const turns = [];
  for (const { role, text, images = [] } of messages) {
    const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
    if (text) parts.push({ type: "text", text });
    if (!parts.length) continue;
    if (turns.at(-1)?.role === role) turns.at(-1).content.push(...parts);
    else turns.push({ role, content: parts });
  }
  for (const turn of turns) {
    if (turn.content.some((part) => part.type !== "text")) continue;
    turn.content = turn.content.map((part) => part.text).join("\n\n");
  }
  return turns;
}

/** Continue an answer that was being written when the page was closed. */
function resume() {
  const message = messages.at(-1);
  if (message?.state !== "running") return;
  Object.assign(message, { text: "", reasoning: "" });
  run(message);
}

async function run(message, post) {
  controller?.abort();
  const own = new AbortController();
  controller = own;
  followed = message;
  draw();
  const path = `api/sessions/${message.session}/events`;
  try {
    await follow({
      path,
      start: post,
      onEvent: (event) => onEvent(message, event.data),
      onOver: () => onEvent(message, "[DONE]"),
      signal: own.signal,
    });
  } catch (error) {
    if (own.signal.aborted) return;
    end(message, "failed", errorText(error));
  }
}

/** Handle one event; return true when it is the last one. */
function onEvent(message, data) {
  if (data === "[DONE]") {
    end(message, message.stopping ? "stopped" : "done");
    return true;
  }
  const chunk = JSON.parse(data);
  if (chunk.error) {
    end(message, "failed", chunk.error.message);
    return true;
  }
  // Cancelled here, in another tab or by anybody else: half an answer is no whole one.
  if (chunk.cancelled) message.stopping = true;
  const choice = chunk.choices[0];
  message.text += choice?.delta.content ?? "";
  message.reasoning = (message.reasoning ?? "") + (choice?.delta.reasoning_content ?? "");
  if (choice?.finish_reason === "length") message.cut = true;
  drawSoon();
  return false;
}

function end(message, state, error = "") {
  if (followed === message) followed = null;
  Object.assign(message, { state, error });
  delete message.stopping;
  store();
  const focused = document.activeElement === $("chat-stop");
  draw();
  if (focused) $("message").focus();
  announce(state === "done" ? t("answer_done") : error || t(state));
}

async function stop() {
  const message = messages.at(-1);
  message.stopping = true;
  try {
    await request(`v1/cancel/${message.session}`, { method: "POST" });
  } catch (error) {
    delete message.stopping;
    notify(errorText(error), { kind: "bad" });
  }
}

function retry() {
  if (messages.at(-1)?.role === "assistant") messages.pop();
  answer();
  $("message").focus();
}

function newChat() {
  if (running()) stop();
  controller?.abort();
  followed = null;
  messages = [];
  attached = [];
  store();
  notify("");
  draw();
  $("message").focus();
}

async function attach(files) {
  if (!files.length) return;
  const { images, all } = await readImages(files, MOST_IMAGES - attached.length);
  attached.push(...images);
  $("chat-error").textContent = all ? "" : t("attach_failed");
  draw();
}

function store() {
  savedAt = Date.now();
  // When the browser is out of space, pictures are dropped first.
  if (!save("chat", messages)) save("chat", messages.map(({ images: _, ...rest }) => rest));
}

function fit(area) {
  area.rows = Math.min(8, Math.max(2, area.value.split("\n").length));
}

/** Draw at most once a frame; save at most once a second. */
function drawSoon() {
  if (Date.now() - savedAt > SAVE_EVERY_MS) store();
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  showMessages(messages);
  const last = messages.at(-1);
  const sent = document.activeElement === $("send");
  $("chat-stop").hidden = !running();
  $("send").hidden = running();
  if (sent && running()) $("chat-stop").focus();
  $("chat-retry").hidden = !["failed", "stopped"].includes(last?.state);
  $("chat-new").hidden = messages.length === 0;
  $("attachments").replaceChildren(
    ...attached.map((url, place) => {
      const remove = element("button", { type: "button", className: "remove", text: "×" });
      remove.setAttribute("aria-label", t("remove", { number: place + 1 }));
      remove.addEventListener("click", () => {
        attached.splice(place, 1);
        draw();
        $("message").focus();
      });
      return element("span", { className: "attachment" }, picture(url, place), remove);
    }),
  );
}
