// One rollout: how it stands and why, what people may do about it, its shares over time, its gates, its moves and its plan.

import { h } from "./dom.js";
import { swatch } from "./charts.js";
import { courseChart } from "./course.js";
import { count, exact, known, score, sentence, share, signed, when } from "./format.js";
import { gateRows } from "./gates.js";
import { headline, planName, planValue, steps } from "./headline.js";
import { to } from "./place.js";
import { asksFor, outcome } from "./rollouts.js";
import { change, lasted } from "./runs.js";
import { command, empty, panel, pill, prose, stepper, tone, words } from "./ui.js";
import { wishButtons } from "./wishes.js";

export const rolloutWants = ({ id }) => ({
  rollout: { path: `/api/v1/rollouts/${id}` },
  shadow: { path: `/api/v1/rollouts/${id}/shadow` },
  plan: { path: "/api/v1/plan", every: Infinity },
});

export function rolloutPage(data, { rollout: answer, shadow, plan }, view) {
  if (answer?.error) return empty(h("h2", null, "No such rollout"), h("p", null, sentence(answer.error)), command("predis rollout list", view));
  if (!answer) return empty(h("p", null, "Asking for the rollout."));
  const rollout = answer.value;
  const terms = plan?.value;
  return h("article", { class: "rollout", key: `rollout ${rollout.id}`, "aria-label": `Rollout ${rollout.id}` },
    head(rollout, terms, { now: data.at, view }),
    h("div", { class: "grid even", key: "course" },
      rollout.strategy !== "shadow" && sharePanel(rollout, data.at, view),
      shadow?.value && shadowPanel(shadow.value, rollout),
      movePanel(rollout, data.at)),
    panel("Gates", { name: "gates-panel", note: "Bars: the always-valid interval of candidate minus baseline; 0: no difference. Red ground: worse than the margin." },
      gateRows(rollout.verdicts ?? [], terms?.gates)),
    planPanel(rollout, terms));
}

function head(rollout, terms, { now, view }) {
  return h("section", { class: "panel rollout-head", "aria-label": "How it stands" },
    h("div", { class: "run-head" },
      h("h2", null, `Rollout ${rollout.id}: `, change(rollout.baseline, rollout.candidate), " on ", rollout.endpoint),
      pill(tone(rollout.state), words(rollout.state), { title: terms?.states[rollout.state] }),
      asksFor(rollout)),
    h("p", { class: "headline", role: "status" }, headline(rollout)),
    outcome(rollout),
    stepper(steps(rollout)),
    wishButtons(rollout, terms?.wishes, view),
    h("p", { class: "note" },
      h("strong", null, rollout.strategy), terms && [": ", prose(terms.strategies[rollout.strategy]), ". "],
      "By ", rollout.created_by, ", ", lasted(rollout, now), ". Model ", h("a", { href: to.model(rollout.model) }, rollout.model),
      known(rollout.baseline) && [", ", h("a", { href: to.diff(rollout.model, rollout.baseline, rollout.candidate) }, `what is different in v${rollout.candidate}`)], "."),
    rollout.where && h("p", { class: "note" }, "Only requests for which ", h("code", null, rollout.where), " holds."));
}

function sharePanel(rollout, now, view) {
  const key = `course ${rollout.id}`;
  return panel("Share over time", { name: "share-panel" },
    courseChart(rollout, { now, size: view.size(key), active: view.get(key), choose: (at) => view.set(key, at) }));
}

const movePanel = (rollout, now) => panel("Moves", { name: "moves-panel", note: "newest first" },
  h("ol", { class: "timeline" }, [...rollout.moves].reverse().map((move, index) =>
    h("li", { key: String(rollout.moves.length - index) },
      h("span", { class: "when note" }, when(move.at, now)),
      pill(tone(move.state), words(move.state)),
      h("strong", null, share(move.share)),
      h("span", { class: "why" }, prose(sentence(move.reason)))))));

const shadowPanel = (shadow, rollout) => panel("Shadow against answers", { name: "shadow-panel", note: h("span", null, "The same requests, answered by ", swatch(rollout.baseline), `v${rollout.baseline} and copied to `, swatch(rollout.candidate), `v${rollout.candidate}`) },
  shadow.rows
    ? h("dl", { class: "figures pairs" },
      tile("Rows compared", count(shadow.rows)),
      tile("Answered otherwise at 0.5", h("span", { title: exact(shadow.flips) }, share(shadow.flips / shadow.rows)), h("span", null, count(shadow.flips), " rows")),
      tile("Score difference, mean", h("span", { title: exact(shadow.mean) }, signed(shadow.mean)), known(shadow.deviation) && `standard deviation ${score(shadow.deviation)}`),
      tile("Largest difference", h("span", { title: exact(shadow.worst) }, score(shadow.worst))))
    : empty(h("p", null, "Nothing was copied yet.")));

const tile = (label, value, note) => h("div", { class: "tile" }, h("dt", null, label), h("dd", null, h("div", { class: "big" }, value), note && h("div", { class: "note" }, note)));

// Shown elsewhere on the page.
const SAID = new Set(["strategy", "where"]);

function planPanel({ plan }, terms) {
  const own = Object.entries(plan).filter(([name, value]) => !SAID.has(name) && terms && JSON.stringify(value) !== JSON.stringify(terms.defaults[name]));
  const rest = Object.entries(plan).filter(([name]) => !SAID.has(name) && !own.some(([other]) => other === name));
  return panel("Plan", { name: "plan-panel", note: "values that differ from the defaults" },
    own.length ? values(own, terms) : empty(h("p", null, "Every value is the default.")),
    h("details", { class: "past" }, h("summary", null, `Values at their defaults (${rest.length})`), values(rest)));
}

const values = (list, terms) => h("dl", { class: "values" }, list.map(([name, value]) => h("div", { key: name, title: `${name} = ${JSON.stringify(value)}` },
  h("dt", null, planName(name)),
  h("dd", null, planValue(name, value), terms && h("span", { class: "note" }, ` default ${planValue(name, terms.defaults[name])}`)))));
