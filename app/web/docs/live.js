// Shows the events of a stream as they arrive: Swagger UI itself waits for the whole body.
//
// Must run before Swagger UI starts, since it wraps window.fetch. Knows nothing of what the events
// mean, except how the streams of this server report a failure.
"use strict";

(() => {
  // A chat may have any number of events; only the last ones stay on the page.
  const MAX_LINES = 2000;
  const TICK_MS = 100;

  const part = (id) => document.getElementById(`live-${id}`);
  const panel = document.getElementById("live");
  const list = part("events");
  const originalFetch = window.fetch.bind(window);
  let shown = null;

  window.fetch = async (input, init) => {
    const operation = document.activeElement?.closest(".opblock");
    const response = await originalFetch(input, init);
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream") && response.body) {
      follow(response.clone(), { ...describe(input, init), operation }).catch(console.error);
    }
    return response;
  };

  function describe(input, init) {
    const request = input instanceof Request ? input : null;
    const headers = new Headers(init?.headers ?? request?.headers);
    const keys = {};
    for (const name of ["authorization", "x-api-key"]) {
      if (headers.has(name)) keys[name] = headers.get(name);
    }
    const url = new URL(request?.url ?? input, document.baseURI);
    return { method: init?.method ?? request?.method ?? "GET", path: url.pathname, keys };
  }

  async function follow(response, request) {
    const stream = {
      ...request,
      sessionId: response.headers.get("x-session-id"),
      startedMs: performance.now(),
      count: 0,
      failed: false,
      stopping: false,
    };
    open(stream);
    const timer = setInterval(() => tick(stream), TICK_MS);
    let outcome = "the connection was lost";
    try {
      for await (const event of events(response.body)) show(stream, event);
      outcome = stream.stopping ? "stopped" : stream.failed ? "failed" : "complete";
    } catch (error) {
      console.warn(error);
    } finally {
      clearInterval(timer);
      tick(stream);
      close(stream, outcome);
    }
  }

  // https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    let event = emptyEvent();
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (buffer + value).split("\n");
      buffer = lines.pop();
      for (const line of lines.map((text) => text.replace(/\r$/, ""))) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = emptyEvent();
        } else if (!line.startsWith(":")) {
          const [, name, text] = /^([^:]*):? ?(.*)$/su.exec(line);
          if (name === "data") event.data.push(text);
          else if (name === "id" || name === "event") event[name] = text;
        }
      }
    }
  }

  const emptyEvent = () => ({ id: "", event: "", data: [] });

  function open(stream) {
    shown = stream;
    list.replaceChildren();
    part("request").textContent = `${stream.method} ${stream.path}`;
    part("count").textContent = "0";
    part("stop").disabled = !stream.sessionId;
    setState("running");
    panel.hidden = false;
    document.documentElement.classList.add("live-open");
    tick(stream);
  }

  function show(stream, event) {
    stream.count += 1;
    stream.failed = event.event === "error" || isFailure(event.data);
    if (stream !== shown) return;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const line = document.createElement("div");
    line.append(
      span("id", event.id),
      span("event", event.event || "message"),
      span("data", event.data),
    );
    line.lastElementChild.dir = "auto";
    list.append(line);
    if (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
    part("count").textContent = String(stream.count);
    if (follows) list.scrollTop = list.scrollHeight;
  }

  function span(className, text) {
    const node = document.createElement("span");
    node.className = className;
    node.textContent = text;
    return node;
  }

  function isFailure(data) {
    try {
      const value = JSON.parse(data);
      return value?.error !== undefined || value?.step === "error";
    } catch {
      return false;
    }
  }

  function tick(stream) {
    if (stream !== shown) return;
    const elapsedS = (performance.now() - stream.startedMs) / 1000;
    part("elapsed").textContent = `${elapsedS.toFixed(1)} s`;
  }

  function close(stream, outcome) {
    if (stream !== shown) return;
    part("stop").disabled = true;
    setState(outcome);
  }

  function setState(text) {
    part("state").textContent = text;
    panel.dataset.state = text;
  }

  async function stop() {
    const stream = shown;
    if (!stream?.sessionId) return;
    stream.stopping = true;
    // A disabled button loses the focus.
    list.focus();
    part("stop").disabled = true;
    setState("stopping");
    const path = `v1/cancel/${encodeURIComponent(stream.sessionId)}`;
    const url = new URL(path, document.baseURI);
    let reason = "";
    try {
      const answer = await originalFetch(url, { method: "POST", headers: stream.keys });
      if (!answer.ok) reason = `status ${answer.status}`;
    } catch (error) {
      reason = error.message;
    }
    if (!reason || stream !== shown) return;
    stream.stopping = false;
    part("stop").disabled = false;
    setState(`not stopped: ${reason}`);
  }

  part("stop").addEventListener("click", stop);
  part("close").addEventListener("click", () => {
    panel.hidden = true;
    document.documentElement.classList.remove("live-open");
    // The Execute button that was pressed no longer exists: Swagger UI has drawn another one.
    shown?.operation?.querySelector(".execute")?.focus();
  });
})();
