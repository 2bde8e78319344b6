// What is changing: the newest run in full, earlier ones as lines; and retraining runs with their result.

import { h } from "./dom.js";
import { differenceBar, swatch } from "./charts.js";
import { chance, count, figure, interval, known, parse, signed, span, when } from "./format.js";
import { empty, icon, panel, pill, stepper, tone, words } from "./ui.js";

const EARLIER = 10;

/** The newest run in full, the earlier ones as one line each. */
export function runs(title, name, list, now, { full, line, none, tools }) {
  const ordered = [...list].sort((a, b) => Number(Boolean(a.ended_at)) - Number(Boolean(b.ended_at)) || parse(b.created_at) - parse(a.created_at));
  if (!ordered.length) return panel(title, { name, tools }, empty(h("p", null, none)));
  const [first, ...rest] = ordered;
  return panel(title, { name, tools },
    h("div", { key: String(first.id), class: "one-run" }, full(first, now)),
    rest.length > 0 && h("details", { class: "past" },
      h("summary", null, `Earlier (${rest.length})`),
      h("ul", null, rest.slice(0, EARLIER).map((run) => h("li", { key: String(run.id) }, line(run, now))))));
}

export const change = (from, to) => [known(from) && [swatch(from), `v${from} to `], known(to) ? [swatch(to), `v${to}`] : "a new version"];

export function lasted(run, now) {
  if (!run.ended_at) return ["started ", when(run.created_at, now)];
  return ["ended ", when(run.ended_at, now), `, took ${span((parse(run.ended_at) - parse(run.created_at)) / 1000)}`];
}

// --- retraining -------------------------------------------------------------------------------------------------------

// What a run does, in order: how it is shown, and how its name begins.
const STEPS = [["build set", "build"], ["validate", "valid"], ["train", "train"], ["compare", "compar"], ["register", "regist"], ["roll out", "roll"]];

export const retrainingPanel = (retrainings, now) => runs("Retraining", "retraining", retrainings, now, {
  full: retrainingFull,
  line: retrainingLine,
  none: "No retraining yet. It starts by itself when performance decays, if the endpoint has a train function.",
});

function retrainingFull(run, now) {
  return [
    h("div", { class: "run-head" },
      h("strong", null, change(run.champion, run.challenger)),
      pill(tone(run.state), words(run.state)),
      h("span", { class: "note" }, `trigger ${words(run.trigger)}, `, lasted(run, now))),
    stepper(retrainingSteps(run)),
    result(run),
  ];
}

function retrainingSteps(run) {
  const done = run.state === "promoted";
  const at = done ? Infinity : Math.max(0, STEPS.findIndex(([, start]) => String(run.step).startsWith(start)));
  const stopped = Boolean(run.ended_at) && !done;
  return STEPS.map(([label], index) => ({ label, state: index < at ? "done" : index > at ? "todo" : stopped ? "failed" : "current" }));
}

function result(run) {
  const detail = run.detail ?? {};
  const compared = known(detail.champion_auc) && known(detail.challenger_auc);
  const said = conclusion(run, detail);
  return [
    said && h("p", { class: `outcome ${tone(run.state)}` }, icon(tone(run.state), 16), h("span", null, said)),
    compared && comparison(run, detail),
    known(detail.rows) && h("p", { class: "note" }, "Set of ", count(detail.rows), " rows",
      known(detail.train_rows) && [": trained on ", count(detail.train_rows)], known(detail.test_rows) && [", compared on the ", count(detail.test_rows), " newest"], "."),
  ];
}

/** How a run came out and why, in one sentence. */
function conclusion(run, { error, decision, rollout_reason: turn }) {
  const champion = `v${run.champion}`;
  const challenger = known(run.challenger) ? `v${run.challenger}` : "The challenger";
  if (error) return `Failed: ${error}`;
  if (run.state === "promoted") return `${challenger} is better and answers everything now.`;
  if (run.state === "rejected" && turn) return `${challenger} was better in the comparison, but its rollout ended: ${turn}. ${champion} stays.`;
  if (decision === "not better") return `${challenger} is not better by the margin. ${champion} stays.`;
  if (decision === "better") return `${challenger} is better by more than the margin; it is rolled out with gates.`;
  return decision ? String(decision) : null;
}

function comparison(run, detail) {
  const range = interval(detail.low, detail.high);
  const name = (role, version) => [role, known(version) && [" ", swatch(version), `v${version}`]];
  return h("dl", { class: "comparison" },
    h("div", null, h("dt", null, name("Champion", run.champion)), h("dd", null, figure(detail.champion_auc), h("span", { class: "unit" }, " AUC"))),
    h("div", null, h("dt", null, name("Challenger", run.challenger)), h("dd", null, figure(detail.challenger_auc), h("span", { class: "unit" }, " AUC"))),
    known(detail.difference) && h("div", { class: "wide" },
      h("dt", null, "Difference"),
      h("dd", null, figure(detail.difference, signed(detail.difference)),
        h("span", { class: "unit" }, [range && ` ${range}`, chance(detail.p_value)].filter(Boolean).join(", "))),
      range && h("div", null, differenceBar(detail))));
}

function retrainingLine(run, now) {
  const { difference } = run.detail ?? {};
  return [
    h("strong", null, change(run.champion, run.challenger)),
    pill(tone(run.state), words(run.state)),
    h("span", null, `trigger ${words(run.trigger)}`, known(difference) && `, AUC ${signed(difference)}`),
    h("span", { class: "note" }, when(run.ended_at ?? run.created_at, now)),
  ];
}
