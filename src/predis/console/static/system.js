// The frame around the page: who and how live at the top, the machinery at the foot.

import { h } from "./dom.js";
import { clock, count, moment, plural, span } from "./format.js";
import { anchor } from "./endpoint.js";
import { pages } from "./place.js";
import { icon, pill, tone } from "./ui.js";

export function header({ data, lost, locked, client }) {
  return h("header", { class: "top" },
    h("h1", null, logo(), "Predis"),
    data && pages(),
    data && h("span", { class: "note" }, "tenant ", h("strong", null, data.tenant)),
    h("span", { class: "spacer" }),
    client.hasKey && !locked && h("button", { type: "button", class: "quiet", onclick: () => client.forget() }, "Forget API key"),
    lost
      ? h("span", { class: "live" }, icon("warn", 14), "not live")
      : data && h("span", { class: "live", title: `Time of the server: ${moment(data.at)}` }, h("span", { class: "pulse" }), "live ", h("span", { class: "clock" }, clock(data.at))));
}

const logo = () => h("svg", { class: "logo", viewBox: "0 0 32 32", width: 24, height: 24, "aria-hidden": "true" },
  h("rect", { width: 32, height: 32, rx: 7 }),
  h("path", { d: "M6 22L12 14L17 18L26 8" }),
  h("circle", { cx: 26, cy: 8, r: 3 }));

export const banner = ({ lost, data }) => lost && h("div", { class: "banner", role: "alert" },
  icon("warn", 18),
  h("div", null, h("strong", null, "Connection lost, retrying"), ` every ${span(lost.pause / 1000)}: ${lost.reason}.`,
    data ? ` What you see is from ${clock(data.at0)}.` : " Is the control process up? Start it with predis up."));

/** A line of links, when there is more than one endpoint to look at. */
export const contents = (endpoints) => endpoints.length > 1 && h("nav", { class: "contents", "aria-label": "Endpoints" },
  endpoints.map((endpoint) => h("a", { key: endpoint.name, href: `#${anchor(endpoint.name)}` },
    icon(tone(endpoint.health), 14), h("span", null, endpoint.name), h("span", { class: "note" }, endpoint.health))));

export function keyForm({ reason, client }) {
  return h("form", {
    class: "key-form",
    onsubmit: (event) => {
      event.preventDefault();
      const key = event.currentTarget.elements.key.value.trim();
      if (key) client.unlock(key);
    },
  },
  h("h2", null, "API key"),
  h("p", null, "This Predis answers only to those who show a key. It stays in this tab and is forgotten when you close it."),
  h("label", { for: "key" }, "Key"),
  h("div", { class: "key-row" },
    h("input", { id: "key", name: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "key-error", ref: (input) => queueMicrotask(() => input.focus()) }),
    h("button", { type: "submit", class: "primary" }, "Open")),
  h("p", { id: "key-error", class: "error", role: "alert" }, reason));
}

export function footer(data) {
  const workers = data.system?.workers ?? [];
  const journal = data.system?.journal ?? {};
  return h("footer", { class: "foot" },
    h("section", { "aria-label": "Workers" },
      h("h2", null, "Workers"),
      workers.length
        ? h("ul", null, workers.map(worker))
        : h("p", { class: "note" }, "No worker has reported. Nothing is served until one runs: predis up")),
    h("section", { "aria-label": "Journal" },
      h("h2", null, "Journal"),
      h("p", null, count(journal.records), " records, ", loss(journal.dropped, "dropped"), ", ", loss(journal.damaged, "damaged"))),
    h("p", { class: "note release" }, `Predis ${data.release ?? ""}`));
}

const worker = (one) => h("li", { key: String(one.id) },
  pill(one.healthy ? "good" : "bad", one.healthy ? "healthy" : "not answering"),
  h("strong", null, one.id), h("span", { class: "note" }, `process ${one.pid}, seen ${span(one.seen_s)} ago`));

const loss = (number, text) => (number > 0
  ? h("span", { class: "raised", title: "Predictions that are missing in monitoring; they were answered all the same" }, icon("warn", 14), count(number), ` ${text}`)
  : h("span", null, count(number), ` ${text}`));

/** The tab's title: what is wrong, where tabs are many. */
export const title = (data, open) => (open.length ? `${plural(open.length, "alert")}, Predis` : `Predis, ${data.tenant}`);
