// Which inputs, and whether the scores, no longer look like the training data; the worst first.

import { h } from "./dom.js";
import { driftBar, sparkline } from "./charts.js";
import { exact, known, parse, period, plural, short, small } from "./format.js";
import { choice, empty, panel, pill, words } from "./ui.js";

const SHOWN = 12;

export function driftPanel(endpoint, view) {
  const versions = (endpoint.versions ?? []).filter((version) => version.drift);
  const key = `drift ${endpoint.name}`;
  const wanted = versions.find((version) => version.version === view.get(key));
  const version = wanted ?? versions.find(({ role }) => role === "champion") ?? versions[0];
  if (!version) return panel("Drift", { name: "drift" }, empty(h("p", null, nothing(endpoint))));
  const tools = versions.length > 1 && choice(view, key, "Version shown", versions.map((one) => [one.version, `v${one.version}`]), version.version);
  const features = [...(version.drift.features ?? [])].sort(worstFirst);
  const inputs = features.filter((feature) => feature.kind !== "score");
  const drifted = inputs.filter((feature) => feature.drifted).length;
  const score = features.find((feature) => feature.kind === "score");
  const all = view.get(`all ${key}`);
  const { window, rows, first_event: first, last_event: last } = version.drift;
  return panel("Drift", { name: "drift", tools },
    h("p", { class: "drift-summary" },
      h("strong", null, drifted ? `${drifted} of ${plural(inputs.length, "feature")} drifted` : `No drift in ${plural(inputs.length, "feature")}`,
        score && `, score ${score.drifted ? "drifted" : "stable"}`),
      h("span", { class: "note" }, ` v${version.version}, window ${window}, ${short(rows)} rows, ${period(parse(first), parse(last))}`)),
    h("div", { class: "drift-lists" }, halves(all ? features : features.slice(0, SHOWN)).map((half) =>
      h("div", { class: "drift-list", role: "table", "aria-label": "Drift per feature" }, head(), half.map(row)))),
    features.length > SHOWN && h("button", { type: "button", onclick: () => view.set(`all ${key}`, !all) },
      all ? `Show the first ${SHOWN}` : `Show all ${features.length}`));
}

function nothing(endpoint) {
  if (!(endpoint.traffic?.requests > 0)) return "No prediction yet, so nothing to compare.";
  return "No drift window is full yet. Inputs are compared with the reference profile of the version, window by window (setting window_rows).";
}

/** Two columns where the page is wide; one after the other where it is not. */
function halves(features) {
  const middle = Math.ceil(features.length / 2);
  return features.length > 1 ? [features.slice(0, middle), features.slice(middle)] : [features];
}

const ratio = (feature) => (known(feature.psi) && feature.threshold > 0 ? feature.psi / feature.threshold : -1);
const grade = (feature) => (feature.drifted ? 2 : 0) + (feature.persistent ? 1 : 0);
const worstFirst = (a, b) => grade(b) - grade(a) || ratio(b) - ratio(a) || a.feature.localeCompare(b.feature);

const head = () => h("div", { class: "drift-row head", role: "row" },
  ["Feature", "PSI against threshold, log", "PSI", "History", "Verdict"].map((text) => h("span", { role: "columnheader" }, text)));

function row(feature) {
  return h("div", { class: "drift-row", role: "row", key: feature.feature },
    h("span", { role: "rowheader", class: "feature", title: `${feature.feature}, ${words(feature.kind)}` },
      feature.kind === "score" ? h("em", null, "model's score") : feature.feature),
    h("span", { role: "cell", class: "drift-cell" }, driftBar(feature)),
    h("span", { role: "cell", class: "number", title: `PSI ${exact(feature.psi)}, threshold ${exact(feature.threshold)}` }, small(feature.psi)),
    h("span", { role: "cell", class: "history" }, sparkline({ history: feature.history ?? [], threshold: feature.threshold })),
    h("span", { role: "cell" }, verdict(feature)));
}

function verdict(feature) {
  if (!known(feature.psi)) return pill("idle", "not judged", { title: "Too few values in this window" });
  if (feature.drifted && feature.persistent) return pill("bad", "drifted", { title: "Significant and large, in at least two of the last three windows" });
  if (feature.drifted) return pill("warn", "drifted once", { title: "Significant and large in this window; lasting only if seen in two of three windows" });
  const before = feature.persistent ? "Drifted in two of the last three windows, not in this one" : "No significant and large change in this window";
  return pill("good", "stable", { title: before });
}
