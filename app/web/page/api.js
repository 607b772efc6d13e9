// Requests to the server: the key, and errors that people can read. Addresses are relative, so the
// page works behind any prefix.

import { $ } from "./dom.js";
import { load, save } from "./store.js";
import { t } from "./language.js";

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A request that was refused. `passing`: the same request may work later. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterS) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
    this.passing = PASSING.has(status);
  }
}

/** Return a new session id. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Ask the server; asks the person for a key when the server wants one.
 * Throws ApiError for a refusal, TypeError when the server cannot be reached.
 */
export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const key = load("key", "", "sessionStorage");
    const sent = { ...headers };
    if (key) sent["X-API-Key"] = key;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.status !== 401 || !(await askForKey(key !== ""))) throw error;
  }
}

async function refusal(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // A proxy's own page.
  }
  const error = told?.error ?? {};
  const detail = Array.isArray(told?.detail)
    ? told.detail.map((problem) => problem.msg).join("; ")
    : told?.detail;
  const message = detail || error.message || t("http_error", { status: response.status });
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  return new ApiError(response.status, told?.code || error.code || "", message, retryAfterS);
}

let asking = null;

/** Ask for a key once, however many requests wait for it; false when there is none. */
function askForKey(refused) {
  asking ??= new Promise((answer) => {
    const dialog = $("key-dialog");
    $("key").value = "";
    $("key").setAttribute("aria-invalid", String(refused));
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const given = dialog.returnValue === "use" ? $("key").value.trim() : "";
        $("key").value = "";
        if (given) save("key", given, "sessionStorage");
        answer(given !== "");
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("key").value.trim()) $("key-dialog").close("use");
});
$("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
