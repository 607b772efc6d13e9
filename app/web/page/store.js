// What the browser keeps between visits. A browser that keeps nothing (a private window, a frame of
// another site) still works: then it is kept until the page is closed.

const PREFIX = "precis.";
const memory = new Map();

/** Return what was kept under a name, or `otherwise`. */
export function load(name, otherwise, area = "localStorage") {
  try {
    const kept = window[area].getItem(PREFIX + name);
    if (kept !== null) return JSON.parse(kept);
  } catch {
    // Refused, or not ours.
  }
  return memory.has(name) ? memory.get(name) : otherwise;
}

/** Keep a value; false when the browser has no room for it. */
export function save(name, value, area = "localStorage") {
  memory.set(name, value);
  try {
    window[area].setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Call `changed` when another tab keeps something else under that name. */
export function onChange(name, changed) {
  addEventListener("storage", (event) => {
    if (event.key === PREFIX + name) changed();
  });
}
