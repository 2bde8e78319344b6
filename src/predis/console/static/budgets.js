// Objectives: how much of each error budget is left, and how fast it burns.

import { h } from "./dom.js";
import { count, known, sentence, share, short, span } from "./format.js";
import { shareBar } from "./charts.js";
import { command, empty, panel, pill } from "./ui.js";

export function budgetPanel(answer, view) {
  const list = answer?.value ?? [];
  return panel("Error budgets", { name: "budgets" },
    answer?.error && empty(h("p", null, sentence(answer.error))),
    list.length
      ? h("ul", { class: "budgets" }, list.map(budget))
      : answer?.value && empty(h("p", null, "No endpoint has objectives yet. Say what is promised, and alerts follow how fast the budget burns:"),
        command("predis endpoint configure NAME objectives='{\"availability\": 0.999}'", view)));
}

const budget = (level) => h("li", { key: `${level.endpoint} ${level.objective}` },
  h("div", { class: "budget-name" }, h("strong", null, level.endpoint), h("span", { class: "note" }, sentence(level.text))),
  h("div", { class: "budget-left" },
    h("span", null, h("strong", { class: level.budget_left < 0 ? "raised" : null }, share(level.budget_left)), " of the budget left"),
    shareBar(Math.max(0, Math.min(1, level.budget_left))),
    h("span", { class: "note" }, `${known(level.achieved) ? `${share(level.achieved)} achieved; ` : ""}`, count(level.bad), " bad of ", count(level.requests),
      level.limit_ms === null && level.outage_s > 0 && `, ${short(level.missed)} of them missed in ${span(level.outage_s)} of outage`)),
  h("ul", { class: "burns", "aria-label": "Burn rates" }, level.burn.map((pair) => h("li", { key: String(pair.long_s) },
    pill(burns(pair) ? (pair.severity === "critical" ? "bad" : "warn") : "good", rate(pair.long), { title: burns(pair) ? "Burns too fast in both windows" : "Not too fast in both windows" }),
    h("span", { class: "note" }, `over ${span(pair.long_s)}, ${rate(pair.short)} over ${span(pair.short_s)}; limit ${short(pair.factor)}`)))));

const burns = (pair) => Math.min(pair.long, pair.short) >= pair.factor;
const rate = (value) => `${short(Number(value.toPrecision(3)))}×`;
