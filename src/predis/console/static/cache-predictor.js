// What the cache foretells: rules in words with what each is worth, keys read on a schedule, and which version of the predictor is in use.

import { h } from "./dom.js";
import { ABSENT, known, moment, ms, plural, sentence, share, short, span, when, withUnit } from "./format.js";
import { intervalBar } from "./interval.js";
import { command, empty, panel, pill, prose, table, tile } from "./ui.js";

const RULES = 8;
const SCHEDULES = 10;
const VERSIONS = 5;
const SCHEDULED = /^(.+) (every .+)$/;
const TOGETHER = "keys seen together";

const misses = (value) => (known(value) ? value.toFixed(2).replace("-", "\u2212") : ABSENT);

export const predictorWants = {
  predictor: { path: "/api/v1/cache/predictor", every: 2000 },
  standing: { path: "/api/v1/cache/predictor/versions", every: 5000 },
};

/** What the client has of both documents; `at` is the server's clock in milliseconds. */
export function predictorPanels({ predictor: answer, standing }, at, view) {
  const found = answer?.value;
  if (!found) return rulesPanel({}, empty(h("p", null, answer?.error ? sentence(answer.error) : "Asking what was learnt.")));
  const rules = joined(found);
  return [
    rulesPanel({ note: noteOf(found) }, rules.length ? [summary(found), rulesList(rules, view)] : nothingYet(view)),
    h("div", { class: "grid even" }, schedulesPanel(found, at, view), versionsPanel(found, standing, at, view)),
  ];
}

const rulesPanel = (props, ...content) => panel("What is read next", { name: "foretold", ...props }, ...content);

function noteOf({ workers, hold_back: held }) {
  if (!workers) return "no gateway worker tells what became of it";
  if (held >= 1) return "prefetching is off: all of it is held back, and only watched";
  return `${plural(workers, "worker")}; ${share(held)} of the keys held back, to measure the gain`;
}

const nothingYet = (view) => empty(
  h("p", null, "No rule holds yet. The learner looks for keys of sources that are read one after the other, such as ", h("code", null, "session:81"), " and then ", h("code", null, "prefs:81"), ". Let clients read through the cache's port for a while."),
  command("predis cache source list", view));

/** Rules that were learnt and those that were tried, each once: most useful first. */
function joined({ learned, rules }) {
  const left = new Map(learned.map((one) => [one.rule, one]));
  const tried = rules.map((worth) => {
    const told = left.get(worth.rule);
    left.delete(worth.rule);
    return { rule: worth.rule, version: worth.version, told, worth };
  });
  return [...tried, ...[...left.values()].map((told) => ({ rule: told.rule, told }))];
}

// --- rules ------------------------------------------------------------------------------------------------------------

function summary({ total, dropped }) {
  const lost = Object.entries(dropped).filter(([, keys]) => keys > 0);
  return h("dl", { class: "figures foretold-figures" },
    tile("Loaded ahead", short(total.given), total.given ? `${share(total.precision)} of them were read` : "nothing yet"),
    tile("Early enough", share(total.on_time), "of those that were read"),
    tile("Misses spared, a key", misses(total.gain), known(total.gain) ? `95 %: ${misses(total.gain_low)} to ${misses(total.gain_high)}` : "not measured yet"),
    tile("Not loaded", short(lost.reduce((sum, [, keys]) => sum + keys, 0)), lost.length ? lost.map(([why, keys]) => `${short(keys)} ${why}`).join(", ") : "nothing was dropped"));
}

const rulesList = (rules, view) => [
  h("ul", { class: "rules" }, rules.slice(0, RULES).map((one) => ruleRow(one))),
  rules.length > RULES && h("div", { class: "more" }, h("span", { class: "note" }, `and ${plural(rules.length - RULES, "rule")} more:`), command("predis cache predictor show", view)),
];

function ruleRow({ rule, version, told, worth }) {
  return h("li", { key: `${version ?? ""} ${rule}` },
    h("div", { class: "rule-name" }, ruleName(rule), h("span", { class: "rule-state" }, stateOf(worth), version > 0 && h("span", { class: "note" }, `version ${version}`))),
    h("div", { class: "rule-words" }, h("p", null, inWords(rule, told)), h("p", { class: "note" }, became(worth))),
    h("div", { class: "rule-gain" }, gainOf(worth)));
}

/** `session:{a} -> prefs:{a}` as two keys and an arrow. */
function ruleName(rule) {
  const [first, then] = rule.split(" -> ");
  if (then !== undefined) return h("span", { class: "rule-text" }, h("code", null, first), " → ", h("code", null, then));
  const [, template, period] = SCHEDULED.exec(rule) ?? [];
  return h("span", { class: "rule-text" }, template ? [h("code", null, template), ` ${period}`] : sentence(rule));
}

function stateOf(worth) {
  if (!worth) return pill("idle", "not tried yet");
  return worth.on ? pill("good", "on") : pill("warn", "off: does not pay", { title: "It is tried again after a rest, which doubles each time" });
}

function inWords(rule, told) {
  if (SCHEDULED.test(rule)) return "Keys that come back at a steady period, each loaded just before it is due.";
  if (rule === TOGETHER) return "Single keys that were read one after the other before, whatever their names.";
  if (!told) return "No longer among the rules that hold.";
  return `Right ${share(told.confidence)} of the time, ${ahead(told.lead_s)} ahead; early enough ${share(told.on_time)} of the time.`;
}

const ahead = (seconds) => (seconds < 1 ? withUnit(ms(seconds * 1000), "ms") : span(seconds));

function became(worth) {
  if (!worth?.given) return worth?.held ? `${plural(worth.held, "key")} held back, none loaded.` : "Nothing was loaded ahead by it yet.";
  const unread = worth.given - worth.used - worth.late;
  return `${plural(worth.given, "key")} loaded ahead: ${short(worth.used)} read in time, ${short(worth.late)} too late, ${short(unread)} not read.`;
}

function gainOf(worth) {
  if (!known(worth?.gain)) return h("p", { class: "note" }, "Gain not known yet: too few keys.");
  const { gain, gain_low: low, gain_high: high, held } = worth;
  const label = `Spares ${misses(gain)} misses a key, ${misses(low)} to ${misses(high)} with 95 %`;
  return [
    intervalBar({ low, high, point: gain, verdict: low > 0 ? "pass" : high < 0 ? "fail" : "", label }),
    h("p", { class: "note", title: label }, `${misses(gain)} misses spared a key; ${short(held)} held back`),
  ];
}

// --- schedules --------------------------------------------------------------------------------------------------------

function schedulesPanel({ schedules }, at, view) {
  return panel("Read on a schedule", { name: "schedules", note: schedules.length ? "loaded just before they are due" : null },
    schedules.length
      ? [
        table("Table of schedules", ["Key", ["Every", "number"], ["Within", "number"], ["Next", "number"]], schedules.slice(0, SCHEDULES).map((one) => scheduleRow(one, at))),
        schedules.length > SCHEDULES && h("div", { class: "more" }, h("span", { class: "note" }, `and ${plural(schedules.length - SCHEDULES, "key")} more:`), command("predis cache predictor show --json", view)),
      ]
      : empty(h("p", null, "No key of a source is read at a steady period. One that is, nine times in a row and at least every two days, appears here.")));
}

function scheduleRow({ key, period_s: period, tolerance_s: tolerance, due_s: due, last_s: last }, at) {
  const left = due - at / 1000;
  return h("tr", { key },
    h("th", { scope: "row", class: "key-cell" }, h("code", { title: key }, key)),
    h("td", { class: "number" }, span(period)),
    h("td", { class: "number", title: "How much earlier or later than due it was read" }, `±\u2009${ahead(tolerance)}`),
    h("td", { class: "number", title: `Due ${moment(due * 1000)}; last read ${moment(last * 1000)}` }, left > 1 ? `in ${span(Math.round(left))}` : "now"));
}

// --- versions ---------------------------------------------------------------------------------------------------------

function versionsPanel({ predictor }, standing, at, view) {
  const found = standing?.value;
  const number = found?.champion.version ?? 0;
  return panel("Versions of the predictor", { name: "predictor", note: number ? `version ${number} is in use` : "what the learner knows by itself is in use" },
    h("dl", { class: "values" },
      value("Learnt from", predictor?.reads ? plural(predictor.reads, "read") : "nothing yet"),
      value("Last learnt", predictor?.made_at ? when(new Date(predictor.made_at * 1000).toISOString(), at) : "never"),
      value("Rules", short(predictor?.rules ?? 0)),
      value("Keys that others follow", short(predictor?.followed ?? 0))),
    found ? standingOf(found, at) : standing?.error && h("p", { class: "note" }, sentence(standing.error)),
    h("div", { class: "more" }, command("predis cache predictor show", view)));
}

function standingOf({ champion, candidate, versions, decisions, problem, training }, at) {
  const now = [
    candidate && `Version ${candidate.version} is on trial with ${share(candidate.share)} of the keys: ${candidate.verdict}`,
    champion.verdict,
    problem,
    trainingOf(training),
  ].filter(Boolean);
  return [
    now.map((text) => h("p", { key: text, class: text === problem ? "raised" : "note" }, prose(sentence(text)))),
    versions.length
      ? h("ul", { class: "rows" }, versions.slice(0, VERSIONS).map((one) => versionRow(one, at)))
      : !training && h("p", { class: "note" }, "No version was trained yet. One is, once enough reads are on record; it takes over if it does better."),
    decisions.length > 0 && h("p", { class: "note", title: decisions[0].why }, `Last decision: version ${decisions[0].version}, ${decisions[0].decision}. ${sentence(decisions[0].why)}`),
  ];
}

function trainingOf(training) {
  if (training?.state === "running") return "a version is being trained";
  const why = training?.detail?.decision ?? training?.detail?.error;
  return ["rejected", "failed"].includes(training?.state) && `the last training was ${training.state}${why ? `: ${why}` : ""}`;
}

const STATES = { "in use": "good", "on trial": "run" };

function versionRow({ version, state, created_at: made, metrics, decision }, at) {
  const told = state || decision?.decision;
  return h("li", { key: String(version) },
    h("strong", null, `Version ${version}`),
    told && pill(STATES[state] ?? "idle", told, { title: decision?.why }),
    known(metrics.miss_ratio) && h("span", { class: "note" }, `simulated misses ${share(metrics.miss_ratio)}, LRU ${share(metrics.lru_miss_ratio)}`),
    h("span", { class: "note last" }, when(made, at)));
}

const value = (name, text) => h("div", { key: name }, h("dt", null, name), h("dd", null, text));
