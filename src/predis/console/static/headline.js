// A rollout in plain words: what moves where, how far, and by which way.

import { known, share, span } from "./format.js";
import { words } from "./ui.js";

const of = ({ where }) => (where ? "requests of its segment" : "requests");
const every = ({ where }) => (where ? "every request of its segment" : "every request");
const versions = ({ candidate, baseline }) => [`v${candidate}`, known(baseline) ? `v${baseline}` : null];

/** One sentence: how things stand for those who call the endpoint. */
export function headline(rollout) {
  const [candidate, baseline] = versions(rollout);
  const rest = baseline ? `, ${baseline} the rest` : "";
  const running = {
    canary: `${candidate} answers ${share(rollout.share)} of ${of(rollout)}${rest}`,
    ab: `${candidate} answers a fixed ${share(rollout.share)} of ${of(rollout)}${rest}`,
    bandit: `${candidate} answers ${share(rollout.share)} of ${of(rollout)}${rest}; the share follows what it earns`,
    shadow: `${candidate} gets copies of ${share(rollout.plan?.shadow_share)} of ${of(rollout)}; ${baseline} answers them`,
  }[rollout.strategy];
  const still = rollout.share > 0 ? running : `${candidate} gets no traffic yet; ${baseline} answers ${every(rollout)}`;
  return {
    warming: `Workers load ${candidate}; ${baseline ? `${baseline} answers ${every(rollout)}` : "nothing answers yet"}.`,
    waiting: `It waits for a person's yes. ${still}.`,
    running: `${running}.`,
    paused: `Paused: ${running}.`,
    holding: `${candidate} answers ${every(rollout)}; ${baseline} stays in memory for an instant return.`,
    promoted: `${candidate} answers ${every(rollout)}.`,
    concluded: `The comparison has ended; ${baseline} goes on answering ${every(rollout)}.`,
    aborted: baseline ? `Turned back: ${baseline} answers ${every(rollout)}.` : "Aborted; nothing answers.",
    failed: `${candidate} could not be loaded${baseline ? `; ${baseline} goes on answering` : ""}.`,
  }[rollout.state] ?? `${words(rollout.state)}.`;
}

/** The stages it goes through, for a stepper; null in `share` where there is none. */
function stages({ strategy, steps, plan, baseline }) {
  if (!known(baseline)) return [];
  return {
    canary: (steps ?? []).map((step) => share(step)),
    ab: [`split ${share(plan?.share)}`],
    shadow: ["shadow"],
    bandit: ["bandit"],
    "blue-green": ["holding"],
  }[strategy] ?? [];
}

const ENDS = { aborted: "aborted", failed: "failed", concluded: "concluded" };

/** Steps for `stepper`: warm up, the strategy's own, the end. */
export function steps(rollout) {
  const bad = rollout.state === "aborted" || rollout.state === "failed";
  const own = stages(rollout);
  const at = rollout.state === "promoted" || rollout.state === "concluded" ? Infinity : reached(rollout, own.length);
  const state = (index) => (index < at ? "done" : index > at ? "todo" : bad ? "failed" : "current");
  const end = at === Infinity ? "done" : bad ? "failed" : "todo";
  return [
    { label: "warm up", state: state(-1) },
    ...own.map((label, index) => ({ label, state: state(index) })),
    { label: ENDS[rollout.state] ?? (rollout.strategy === "shadow" ? "concluded" : "promoted"), state: end },
  ];
}

/** The stage it is in, or was in when it ended; -1: warming up, before its first traffic. */
function reached({ state, step, strategy, began_at: began }, count) {
  if (state === "warming" || state === "failed" || !began) return -1;
  return Math.min(strategy === "canary" ? Math.max(step, 0) : 0, count - 1);
}

/** How much the candidate has, for lists: 0 to 1; of a shadow, what is copied to it. */
export const progress = ({ state, share: answered, strategy, plan }) => (strategy === "shadow" && state === "running" ? plan.shadow_share : answered);

/** What a value of the plan is, as people read it. */
export function planValue(name, value) {
  if (Array.isArray(value)) return value.map((each) => (known(each) ? share(each) : words(each))).join(", ") || "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name.endsWith("_s") && known(value)) return value >= 1 ? span(value) : `${Number((value * 1000).toPrecision(3))}\u00a0ms`;
  if (/share$|^floor$/.test(name)) return share(value);
  return value === "" ? "none" : String(value);
}

/** A value's name as words; its unit stands at the value. */
export const planName = (name) => words(name.replace(/_s$/, ""));
