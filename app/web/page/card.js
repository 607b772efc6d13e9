// The card that fills in field by field. It shows a summary and knows nothing of the stream.

import { $, clip, element, setText, webAddress } from "./dom.js";
import { day, number, t } from "./language.js";

const LONGEST_TITLE = 300;

/** Show the source of the text and the model that writes. */
export function showSource(meta) {
  const line = $("card-source");
  if (!meta) return line.replaceChildren();
  const parts = [];
  if (meta.input_type === "text") {
    parts.push(t("your_text", { count: number(meta.text_length) }));
  } else {
    const address = webAddress(meta.url);
    const name = clip(meta.site_name || (address ? new URL(address).host : meta.url), 80);
    parts.push(
      address
        ? element("a", { href: address, rel: "noopener noreferrer", target: "_blank", text: name })
        : name,
    );
    if (meta.author) parts.push(clip(meta.author, 80));
    if (meta.date) parts.push(day(meta.date));
  }
  line.replaceChildren(
    ...parts.flatMap((part, place) => {
      const whole = element("bdi", {}, part);
      return place ? [" · ", whole] : [whole];
    }),
  );
  const model = clip(meta.model || meta.engine || "", 80);
  const extracted = meta.engine === "extractive";
  setText($("card-engine"), extracted ? t("extracted") : t("written_by", { model }));
}

/** Show the fields that have arrived. */
export function showSummary(state) {
  setText($("card-title"), clip(state?.title ?? "", LONGEST_TITLE));
  setText($("card-summary"), state?.main_summary ?? "");
  const points = state?.key_points ?? [];
  const list = $("card-points");
  while (list.children.length > points.length) list.lastChild.remove();
  points.forEach((point, place) => {
    const item = list.children[place] ?? list.appendChild(element("li", { dir: "auto" }));
    setText(item, point);
  });
  setText($("card-category"), clip(state?.category ?? "", 60));
  setText($("card-sentiment"), state?.sentiment ? t(state.sentiment) : "");
  $("card-sentiment").dataset.value = state?.sentiment ?? "";
  const minutes = state?.read_time_min;
  setText($("card-reading"), minutes ? t("minutes", { count: number(minutes) }) : "");
}

/** Return the summary as Markdown, with its source. */
export function asMarkdown(state, meta) {
  const facts = [state.category, t(state.sentiment), t("minutes", { count: state.read_time_min })];
  const source = meta?.url ? `\n\n<${meta.url}>` : "";
  const points = state.key_points.map((point) => `- ${point}`).join("\n");
  const title = `# ${state.title}`;
  return `${title}\n\n${state.main_summary}\n\n${points}\n\n*${facts.join(" · ")}*${source}\n`;
}
