// Whom alerts are told to, and the outbox: what waits, what was given up and why, what was taken.

import { ask, asked, dialog } from "./dialog.js";
import { h } from "./dom.js";
import { count, parse, plural, sentence, span, when } from "./format.js";
import { command, empty, icon, panel, pill } from "./ui.js";

const SHOWN = 20;
const TONES = { waiting: "warn", sent: "good", failed: "bad", folded: "idle", summarised: "idle" };
const MEANS = {
  waiting: "Not taken yet; tried again for up to a day", sent: "The receiver has it", failed: "Given up",
  folded: "More than the route takes in an hour; told in a summary", summarised: "Told in a summary",
};

export function routePanel(answer, view) {
  const list = answer?.value ?? [];
  return panel("Routes", { name: "alert-routes", note: "Whom alerts are told to." },
    answer?.error && empty(h("p", null, sentence(answer.error))),
    list.length
      ? h("ul", { class: "rows" }, list.map((route) => row(route, view)))
      : answer?.value && empty(h("p", null, "Alerts go nowhere yet. An administrator says whom they are told to, here or in predis.toml:"),
        command("predis alerts route add room slack --set url=file:slack-url", view)));
}

const row = (route, view) => h("li", { key: route.name },
  pill(route.waiting ? "warn" : route.failed ? "bad" : "good", route.waiting ? `${route.waiting} waiting` : route.failed ? "gave up" : "ok"),
  h("strong", null, route.name),
  h("span", null, route.channel),
  h("span", null, concerns(route)),
  h("span", { class: "note" }, count(route.sent), " sent, ", count(route.failed), " given up"),
  h("span", { class: "note" }, route.origin ? `from ${route.origin}` : `added by ${route.created_by}`),
  h("button", { type: "button", class: "quiet last", "aria-label": `Test ${route.name}`, onclick: () => ask(view, "tryroute", { route }) }, "Test"),
  (route.waiting > 0 || route.failed > 0) && route.error && h("span", { class: "why" }, icon("warn", 14), route.error));

function concerns({ endpoint, kinds, severity, after_s: after }) {
  const what = kinds.length ? kinds.join(", ") : "all kinds";
  return `${what} of ${endpoint || "all endpoints"}, ${severity} and worse${after ? `, after ${span(after)} without anybody` : ""}`;
}

/** Sends a notice for real; stays, and says why, where it was not taken. */
export function tryRouteDialog(view, client) {
  const { route } = asked(view);
  return dialog(view, {
    title: `Send a test notice to ${route.name}?`, action: "Send",
    submit: async () => {
      const { sent, error } = await client.send("POST", `/api/v1/alert-routes/${encodeURIComponent(route.name)}/test`);
      if (!sent) throw new Error(`${route.name} did not take it: ${error}`);
    },
  },
  h("p", null, `Its receiver (${route.channel}) gets a message that says that nothing is wrong. The dialog closes once it has been taken.`));
}

export function outboxPanel(answer, now) {
  const list = answer?.value ?? [];
  const waiting = list.filter(({ state }) => state === "waiting").length;
  return panel("Outbox", { name: "outbox", note: waiting ? `${plural(waiting, "notice")} not taken yet` : list.length ? "nothing waits" : null },
    answer?.error && empty(h("p", null, sentence(answer.error))),
    list.length
      ? h("ul", { class: "rows" }, list.slice(0, SHOWN).map((one) => delivery(one, now)))
      : answer?.value && empty(h("p", null, "Nothing was to be told yet.")));
}

const delivery = (one, now) => h("li", { key: String(one.id) },
  pill(TONES[one.state] ?? "idle", one.state, { title: MEANS[one.state] }),
  h("strong", null, one.route),
  h("span", { class: "wide" }, one.title),
  h("span", { class: "note last" }, one.state === "waiting" && one.attempts > 0 ? next(one, now) : when(one.ended_at ?? one.created_at, now)),
  one.error && h("span", { class: "why" }, icon("warn", 14), one.error));

const next = (one, now) => [`${plural(one.attempts, "try", "tries")} so far, `, parse(one.due_at) > now ? ["next ", when(one.due_at, now)] : "trying"];
