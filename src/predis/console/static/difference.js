// What is different between two versions, in the order in which it matters: scores first, then what callers send, then the rest.

import { h } from "./dom.js";
import { swatch } from "./charts.js";
import { ABSENT, exact, interval, known, score, sentence, share, short, signed, small } from "./format.js";
import { empty, panel, pill, words } from "./ui.js";

const SHOWN_FEATURES = 10;
const LARGE_PSI = 0.2; // the usual threshold of a shift that matters

export function differencePanel(answer, { before, after }) {
  const title = h("span", { class: "note" }, swatch(before), `v${before} to `, swatch(after), `v${after}`);
  return panel("Difference", { name: "difference-panel", note: title },
    answer?.error ? empty(h("p", null, sentence(answer.error))) : answer?.value ? body(answer.value) : empty(h("p", null, "Comparing.")));
}

function body(found) {
  const parts = [
    [found.same_holdout ? "Metrics on the same holdout" : "Metrics, each on a holdout of its own", metrics(found.metrics)],
    ["Inputs", fields(found.inputs, found.order)],
    ["Outputs", fields(found.outputs)],
    ["Model", model(found)],
    ["Reference profile", reference(found.reference)],
    ["Where it comes from", pairs(found.provenance)],
  ];
  const alike = parts.filter(([, content]) => !content).map(([title]) => title.toLowerCase());
  return [
    found.same && h("p", { class: "outcome idle" }, "The files are the same, byte for byte."),
    h("div", { class: "difference-parts" }, parts.filter(([, content]) => content).map(([title, content]) =>
      h("section", { key: title, "aria-label": title }, h("h4", null, title), content))),
    alike.length > 0 && h("p", { class: "note" }, `No difference: ${alike.join(", ")}.`),
  ];
}

const rows = (list, heads) => (list.length ? h("table", { class: "plain small" },
  h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col", class: NUMBERS.has(head) ? "number" : null }, head)))),
  h("tbody", null, list)) : null);

const NUMBERS = new Set(["Change", "PSI"]);
const BETTER = new Map([[true, ["good", "better"]], [false, ["bad", "worse"]]]);

// Ends of intervals stand in the titles of what they are about.
const isEnd = (name) => /_(low|high)$/.test(name);
const TINY = 0.0005; // shown as 0.000

function metrics(found) {
  const list = Object.entries(found).filter(([name]) => !isEnd(name)).map(([name, { before, after, difference, better }]) => h("tr", { key: name },
    h("th", { scope: "row" }, words(name)),
    h("td", { title: spread(found, name, "before") }, figureOf(before)),
    h("td", { title: spread(found, name, "after") }, figureOf(after)),
    h("td", { class: "number", title: exact(difference) }, known(difference) && Math.abs(difference) >= TINY ? (Number.isInteger(difference) ? short(difference) : signed(difference)) : ""),
    h("td", null, BETTER.has(better) && Math.abs(difference) >= TINY && pill(...BETTER.get(better)))));
  return rows(list, ["Metric", "Before", "After", "Change", ""]);
}

const spread = (found, name, side) => [exact(found[name][side]), interval(found[`${name}_low`]?.[side], found[`${name}_high`]?.[side])].filter(Boolean).join(", interval ");

const figureOf = (value) => (Number.isInteger(value) && Math.abs(value) > 1 ? short(value) : score(value));

function fields({ added, removed, changed }, order) {
  const list = [
    ...added.map((field) => line(pill("good", "added"), field.name, field.datatype)),
    ...removed.map((field) => line(pill("bad", "removed"), field.name, field.datatype)),
    ...Object.entries(changed).map(([name, what]) => line(pill("warn", "changed"), name, Object.entries(what).map(said).join("; "))),
    order && line(pill("warn", "order"), "", `now ${order.after.join(", ")}`),
  ].filter(Boolean);
  return list.length ? h("ul", { class: "rows" }, list) : null;
}

const line = (mark, name, text) => h("li", { key: `${name} ${text}` }, mark, name && h("strong", null, name), h("span", { class: "note" }, text));

function said([what, change]) {
  if (what !== "levels") return `${words(what)} ${plain(change.before)} to ${plain(change.after)}`;
  const parts = [["added", change.added], ["removed", change.removed]].filter(([, list]) => list.length).map(([word, list]) => `${word} ${list.join(", ")}`);
  return `levels ${[...parts, change.moved && "in another order"].filter(Boolean).join(", ")}`;
}

function model({ format, score: meaning, size_bytes: size, files }) {
  const change = size.after - size.before;
  const list = [
    format && ["Format", format.before, format.after],
    meaning && ["Score", meaning.before, meaning.after],
    change !== 0 && ["Size", `${short(size.before)}B`, `${short(size.after)}B`],
    ...["added", "removed", "changed"].filter((what) => files[what].length).map((what) => [`Files ${what}`, "", files[what].join(", ")]),
  ].filter(Boolean);
  return rows(list.map(([name, before, after]) => h("tr", { key: name }, h("th", { scope: "row" }, name), h("td", null, before), h("td", { class: "wrapped" }, after))), ["", "Before", "After"]);
}

function reference(found) {
  if (!found) return h("p", { class: "note" }, "Not both have one.");
  const features = Object.entries(found.features);
  const psi = (name, shift) => h("tr", { key: name }, h("th", { scope: "row" }, name),
    h("td", { class: "number", title: exact(shift.psi) }, known(shift.psi) ? `${shift.exact ? "" : "about "}${small(shift.psi)}` : ABSENT),
    h("td", null, known(shift.psi) && (shift.psi > LARGE_PSI ? pill("warn", "shifted") : pill("good", "alike"))));
  return [
    h("p", { class: "note" }, `${short(found.rows.before)} to ${short(found.rows.after)} rows`,
      known(found.label_rate.before) && known(found.label_rate.after) && `, label rate ${share(found.label_rate.before)} to ${share(found.label_rate.after)}`, "."),
    rows([psi("score of the model", found.score), ...features.slice(0, SHOWN_FEATURES).map(([name, shift]) => psi(name, shift))], ["Feature", "PSI", ""]),
    features.length > SHOWN_FEATURES && h("p", { class: "note" }, `and ${features.length - SHOWN_FEATURES} more, all of them smaller.`),
  ];
}

function pairs(found) {
  const list = Object.entries(found).map(([name, { before, after }]) => h("tr", { key: name },
    h("th", { scope: "row" }, words(name.replace("parameters.", ""))),
    h("td", { title: plain(before) }, brief(before)), h("td", { title: plain(after) }, brief(after))));
  return rows(list, ["", "Before", "After"]);
}

const plain = (value) => (value === null || value === undefined ? ABSENT : typeof value === "object" ? JSON.stringify(value) : String(value));

/** A digest by its beginning. */
const brief = (value) => (/^[0-9a-f]{40,}$/.test(plain(value)) ? h("code", null, plain(value).slice(0, 12)) : plain(value));
