// Rollouts in short: the panel of an endpoint, and the page that lists all.

import { h } from "./dom.js";
import { shareBar } from "./charts.js";
import { sentence, share, when } from "./format.js";
import { freezePanel } from "./freezes.js";
import { gateLine } from "./gates.js";
import { headline, progress, steps } from "./headline.js";
import { to } from "./place.js";
import { change, lasted, runs } from "./runs.js";
import { choice, command, empty, icon, panel, pill, prose, stepper, table, tone, words } from "./ui.js";

const open = ({ id }, ...content) => h("a", { href: to.rollout(id) }, content);

/** An endpoint's rollouts; `tools` stands in the panel's head. */
export const rolloutPanel = (rollouts, now, tools) => runs("Rollouts", "rollouts", rollouts, now, {
  full, line, tools,
  none: "No rollout yet. A new version is moved to an endpoint step by step, and turned back when a gate fails.",
});

export const asksFor = ({ wish, wish_by: by }) => wish && h("span", { class: "chip" }, icon("run", 14), `${by} asks to ${wish}`);

export const outcome = ({ state, reason }) => reason && h("p", { class: `outcome ${tone(state)}` },
  icon(tone(state), 16), h("span", null, prose(sentence(reason))));

const full = (rollout, now) => [
  h("div", { class: "run-head" },
    open(rollout, `Rollout ${rollout.id}`),
    h("strong", null, change(rollout.baseline, rollout.candidate)),
    pill(tone(rollout.state), words(rollout.state)),
    asksFor(rollout),
    h("span", { class: "note" }, `${words(rollout.strategy)}, `, lasted(rollout, now))),
  rollout.where && h("p", { class: "note" }, "Only where ", h("code", null, rollout.where)),
  stepper(steps(rollout)),
  h("p", null, headline(rollout)),
  outcome(rollout),
  (rollout.verdicts ?? []).length > 0 && h("ul", { class: "gate-chips", "aria-label": "Gates" }, rollout.verdicts.map((verdict) =>
    h("li", { key: verdict.gate, title: verdict.message }, gateLine(verdict)))),
];

const line = (rollout, now) => [
  h("strong", null, open(rollout, change(rollout.baseline, rollout.candidate))),
  pill(tone(rollout.state), words(rollout.state)),
  h("span", null, sentence(rollout.reason)),
  h("span", { class: "note" }, when(rollout.ended_at ?? rollout.created_at, now)),
];

// --- the page ---------------------------------------------------------------------------------------------------------

export const rolloutsWants = () => ({ rollouts: { path: "/api/v1/rollouts" }, freezes: { path: "/api/v1/freezes" } });

const FILTERS = [["active", "Active"], ["ended", "Ended"], ["all", "All"]];
const FITS = { active: ({ ended_at: ended }) => !ended, ended: ({ ended_at: ended }) => Boolean(ended), all: () => true };

export function rolloutsPage(data, { rollouts, freezes }, view) {
  const list = rollouts?.value ?? [];
  const active = list.filter(FITS.active).length;
  const filter = view.get("rollout filter") ?? (active ? "active" : "all");
  return [
    h("h2", null, "Rollouts"),
    panel("Rollouts of all endpoints", { name: "rollout-list", tools: choice(view, "rollout filter", "Rollouts shown", FILTERS, filter), note: `${active} active` },
      body(rollouts, list.filter(FITS[filter]), { data, view, filter })),
    freezePanel(freezes, data, view),
  ];
}

function body(answer, shown, { data, view, filter }) {
  if (answer?.error) return empty(h("p", null, sentence(answer.error)));
  if (!answer) return empty(h("p", null, "Asking for the rollouts."));
  if (!answer.value.length) {
    return empty(h("p", null, "No rollout yet. Move an endpoint to another version, here on the overview or by the command"), command("predis deploy ENDPOINT VERSION", view));
  }
  if (!shown.length) return empty(h("p", null, filter === "active" ? "Nothing moves now." : "No rollout has ended yet."));
  return table("Table of rollouts", HEADS, shown.map((rollout) => row(rollout, data.at)));
}

const HEADS = ["Rollout", "Endpoint", "Versions", "State", "Strategy", "Share", "Why it stands there", "When"];

const row = (rollout, now) => h("tr", { key: String(rollout.id) },
  h("th", { scope: "row" }, open(rollout, String(rollout.id))),
  h("td", { class: "name" }, rollout.endpoint, rollout.where && h("div", { class: "note" }, h("code", null, rollout.where))),
  h("td", { class: "tight" }, change(rollout.baseline, rollout.candidate)),
  h("td", null, pill(tone(rollout.state), words(rollout.state)), asksFor(rollout)),
  h("td", { class: "tight" }, rollout.strategy),
  h("td", { class: "progress" }, rollout.strategy === "shadow" && progress(rollout) > 0 && "copies of ", share(progress(rollout)), shareBar(progress(rollout))),
  h("td", { class: "wrapped" }, prose(sentence(rollout.reason))),
  h("td", { class: "tight", title: `started by ${rollout.created_by}` }, when(rollout.ended_at ?? rollout.created_at, now)));
