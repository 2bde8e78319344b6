// What is changing: rollouts with their gates, and retraining runs with their result.

import { h } from "./dom.js";
import { differenceBar, swatch } from "./charts.js";
import { chance, count, exact, figure, interval, known, parse, score, sentence, share, signed, span, when } from "./format.js";
import { empty, icon, panel, pill, stepper, tone, words } from "./ui.js";

const EARLIER = 10;

/** The newest run in full, the earlier ones as one line each. */
function runs(title, name, list, now, { full, line, none }) {
  const ordered = [...list].sort((a, b) => Number(Boolean(a.ended_at)) - Number(Boolean(b.ended_at)) || parse(b.created_at) - parse(a.created_at));
  if (!ordered.length) return panel(title, { name }, empty(h("p", null, none)));
  const [first, ...rest] = ordered;
  return panel(title, { name },
    h("div", { key: String(first.id), class: "one-run" }, full(first, now)),
    rest.length > 0 && h("details", { class: "past" },
      h("summary", null, `Earlier (${rest.length})`),
      h("ul", null, rest.slice(0, EARLIER).map((run) => h("li", { key: String(run.id) }, line(run, now))))));
}

const change = (from, to) => [known(from) && [swatch(from), `v${from} to `], known(to) ? [swatch(to), `v${to}`] : "a new version"];

function lasted(run, now) {
  if (!run.ended_at) return ["started ", when(run.created_at, now)];
  return ["ended ", when(run.ended_at, now), `, took ${span((parse(run.ended_at) - parse(run.created_at)) / 1000)}`];
}

// --- rollouts ---------------------------------------------------------------------------------------------------------

const rolloutPanel = (rollouts, now) => runs("Rollouts", "rollouts", rollouts, now, {
  full: rolloutFull,
  line: rolloutLine,
  none: "No rollout yet. A new version is moved to an endpoint step by step, and turned back when a gate fails.",
});

function rolloutFull(rollout, now) {
  return [
    h("div", { class: "run-head" },
      h("strong", null, change(rollout.baseline, rollout.candidate)),
      pill(tone(rollout.state), words(rollout.state)),
      h("span", { class: "note" }, `${words(rollout.strategy)}, `, lasted(rollout, now))),
    stepper(rolloutSteps(rollout)),
    outcome(rollout),
    (rollout.verdicts ?? []).length > 0 && h("ul", { class: "verdicts" }, rollout.verdicts.map(gate)),
  ];
}

const ENDS = { aborted: "aborted", failed: "failed" };

function rolloutSteps(rollout) {
  const stopped = rollout.state in ENDS;
  const promoted = rollout.state === "promoted";
  const at = promoted ? Infinity : reached(rollout);
  const state = (index) => (index < at ? "done" : index > at ? "todo" : stopped ? "failed" : "current");
  return [
    { label: "warm up", state: state(-1) },
    ...planned(rollout).map((weight, index) => ({ label: share(weight), state: state(index) })),
    { label: stopped ? ENDS[rollout.state] : "promoted", state: promoted ? "done" : stopped ? "failed" : "todo" },
  ];
}

/** The step a rollout is in, or was in when it ended; -1: warming up, before any gate was asked. */
function reached(rollout) {
  const { step, state, verdicts } = rollout;
  if (state === "warming" || state === "failed" || (state === "aborted" && !verdicts?.length)) return -1;
  return Math.min(step ?? 0, planned(rollout).length - 1);
}

// Direct goes from warming up to everything at once, whatever steps its plan holds.
const planned = ({ strategy, steps }) => (strategy === "direct" ? [] : steps ?? []);

function outcome(rollout) {
  if (rollout.ended_at || rollout.state in ENDS || rollout.state === "promoted") {
    return rollout.reason && h("p", { class: `outcome ${tone(rollout.state)}` }, icon(tone(rollout.state), 16), h("span", null, sentence(rollout.reason)));
  }
  const now = rollout.state === "warming" ? `v${rollout.candidate} gets no traffic yet` : `v${rollout.candidate} answers ${share(rollout.weight)} of requests`;
  return h("p", { class: "outcome run" }, icon("run", 16), h("span", null, now, rollout.reason && `: ${rollout.reason}`));
}

const WORD = { pass: "passes", hold: "not decided", fail: "fails" };
const GATE = { errors: "Errors", latency: "Latency", auc: "AUC" };
// Errors and latency are judged as shares: of failed requests, and of requests slower than the plan allows.
const SHARE_OF = { errors: "failed requests: ", latency: "slow requests: " };
const FIGURE = {
  errors: share,
  latency: share,
};

function gate(verdict) {
  const text = FIGURE[verdict.gate] ?? score;
  const both = known(verdict.baseline) && known(verdict.candidate);
  const range = both && known(verdict.low) && known(verdict.high) ? `${text(verdict.low)} to ${text(verdict.high)}` : null;
  return h("li", { key: verdict.gate },
    h("span", { class: "gate" }, h("strong", null, GATE[verdict.gate] ?? words(verdict.gate)), pill(tone(verdict.verdict), WORD[verdict.verdict] ?? verdict.verdict)),
    (known(verdict.baseline) || known(verdict.candidate)) && h("span", { class: "gate-figures" },
      SHARE_OF[verdict.gate] ?? "", "baseline ", figure(verdict.baseline, text(verdict.baseline)), ", candidate ", figure(verdict.candidate, text(verdict.candidate)),
      range && h("span", { class: "note", title: `${exact(verdict.low)} to ${exact(verdict.high)}` }, `, difference ${range}`)),
    verdict.message && h("span", { class: "gate-message note" }, sentence(verdict.message)));
}

const rolloutLine = (rollout, now) => [
  h("strong", null, change(rollout.baseline, rollout.candidate)),
  pill(tone(rollout.state), words(rollout.state)),
  h("span", null, sentence(rollout.reason)),
  h("span", { class: "note" }, when(rollout.ended_at ?? rollout.created_at, now)),
];

// --- retraining -------------------------------------------------------------------------------------------------------

// What a run does, in order: how it is shown, and how its name begins.
const STEPS = [["build set", "build"], ["validate", "valid"], ["train", "train"], ["compare", "compar"], ["register", "regist"], ["roll out", "roll"]];

const retrainingPanel = (retrainings, now) => runs("Retraining", "retraining", retrainings, now, {
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

export { retrainingPanel, rolloutPanel };
