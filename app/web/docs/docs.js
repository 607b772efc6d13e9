// Starts Swagger UI on this page. The panel of live events is in live.js.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

// Controls that Swagger UI draws without a name, and parts that scroll but cannot be focused.
const NAMES = {
  "#servers": "Server",
  ".examples-select-element": "Example",
  ".body-param__text": "Request body",
  ".copy-to-clipboard button": "Copy",
};
const SCROLLED = ".curl, .microlight";

function complete() {
  for (const [selector, name] of Object.entries(NAMES)) {
    for (const found of place.querySelectorAll(selector)) found.setAttribute("aria-label", name);
  }
  for (const found of place.querySelectorAll(SCROLLED)) found.tabIndex = 0;
}

const place = document.getElementById("swagger-ui");
new MutationObserver(complete).observe(place, { childList: true, subtree: true });
SwaggerUIBundle({
  domNode: place,
  url: new URL(place.dataset.openapi, document.baseURI).href,
  deepLinking: true,
  displayRequestDuration: true,
  // The default theme's red is too faint on its dark ground.
  syntaxHighlight: { theme: "obsidian" },
  defaultModelsExpandDepth: 0,
  // Null, or Swagger UI asks another host for a badge.
  validatorUrl: null,
});
