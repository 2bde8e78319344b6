// The gates of a rollout as rows: what each says, the figures of both sides, and how sure it is.

import { h } from "./dom.js";
import { exact, figure, known, score, sentence, share, small } from "./format.js";
import { intervalBar } from "./interval.js";
import { empty, pill, tone, words } from "./ui.js";

const SPACE = "\u00a0";
const WORD = { pass: "passes", hold: "not decided", fail: "fails" };
const NAME = { errors: "Errors", latency: "Latency", scores: "Scores", auc: "AUC", reward: "Reward", split: "Split" };
// Of these more is better, so the margin lies below no difference.
const MORE_IS_BETTER = new Set(["auc", "reward"]);

const points = (value) => (known(value) ? (value * 100).toFixed(Math.abs(value) < 0.01 ? 2 : 1).replace("-", "\u2212") : null);
const FIGURE = { share, distance: small };
const DIFFERENCE = { share: points, distance: small };
const UNIT = { share: `${SPACE}points` };

const text = ({ unit }) => FIGURE[unit] ?? score;
const difference = ({ unit }) => DIFFERENCE[unit] ?? score;

/** What is compared, with the words of the server's table where a gate is not known here. */
const title = (gate) => NAME[gate] ?? words(gate);

export const gateLine = (verdict) => h("span", { class: "gate" },
  h("strong", null, title(verdict.gate)), pill(tone(verdict.verdict), WORD[verdict.verdict] ?? verdict.verdict));

export function gateRows(verdicts, meanings) {
  if (!verdicts.length) return empty(h("p", null, "No gate has looked yet. They look as soon as the candidate answers or shadows."));
  return h("ul", { class: "gates" }, verdicts.map((verdict) => h("li", { key: verdict.gate },
    h("div", { class: "gate-name", title: meanings?.[verdict.gate] }, gateLine(verdict), sides(verdict)),
    h("div", { class: "gate-interval" }, picture(verdict), range(verdict)),
    h("p", { class: "gate-message" }, sentence(verdict.message)))));
}

function sides(verdict) {
  const { baseline, candidate } = verdict;
  const show = text(verdict);
  const parts = [["baseline", baseline], ["candidate", candidate]].filter(([, value]) => known(value));
  if (!parts.length || verdict.unit === "distance") return null;
  return h("span", { class: "sides" }, parts.map(([name, value]) => h("span", { key: name }, h("span", { class: "note" }, `${name} `), figure(value, show(value)))));
}

const worse = ({ gate, margin }) => (known(margin) ? (MORE_IS_BETTER.has(gate) ? -margin : margin) : null);

function seen({ baseline, candidate, unit }) {
  if (unit === "distance") return candidate;
  return known(baseline) && known(candidate) ? candidate - baseline : null;
}

function picture(verdict) {
  const show = difference(verdict);
  const label = `Difference ${show(verdict.low)} to ${show(verdict.high)}, margin ${show(worse(verdict)) ?? "none"}${UNIT[verdict.unit] ?? ""}`;
  return intervalBar({
    low: verdict.low, high: verdict.high, margin: worse(verdict), point: seen(verdict), distance: verdict.unit === "distance",
    verdict: verdict.verdict, label,
  });
}

function range(verdict) {
  const { low, high } = verdict;
  if (!known(low) || !known(high)) return null;
  const show = difference(verdict);
  const margin = worse(verdict);
  const unit = UNIT[verdict.unit] ?? "";
  return h("p", { class: "note", title: `${exact(low)} to ${exact(high)}` }, `${show(low)} to ${show(high)}${unit}`, known(margin) && `, margin ${show(margin)}`);
}
