// Is anything wrong? One sentence, then every open alert with what to do about it.

import { h } from "./dom.js";
import { count, moment, parse, plural, sentence, when } from "./format.js";
import { to } from "./place.js";
import { command, icon, words } from "./ui.js";

const SEVERITIES = ["info", "warning", "critical", "emergency"];
export const TONE = { info: "info", warning: "warn", critical: "bad", emergency: "bad" };
const SHOWN = 6;
const PAST = 20;

// A severity not known here counts as a warning: better too loud than unseen.
export const severity = (alert) => (SEVERITIES.includes(alert.severity) ? alert.severity : "warning");
export const rank = (alert) => SEVERITIES.indexOf(severity(alert));

export function alertPart(data, view) {
  const alerts = data.alerts ?? [];
  const open = alerts.filter((alert) => alert.state === "open").sort((a, b) => rank(b) - rank(a) || parse(b.opened_at) - parse(a.opened_at));
  const past = alerts.filter((alert) => alert.state !== "open");
  const { worst, text } = verdict(data, open);
  const all = view.get("all alerts");
  return h("section", { class: "alerts", "aria-label": "Alerts" },
    h("p", { class: `verdict ${worst}`, role: "status" }, icon(worst, 20), h("strong", null, text)),
    open.length > 0 && h("ul", { class: "alert-list" }, (all ? open : open.slice(0, SHOWN)).map((alert) => openAlert(alert, data.at, view))),
    (open.length > 0 || past.length > 0) && h("a", { class: "more", href: to.alerts() }, "Acknowledge, silence, see who was told"),
    open.length > SHOWN && h("button", { type: "button", onclick: () => view.set("all alerts", !all) },
      all ? "Show fewer" : `Show ${open.length - SHOWN} more`),
    past.length > 0 && h("details", { class: "past" },
      h("summary", null, `Resolved alerts (${past.length})`),
      h("ul", null, past.slice(0, PAST).map((alert) => pastAlert(alert, data.at)))));
}

/** The worst thing known and one sentence about it. */
export function verdict(data, open) {
  const sick = (data.endpoints ?? []).filter((endpoint) => endpoint.health === "down" || endpoint.health === "degraded");
  const lost = (data.system?.workers ?? []).filter((worker) => !worker.healthy);
  const alone = !(data.system?.workers ?? []).length;
  const down = sick.some((endpoint) => endpoint.health === "down");
  const said = [
    ...bySeverity(open),
    ...sick.map((endpoint) => `${endpoint.name} is ${endpoint.health}`),
    lost.length && `${plural(lost.length, "worker")} not answering`,
    alone && "no worker is running",
  ].filter(Boolean);
  if (!said.length) return { worst: "good", text: well(data) };
  const serious = down || open.some((alert) => rank(alert) >= 2);
  const mild = !serious && !sick.length && !lost.length && !alone && open.every((alert) => alert.severity === "info");
  return { worst: serious ? "bad" : mild ? "info" : "warn", text: `${said.join(", ")}.` };
}

function bySeverity(open) {
  return [...SEVERITIES].reverse().map((name) => {
    const number = open.filter((alert) => severity(alert) === name).length;
    return number && plural(number, `${name} alert`);
  });
}

function well(data) {
  const endpoints = (data.endpoints ?? []).length;
  const workers = (data.system?.workers ?? []).length;
  return `No open alert. ${plural(endpoints, "endpoint")}, ${plural(workers, "worker")} answering.`;
}

export const subject = (alert) => [alert.endpoint, alert.version === null || alert.version === undefined ? null : `v${alert.version}`].filter(Boolean).join(" ");

function openAlert(alert, now, view) {
  return h("li", { key: String(alert.id), class: `alert ${severity(alert)}` },
    h("div", { class: "alert-what" },
      h("span", { class: "severity" }, icon(TONE[severity(alert)], 16), alert.severity),
      h("strong", null, subject(alert)),
      h("span", { class: "note" }, words(alert.kind)),
      h("span", { class: "note alert-when" },
        "opened ", when(alert.opened_at, now),
        alert.looks > 1 && h("span", { title: `Confirmed by ${alert.looks} checks; happened at ${moment(parse(alert.event_at))}` }, ", seen ", count(alert.looks), " times"))),
    h("p", { class: "alert-message" }, sentence(alert.message)),
    alert.command && command(alert.command, view));
}

function pastAlert(alert, now) {
  return h("li", { key: String(alert.id) },
    h("span", { class: "severity" }, icon("good", 14), `${alert.severity}, resolved`),
    h("strong", null, subject(alert)),
    h("span", null, sentence(alert.message)),
    h("span", { class: "note" }, when(alert.ended_at ?? alert.opened_at, now)));
}
