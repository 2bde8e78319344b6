// Models: all of them, and the versions of one with where they come from, who signed them and which alias points at them.

import { h } from "./dom.js";
import { swatch } from "./charts.js";
import { differencePanel } from "./difference.js";
import { exact, known, moment, parse, score, sentence, when } from "./format.js";
import { go, to } from "./place.js";
import { command, empty, icon, panel, pill, table } from "./ui.js";

const at = (name) => `/api/v1/models/${encodeURIComponent(name)}`;

export const modelsWants = () => ({ models: { path: "/api/v1/models", every: 5000 } });

export const modelWants = ({ name, before, after }) => ({
  versions: { path: `${at(name)}/versions`, every: 5000 },
  history: { path: `${at(name)}/aliases/history`, every: 5000 },
  ...(before && after && { difference: { path: `${at(name)}/diff?before=${before}&after=${after}`, every: Infinity } }),
});

export function modelsPage(data, { models }, view) {
  const list = models?.value ?? [];
  return [
    h("h2", null, "Models"),
    panel("Models", { name: "models-panel" },
      models?.error && empty(h("p", null, sentence(models.error))),
      list.length
        ? table("Table of models", ["Model", "Newest", "Versions", "Aliases", "Made"], list.map((model) => h("tr", { key: model.name },
          h("th", { scope: "row" }, h("a", { href: to.model(model.name) }, model.name)),
          h("td", { class: "tight" }, swatch(model.newest), `v${model.newest}`),
          h("td", null, model.versions),
          h("td", null, Object.entries(model.aliases).map(([alias, version]) => chip(alias, ` v${version}`))),
          h("td", { class: "tight" }, when(model.created_at, data.at)))))
        : models?.value && empty(h("p", null, "No model yet. Register one:"), command("predis model register NAME FILE", view))),
  ];
}

const chip = (text, more) => h("span", { key: text, class: "chip alias" }, text, more && h("span", { class: "note" }, more));

export function modelPage(place, data, { versions, history, difference }, view) {
  if (versions?.error) return empty(h("h2", null, "No such model"), h("p", null, sentence(versions.error)), command("predis model list", view));
  const list = versions?.value ?? [];
  return [
    h("h2", null, h("a", { href: to.models() }, "Models"), h("span", { class: "note" }, " / "), place.name),
    panel("Versions", { name: "model-versions", note: "Choose two to see what is different." },
      list.length ? versionTable(list, place, data.at) : versions?.value ? empty(h("p", null, "No version is left.")) : empty(h("p", null, "Asking for the versions."))),
    place.before && place.after && differencePanel(difference, place),
    panel("Alias history", { name: "alias-history", note: "newest first" }, historyList(place.name, history?.value, { now: data.at, view })),
  ];
}

const METRICS = [["auc", "AUC"], ["ks", "KS"], ["gini", "Gini"], ["log_loss", "Log loss"]];
const HEADS = ["", "Version", "Aliases", ...METRICS.map(([, label]) => label), "Signed by", "Where it comes from", "Digest", "Made"];

function versionTable(list, place, now) {
  const chosen = new Set([place.before, place.after].filter(Boolean));
  return table("Table of versions", HEADS, list.map((version) => h("tr", { key: String(version.version), class: chosen.has(version.version) ? "chosen" : null },
    h("td", null, h("input", {
      type: "checkbox", checked: chosen.has(version.version), "aria-label": `Compare v${version.version}`,
      onchange: (event) => choose(place, version.version, event.currentTarget.checked),
    })),
    h("th", { scope: "row", class: "tight" }, swatch(version.version), `v${version.version} `, h("span", { class: "role" }, version.format)),
    h("td", null, version.aliases.map((alias) => chip(alias))),
    METRICS.map(([name]) => h("td", { key: name, class: "number", title: exact(version.metrics[name]) }, score(version.metrics[name]))),
    h("td", null, signers(version)),
    h("td", { class: "wrapped" }, provenance(version)),
    h("td", null, h("code", { title: version.digest }, version.digest.slice(0, 12))),
    h("td", { class: "tight", title: moment(parse(version.created_at)) }, when(version.created_at, now), h("span", { class: "note" }, ` by ${version.created_by}`)))));
}

/** The version just chosen stands beside the one chosen before it; smaller numbers are before. */
function choose({ name, before, after }, version, on) {
  const kept = [before, after].filter((one) => one && one !== version);
  const pair = on ? [...kept.slice(-1), version].sort((a, b) => a - b) : kept;
  go(pair.length === 2 ? to.diff(name, pair[0], pair[1]) : pair.length ? to.diff(name, pair[0], 0) : to.model(name));
}

function signers({ signed_by: signed, sealed }) {
  if (signed.length) return signed.map(({ key, name }) => pill("good", name, { key, title: `Key ${key}` }));
  return h("span", { class: "note" }, sealed ? "nobody; sealed here" : "nobody");
}

function provenance({ lineage }) {
  const { revision, parent, retraining, training, parameters, promoted_from: from } = lineage;
  const said = [
    parent && `after v${parent}`,
    retraining && `retraining ${retraining}`,
    from && `from ${from}`,
    revision && ["code ", h("code", { title: revision }, revision.slice(0, 12))],
    training && ["data ", h("code", { title: training }, training.slice(0, 8))],
    parameters && h("span", { title: JSON.stringify(parameters, null, 1) }, `${Object.keys(parameters).length} parameters`),
  ].filter(Boolean);
  return said.length ? said.map((one, index) => h("span", { key: String(index) }, index > 0 && ", ", one)) : h("span", { class: "note" }, "not said");
}

function historyList(name, moves, { now, view }) {
  if (!moves) return null;
  if (!moves.length) return empty(h("p", null, "No alias has been moved yet. Give a version a name that others can follow:"), command(`predis model alias ${name} champion 1`, view));
  return h("ul", { class: "rows" }, moves.map((move, index) => h("li", { key: String(moves.length - index) },
    h("span", { class: "chip alias" }, move.alias),
    known(move.from) ? [swatch(move.from), `v${move.from}`] : h("span", { class: "note" }, "new"),
    icon("arrow", 14),
    known(move.to) ? [swatch(move.to), `v${move.to}`] : h("span", { class: "note" }, "deleted"),
    h("span", { class: "note" }, `by ${move.moved_by}, `, when(move.moved_at, now)))));
}
