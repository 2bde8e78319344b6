// Moving an endpoint to another version: which, how, for whom, and who must say yes.

import { h } from "./dom.js";
import { ask, asked, checkField, dialog, overFreeze, radioField, selectField, textField } from "./dialog.js";
import { go, to } from "./place.js";
import { span } from "./format.js";

const FIRST = { strategy: "canary" };

/** The button on an endpoint; a rollout in progress has its place. */
export const deployButton = (endpoint, moving, view) => (moving
  ? h("a", { class: "button", href: to.rollout(moving.id) }, `Open rollout ${moving.id}`)
  : h("button", { type: "button", class: "primary", onclick: () => ask(view, "deploy", { draft: FIRST, endpoint: { name: endpoint.name, model: endpoint.model, weights: endpoint.route?.weights ?? {} } }) }, "Deploy a version"));

export const deployWants = ({ endpoint }) => ({
  plan: { path: "/api/v1/plan", every: Infinity },
  versions: { path: `/api/v1/models/${encodeURIComponent(endpoint.model)}/versions`, every: 5000 },
});

// The values of the plan that a strategy has, each as people type it and as the plan keeps it.
const percent = { show: (value) => String(Number((value * 100).toPrecision(6))), read: (text) => number(text) / 100 };
const percents = { show: (list) => list.map(percent.show).join(", "), read: (text) => text.split(/[,;\s]+/).filter(Boolean).map(percent.read) };
const seconds = { show: String, read: (text) => number(text) };
const whole = { show: String, read: (text) => Math.round(number(text)) };
const expression = { show: String, read: (text) => text.trim() };

const VALUES = {
  steps: ["Steps, % of requests", percents, "Growing shares; everything comes after the last."],
  share: ["Share of the candidate, %", percent],
  shadow_share: ["Share of requests copied, %", percent],
  floor: ["Least share of each side, %", percent],
  bake_s: ["Least time of a step, s", seconds],
  keep_s: ["Keep the old version in memory for, s", seconds],
  max_s: ["Longest time, s", seconds],
  min_requests: ["Least requests per step", whole],
  reward: ["Reward", expression, "Of label, score and value, such as value if label else 0. Empty: the AUC decides."],
};
const OF = {
  direct: [],
  "blue-green": ["keep_s"],
  canary: ["steps", "bake_s", "min_requests"],
  ab: ["share", "reward", "max_s", "min_requests"],
  shadow: ["shadow_share", "bake_s", "min_requests"],
  bandit: ["reward", "floor", "bake_s", "max_s"],
};
const ASKED = { start: "before its first traffic", steps: "before each next step", promote: "before it gets everything" };

function number(text) {
  const value = Number(String(text).replace("%", "").trim());
  if (String(text).trim() === "" || !Number.isFinite(value)) throw new Error(`${JSON.stringify(text)} is not a number`);
  return value;
}

export function deployDialog(view, client, { plan, versions }) {
  const { endpoint, draft } = asked(view);
  const terms = plan?.value;
  const list = (versions?.value ?? []).filter(({ version }) => endpoint.weights[version] !== 1);
  const strategies = Object.fromEntries(Object.entries(terms?.strategies ?? {}).map(([name, meaning]) => [name, meaning.replaceAll("`", "")]));
  const fallback = list[0] && String(list[0].version);
  return dialog(view, {
    title: `Deploy a version to ${endpoint.name}`, action: "Start the rollout", wide: true,
    submit: async () => {
      const rollout = await client.send("POST", `/api/v1/endpoints/${encodeURIComponent(endpoint.name)}/deploy`, bodyOf(draft, fallback));
      return () => go(to.rollout(rollout.id));
    },
  },
  list.length
    ? selectField(view, "version", "Version", list.map((version) => [String(version.version), named(version)]))
    : h("p", null, versions ? "No other version is registered. Register one first." : "Asking for the versions."),
  radioField(view, "strategy", "How to get there", strategies),
  terms && h("div", { class: "field-grid" }, OF[draft.strategy].map((name) => valueField(view, name, terms.defaults[name]))),
  textField(view, "where", "Only requests where (optional)", { hint: "An expression such as header.x_country == 'CH', parameter.tier in ['gold'] or input.age < 30.", spellcheck: "false" }),
  draft.strategy !== "direct" && h("fieldset", { class: "checks" }, h("legend", null, "A person must say yes"),
    Object.entries(ASKED).map(([name, text]) => checkField(view, `approve ${name}`, text)),
    checkField(view, "four_eyes", "and not the one who started it")),
  overFreeze(view));
}

const named = ({ version, format, aliases }) => [`v${version}`, format, ...aliases].join(", ");

function valueField(view, name, standard) {
  const [label, form, hint] = VALUES[name];
  const long = name === "max_s" ? `${span(standard)} unless you say otherwise.` : null;
  return textField(view, name, label, { placeholder: form.show(standard), hint: hint ?? long, inputmode: form === expression ? null : "decimal" });
}

/** What is to be sent: only what was filled in. */
function bodyOf(draft, fallback) {
  const plan = {};
  for (const name of OF[draft.strategy]) {
    if ((draft[name] ?? "").trim()) plan[name] = VALUES[name][1].read(draft[name]);
  }
  if ((draft.where ?? "").trim()) plan.where = draft.where.trim();
  const approve = Object.keys(ASKED).filter((name) => draft[`approve ${name}`]);
  if (approve.length && draft.strategy !== "direct") plan.approve = approve;
  if (draft.four_eyes && draft.strategy !== "direct") plan.four_eyes = true;
  const version = draft.version ?? fallback;
  if (!version) throw new Error("there is no version to deploy");
  return { version: Number(version), strategy: draft.strategy, plan, override_freeze: Boolean(draft.override_freeze) };
}
