// The page of alerts: what is open, incident by incident, with what to do about it; how much of the error budgets is left; silences;
// whom alerts are told to, and what became of that; what is over.

import { rank, severity, subject, TONE, verdict } from "./alerts.js";
import { budgetPanel } from "./budgets.js";
import { ask, asked, dialog, textField } from "./dialog.js";
import { h } from "./dom.js";
import { count, parse, plural, sentence, span, when } from "./format.js";
import { outboxPanel, routePanel } from "./receivers.js";
import { silenceDraft, silencePanel } from "./silences.js";
import { command, empty, icon, panel, pill, words } from "./ui.js";

export const alertsWants = () => ({
  alerts: { path: "/api/v1/alerts?limit=200", every: 5000 },
  objectives: { path: "/api/v1/objectives", every: 5000 },
  silences: { path: "/api/v1/silences", every: 2000 },
  routes: { path: "/api/v1/alert-routes", every: 2000 },
  deliveries: { path: "/api/v1/alert-deliveries", every: 2000 },
});

export function alertsPage(data, { alerts, objectives, silences, routes, deliveries }, view) {
  const open = (data.alerts ?? []).filter((alert) => alert.state === "open");
  const { worst, text } = verdict(data, open);
  const incidents = grouped(open);
  return [
    h("h2", null, "Alerts"),
    h("p", { class: `verdict ${worst}`, role: "status" }, icon(worst, 20), h("strong", null, text)),
    incidents.length > 0 && h("ul", { class: "alert-list", "aria-label": "Open incidents" },
      incidents.map((members) => incident(members, told(deliveries, members[0].incident), { now: data.at, view }))),
    budgetPanel(objectives, view),
    silencePanel(silences, data, view),
    routePanel(routes, view),
    outboxPanel(deliveries, data.at),
    historyPanel(alerts, data.at),
  ];
}

/** Alerts of the same incident together, the worst incident first; in each the worst alert first. */
function grouped(open) {
  const found = new Map();
  for (const alert of open) found.set(alert.incident, [...(found.get(alert.incident) ?? []), alert]);
  const worse = (a, b) => rank(b) - rank(a) || parse(b.opened_at) - parse(a.opened_at);
  return [...found.values()].map((members) => members.sort(worse)).sort(([a], [b]) => worse(a, b));
}

function incident(members, routes, { now, view }) {
  const [worst] = members;
  const since = members.map(({ opened_at: at }) => at).sort()[0];
  const looks = Math.max(...members.map((alert) => alert.looks));
  const taken = members.every((alert) => alert.acknowledged_at);
  return h("li", { key: worst.incident, class: `alert incident ${severity(worst)}` },
    h("div", { class: "alert-what" },
      h("span", { class: "severity" }, icon(TONE[severity(worst)], 16), worst.severity),
      h("strong", null, members.length > 1 ? worst.endpoint : subject(worst)),
      h("span", { class: "note" }, words(worst.kind)),
      worst.silenced && pill("idle", "silenced"),
      taken && pill("run", `${worst.acknowledged_by} takes care`, { title: worst.note }),
      h("span", { class: "note alert-when" }, "since ", when(since, now), ", seen ", count(looks), ` ${looks === 1 ? "time" : "times"}`)),
    h("ul", { class: "members" }, members.map((alert) => h("li", { key: String(alert.id) },
      members.length > 1 && h("strong", null, `v${alert.version} `), sentence(alert.message)))),
    h("p", { class: "note" }, "Look at ", worst.look_at, "."),
    taken && worst.note && h("p", { class: "note" }, `${worst.acknowledged_by}: ${worst.note}`),
    routes && h("p", { class: "note" }, "Told: ", routes),
    h("div", { class: "alert-do" },
      worst.command && command(worst.command, view),
      h("div", { class: "buttons" },
        !taken && h("button", { type: "button", "aria-label": `Acknowledge ${named(worst)}`, onclick: () => ask(view, "acknowledge", { alert: worst }) }, "Acknowledge"),
        !worst.silenced && h("button", { type: "button", "aria-label": `Silence ${named(worst)}`, onclick: () => ask(view, "silence", { draft: silenceDraft(worst) }) }, "Silence"))));
}

const named = (alert) => `${words(alert.kind)} of ${alert.endpoint}`;

/** Which routes know of an incident; the newest word to each. */
function told(deliveries, key) {
  const newest = new Map();
  for (const one of deliveries?.value ?? []) {
    const known = newest.get(one.route);
    if (one.incident === key && (!known || one.id > known.id)) newest.set(one.route, one);
  }
  const said = [...newest.values()].map(({ route, event, state }) => `${route} (${words(event)}, ${state})`);
  return said.length ? said.join(", ") : null;
}

export function acknowledgeDialog(view, client) {
  const { alert, draft } = asked(view);
  return dialog(view, {
    title: `Take care of ${named(alert)}?`, action: "Acknowledge",
    submit: async () => {
      await client.send("POST", `/api/v1/alerts/${alert.id}/acknowledge`, { note: draft.note ?? "" });
    },
  },
  h("p", null, "Nothing escalates any more, and routes are told that it is you. It counts until the incident gets worse or ends."),
  textField(view, "note", "What you are doing (optional)", { hint: "Told to the routes, and kept in the audit log beside your name.", maxlength: 1000 }));
}

function historyPanel(answer, now) {
  const past = (answer?.value ?? []).filter((alert) => alert.state !== "open");
  return panel("Resolved", { name: "resolved", note: past.length ? `the newest ${plural(past.length, "alert")}` : null },
    answer?.error && empty(h("p", null, sentence(answer.error))),
    past.length
      ? h("ul", { class: "rows" }, past.map((alert) => h("li", { key: String(alert.id) },
        pill(TONE[severity(alert)], alert.severity),
        h("strong", null, subject(alert)),
        h("span", { class: "note" }, words(alert.kind)),
        h("span", { class: "wide" }, sentence(alert.message)),
        h("span", { class: "note last" }, "ended ", when(alert.ended_at, now), ` after ${span((parse(alert.ended_at) - parse(alert.opened_at)) / 1000)}`,
          alert.acknowledged_by && `, ${alert.acknowledged_by} took care`))))
      : answer?.value && empty(h("p", null, "No alert has been resolved yet.")));
}
