// Values stored in the browser between visits. Where the browser refuses storage (a private window,
// a frame of another site), they live in memory until the page is closed.

const PREFIX = "precis.";
const memory = new Map();

/** Return the value stored under a name, or `fallback`. */
export function load(name, fallback, area = "localStorage") {
  try {
    const stored = window[area].getItem(PREFIX + name);
    if (stored !== null) return JSON.parse(stored);
  } catch {
    // Storage is refused, or the value is not ours.
  }
  return memory.has(name) ? memory.get(name) : fallback;
}

/** Store a value; return false when the browser has no space for it. */
export function save(name, value, area = "localStorage") {
  memory.set(name, value);
  try {
    window[area].setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Call `changed` when another tab stores another value under that name. */
export function onChange(name, changed) {
  addEventListener("storage", (event) => {
    if (event.key === PREFIX + name) changed();
  });
}
