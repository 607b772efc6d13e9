// Shows the events of a stream as they come: Swagger UI itself waits for the whole body.
//
// Must run before Swagger UI starts, since it puts itself in front of window.fetch. What the events
// mean is not known here, except how the streams of this server tell a failure.
"use strict";

(() => {
  // A chat may have any number of events; the page keeps the last ones.
  const MAX_LINES = 2000;
  const TICK_MS = 100;

  const own = (id) => document.getElementById(`live-${id}`);
  const panel = document.getElementById("live");
  const list = own("events");
  const unwatched = window.fetch.bind(window);
  let shown = null;

  window.fetch = async (input, init) => {
    const operation = document.activeElement?.closest(".opblock");
    const response = await unwatched(input, init);
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
    let rest = "";
    let event = fresh();
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((text) => text.replace(/\r$/, ""))) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = fresh();
        } else if (!line.startsWith(":")) {
          const [, name, text] = /^([^:]*):? ?(.*)$/su.exec(line);
          if (name === "data") event.data.push(text);
          else if (name === "id" || name === "event") event[name] = text;
        }
      }
    }
  }

  const fresh = () => ({ id: "", event: "", data: [] });

  function open(stream) {
    shown = stream;
    list.replaceChildren();
    own("request").textContent = `${stream.method} ${stream.path}`;
    own("count").textContent = "0";
    own("stop").disabled = !stream.sessionId;
    state("running");
    panel.hidden = false;
    document.documentElement.classList.add("live-open");
    tick(stream);
  }

  function show(stream, event) {
    stream.count += 1;
    stream.failed = event.event === "error" || failure(event.data);
    if (stream !== shown) return;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const line = document.createElement("div");
    line.append(
      piece("span", "id", event.id),
      piece("span", "event", event.event || "message"),
      piece("span", "data", event.data),
    );
    line.lastElementChild.dir = "auto";
    list.append(line);
    if (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
    own("count").textContent = String(stream.count);
    if (follows) list.scrollTop = list.scrollHeight;
  }

  function piece(tag, kind, text) {
    const made = document.createElement(tag);
    made.className = kind;
    made.textContent = text;
    return made;
  }

  function failure(data) {
    try {
      const told = JSON.parse(data);
      return told?.error !== undefined || told?.step === "error";
    } catch {
      return false;
    }
  }

  function tick(stream) {
    if (stream !== shown) return;
    const elapsedS = (performance.now() - stream.startedMs) / 1000;
    own("elapsed").textContent = `${elapsedS.toFixed(1)} s`;
  }

  function close(stream, outcome) {
    if (stream !== shown) return;
    own("stop").disabled = true;
    state(outcome);
  }

  function state(text) {
    own("state").textContent = text;
    panel.dataset.state = text;
  }

  async function stop() {
    const stream = shown;
    if (!stream?.sessionId) return;
    stream.stopping = true;
    // A button that is switched off loses the keyboard.
    list.focus();
    own("stop").disabled = true;
    state("stopping");
    const path = `v1/cancel/${encodeURIComponent(stream.sessionId)}`;
    const url = new URL(path, document.baseURI);
    let reason = "";
    try {
      const answer = await unwatched(url, { method: "POST", headers: stream.keys });
      if (!answer.ok) reason = `status ${answer.status}`;
    } catch (error) {
      reason = error.message;
    }
    if (!reason || stream !== shown) return;
    stream.stopping = false;
    own("stop").disabled = false;
    state(`not stopped: ${reason}`);
  }

  own("stop").addEventListener("click", stop);
  own("close").addEventListener("click", () => {
    panel.hidden = true;
    document.documentElement.classList.remove("live-open");
    // The button that was pressed is gone: Swagger UI draws another one beside Clear.
    shown?.operation?.querySelector(".execute")?.focus();
  });
})();
