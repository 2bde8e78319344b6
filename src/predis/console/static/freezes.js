// Freeze windows: when nothing goes forward. Which are open, which come, and how to make and end one.

import { h } from "./dom.js";
import { ask, asked, dialog, fill, radioField, selectField, textField } from "./dialog.js";
import { parse, when } from "./format.js";
import { empty, panel, pill } from "./ui.js";

export function freezePanel(answer, data, view) {
  const list = [...(answer?.value ?? [])].sort((a, b) => Number(b.open) - Number(a.open));
  const add = h("button", { type: "button", onclick: () => ask(view, "freeze", { draft: { kind: "weekly", weekly: "fri 16:00-mon 06:00", zone: zone() } }) }, "Add a freeze");
  return panel("Freeze windows", { name: "freezes", tools: add, note: "Rollouts do not go forward in them. They still turn back, and people may still stop them." },
    answer?.error && empty(h("p", null, answer.error)),
    list.length
      ? h("ul", { class: "rows" }, list.map((freeze) => row(freeze, data.at, view)))
      : answer?.value && empty(h("p", null, "No freeze window. Rollouts go forward at any time.")));
}

const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";

const row = (freeze, now, view) => h("li", { key: String(freeze.id) },
  freeze.open ? pill("warn", "open now") : pill("idle", parse(freeze.ends_at) < now ? "over" : "not open"),
  h("strong", null, freeze.endpoint || "all endpoints"),
  h("span", null, time(freeze, now)),
  freeze.reason && h("span", null, freeze.reason),
  h("span", { class: "note" }, `by ${freeze.created_by}`),
  h("button", { type: "button", class: "quiet last", "aria-label": `Remove freeze ${freeze.id}`, onclick: () => ask(view, "unfreeze", { freeze }) }, "Remove"));

function time({ weekly, zone: where, starts_at: from, ends_at: to, open, until }, now) {
  if (weekly) return [`every week ${weekly}, ${where}`, open && until && [", this time until ", when(until, now)]];
  const start = from && parse(from) > now ? ["from ", when(from, now)] : "since it was made";
  return [start, to ? [", until ", when(to, now)] : ", until it is removed"];
}

const KINDS = { weekly: "the same days and hours each week", once: "from one moment to another" };

export function freezeDialog(view, client, data) {
  const { draft } = asked(view);
  const endpoints = (data?.endpoints ?? []).map(({ name }) => [name, name]);
  return dialog(view, {
    title: "Add a freeze window", action: "Add",
    submit: async () => {
      await client.send("POST", "/api/v1/freezes", bodyOf(draft));
    },
  },
  selectField(view, "endpoint", "Endpoint", [["", "all endpoints"], ...endpoints]),
  radioField(view, "kind", "When", KINDS),
  draft.kind === "weekly"
    ? [textField(view, "weekly", "Each week", { hint: "Such as fri 16:00-mon 06:00." }), textField(view, "zone", "Time zone", { hint: "Such as UTC or Europe/Zurich." })]
    : [moments(view, "starts", "From", "Empty: from now on."), moments(view, "ends", "Until", "Empty: until it is removed.")],
  textField(view, "reason", "Reason", { hint: "Shown to everybody whom the freeze stops.", maxlength: 1000 }));
}

const moments = (view, name, label, hint) => h("div", { class: "field", key: name },
  h("label", { for: `field-${name}` }, label),
  h("input", { id: `field-${name}`, type: "datetime-local", value: asked(view).draft[name] ?? "", oninput: (event) => fill(view, name, event.currentTarget.value) }),
  h("p", { class: "note" }, `${hint} Your local time.`));

function bodyOf(draft) {
  const common = { endpoint: draft.endpoint ?? "", reason: draft.reason ?? "" };
  if (draft.kind === "weekly") return { ...common, weekly: draft.weekly, zone: draft.zone || "UTC" };
  const seconds = (text) => (text ? new Date(text).getTime() / 1000 : null);
  // Without any moment it would be no window: then it begins now.
  return { ...common, starts_at: seconds(draft.starts) ?? Date.now() / 1000, ends_at: seconds(draft.ends) };
}

export function unfreezeDialog(view, client) {
  const { freeze } = asked(view);
  return dialog(view, {
    title: `Remove freeze ${freeze.id}?`, action: "Remove", serious: true,
    submit: async () => {
      await client.send("DELETE", `/api/v1/freezes/${freeze.id}`);
    },
  },
  h("p", null, `Rollouts of ${freeze.endpoint || "all endpoints"} go forward again${freeze.open ? " at once" : ""}, unless another window stops them.`));
}
