// Requests to the server: the API key, and errors with their code. Addresses are relative, so that
// the page works behind any prefix.

import { $ } from "./dom.js";
import { load, save } from "./store.js";
import { t } from "./language.js";

const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504]);

/** An error response. `code` says which error; `transient`: the same request may work later. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterS) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
    this.transient = TRANSIENT.has(status);
  }
}

/** Return a new session id. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Send a request; asks the person for a key when the server needs one.
 * Throws ApiError for an error response, TypeError when the server cannot be reached.
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
    const error = await errorOf(response);
    if (error.status !== 401 || !(await askForKey(key !== ""))) throw error;
  }
}

async function errorOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy's own error page.
  }
  const error = body?.error ?? {};
  const detail = Array.isArray(body?.detail)
    ? body.detail.map((problem) => problem.msg).join("; ")
    : body?.detail;
  const message = detail || error.message || t("http_error", { status: response.status });
  // Only what the server sent; a date (which proxies may send) is not shown.
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  return new ApiError(response.status, body?.code || error.code || "", message, retryAfterS);
}

let pendingKey = null;

/** Ask for a key once for all waiting requests; false when none is given. */
function askForKey(refused) {
  pendingKey ??= new Promise((answer) => {
    const dialog = $("key-dialog");
    $("key").value = "";
    $("key").setAttribute("aria-invalid", String(refused));
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        pendingKey = null;
        const given = dialog.returnValue === "use" ? $("key").value.trim() : "";
        $("key").value = "";
        if (given) save("key", given, "sessionStorage");
        answer(given !== "");
      },
      { once: true },
    );
    dialog.showModal();
  });
  return pendingKey;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("key").value.trim()) $("key-dialog").close("use");
});
$("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
