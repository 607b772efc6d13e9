// Reads a stream of the server to its end, across lost connections: every event has an id, and
// Last-Event-ID resumes after the last one received, without a gap and without a duplicate.
// Format: https://html.spec.whatwg.org/multipage/server-sent-events.html

import { ApiError, request } from "./api.js";
import { notify } from "./dom.js";
import { t } from "./language.js";

// The server sends an event or a heartbeat at least every 15 s.
const SILENCE_MS = 40_000;
const LONGEST_PAUSE_MS = 10_000;

// Codes of what the server does not have, or no longer has.
const GONE = new Set(["unknown_session", "unknown_job", "events_gone"]);

/** The server no longer has the session. */
export class Gone extends Error {}

/** The page cannot handle an event: receiving it again would not help. */
export class Defect extends Error {}

/** Return the text of an error for people; the server's own message where it sent one. */
export function errorText(error) {
  if (error instanceof Gone) return t("gone");
  if (error instanceof Defect) return t("defect");
  if (!(error instanceof ApiError)) return t("unreachable");
  const seconds = error.retryAfterS;
  return seconds ? `${error.message} ${t("retry_after", { seconds })}` : error.message;
}

/** Yield {id, name, data} of each event of a response. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = { id: null, name: "", data: [] };
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      buffer += value;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { id: null, name: "", data: [] };
          continue;
        }
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "data") event.data.push(text);
        else if (field === "id") event.id = text;
        else if (field === "event") event.name = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function withinSilence(reading) {
  let timer;
  const silence = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new TypeError("the connection fell silent")), SILENCE_MS);
  });
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}

/**
 * Read a session to its terminal event.
 *
 * `path`: where its events are replayed. `start`: sends the request that starts the session;
 * without it the session exists already. `onEvent` returns true for the event that ends it; `onOver`
 * is called instead where the connection broke after the last event with an id, and no more comes.
 * Throws Gone, ApiError, or AbortError when `signal` says so.
 */
export async function follow({ path, start, onEvent, onOver, signal }) {
  let lastId = null;
  // Whether the server has the session: a request without a response may have reached it.
  let begun = start ? "no" : "yes";
  let failures = 0;
  let lost = false;
  let empty = 0;
  for (;;) {
    let came = false;
    try {
      const response = await open();
      if (lost) notify(t("reconnected"), { kind: "good" });
      lost = false;
      if (response.status === 204) {
        onOver?.();
        return;
      }
      for await (const event of eventsOf(response)) {
        failures = 0;
        lastId = event.id ?? lastId;
        came = true;
        if (handle(event, onEvent)) return;
      }
      // Closed three times without a terminal event or anything new: the end will not come.
      empty = came ? 0 : empty + 1;
      if (empty > 2) throw new Gone(t("gone"));
    } catch (error) {
      signal.throwIfAborted();
      if (isFinal(error, begun)) {
        if (lost) notify("");
        throw error;
      }
      if (begun === "no") begun = "maybe";
    }
    signal.throwIfAborted();
    lost = true;
    notify(t("reconnecting"), { stays: true, kind: "bad" });
    await pause(Math.min(LONGEST_PAUSE_MS, 300 * 2 ** failures++), signal);
  }

  async function open() {
    if (begun === "no") return begin();
    try {
      return await request(path, { headers: lastId ? { "Last-Event-ID": lastId } : {}, signal });
    } catch (error) {
      if (!(error instanceof ApiError) || !GONE.has(error.code)) throw error;
      if (begun === "maybe") return begin();
      throw new Gone(error.message);
    }
  }

  async function begin() {
    const response = await start(signal);
    begun = "yes";
    return response;
  }
}

function isFinal(error, begun) {
  if (error instanceof ApiError) return begun === "no" || !error.transient;
  return error instanceof Gone || error instanceof Defect;
}

function handle(event, onEvent) {
  try {
    return onEvent(event);
  } catch (error) {
    throw new Defect("an event could not be shown", { cause: error });
  }
}

/** Wait, or return early when the browser says that the network is back. */
function pause(ms, signal) {
  return new Promise((go) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      go();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}
