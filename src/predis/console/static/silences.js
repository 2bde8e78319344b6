// Silences: alerts that nobody is told of for a while, and why.

import { ask, asked, checkField, dialog, selectField, textField } from "./dialog.js";
import { h } from "./dom.js";
import { sentence, when } from "./format.js";
import { empty, panel, pill } from "./ui.js";

const SPANS = [["1800", "30 minutes"], ["3600", "1 hour"], ["7200", "2 hours"], ["14400", "4 hours"], ["28800", "8 hours"], ["86400", "1 day"], ["604800", "7 days"]];

/** What the dialog begins with: an alert that is to be silent, or nothing. */
export const silenceDraft = (alert) => ({ endpoint: alert?.endpoint ?? "", kind: alert?.kind ?? "", span: "3600", reason: "", emergency: alert?.severity === "emergency" });

export function silencePanel(answer, data, view) {
  const list = answer?.value ?? [];
  const add = h("button", { type: "button", onclick: () => ask(view, "silence", { draft: silenceDraft() }) }, "Add a silence");
  return panel("Silences", { name: "silences", tools: add, note: "Nobody is told of what they cover. It is listed as ever, and still starts retraining." },
    answer?.error && empty(h("p", null, sentence(answer.error))),
    list.length
      ? h("ul", { class: "rows" }, list.map((silence) => row(silence, data.at, view)))
      : answer?.value && empty(h("p", null, "No silence. Routes are told of everything that concerns them.")));
}

const row = (silence, now, view) => h("li", { key: String(silence.id) },
  pill(silence.active ? "warn" : "idle", silence.active ? "active" : "to come"),
  h("strong", null, covers(silence)),
  h("span", null, "until ", when(silence.ends_at, now)),
  h("span", { class: "wide" }, silence.reason),
  h("span", { class: "note" }, `by ${silence.created_by}`),
  h("button", { type: "button", class: "quiet last", "aria-label": `End silence ${silence.id}`, onclick: () => ask(view, "unsilence", { silence }) }, "End"));

function covers({ endpoint, kind, version, severity }) {
  const whose = `${endpoint || "all endpoints"}${version ? ` v${version}` : ""}`;
  return `${kind || "all alerts"} of ${whose}${severity ? `, up to ${severity}` : ""}`;
}

export function silenceDialog(view, client) {
  const { draft } = asked(view);
  return dialog(view, {
    title: "Tell nobody for a while", action: "Silence",
    submit: async () => {
      const { endpoint, kind, reason } = draft;
      await client.send("POST", "/api/v1/silences", { endpoint, kind, reason, for_s: Number(draft.span), severity: draft.emergency ? "emergency" : "" });
    },
  },
  textField(view, "endpoint", "Endpoint", { hint: "A pattern such as churn-*. Empty: all.", maxlength: 128 }),
  textField(view, "kind", "Kind of alert", { hint: "A pattern such as slo_*. Empty: all.", maxlength: 64 }),
  selectField(view, "span", "For", SPANS),
  textField(view, "reason", "Reason", { hint: "For those who wonder later.", required: true, maxlength: 1000 }),
  checkField(view, "emergency", "Emergencies, too"));
}

export function unsilenceDialog(view, client) {
  const { silence } = asked(view);
  return dialog(view, {
    title: `End silence ${silence.id}?`, action: "End it",
    submit: async () => {
      await client.send("DELETE", `/api/v1/silences/${silence.id}`);
    },
  },
  h("p", null, `Routes are told of ${covers(silence)} again; of what it hid and still lasts, at once.`));
}
