// What is asked back before something is changed: one dialog at a time, kept in the view, with what was typed so far.

import { h } from "./dom.js";
import { icon } from "./ui.js";

const OPEN = "dialog";

/** Ask. `draft` holds what can be filled in; `extra` is whatever the dialog needs to know. */
export const ask = (view, kind, { draft = {}, ...extra } = {}) => view.set(OPEN, { kind, draft, error: null, busy: false, ...extra });

export const asked = (view) => view.get(OPEN);

export const fill = (view, name, value) => change(view, (open) => ({ draft: { ...open.draft, [name]: value } }));

/** Close it: the focus goes back to where it came from. */
export const close = () => document.querySelector("dialog[open]")?.close();

function change(view, make) {
  const open = asked(view);
  if (open) view.set(OPEN, { ...open, ...make(open) });
}

/** Do what was asked, and close; or stay, and say why it could not be done. */
async function carryOut(view, work) {
  if (asked(view)?.busy) return;
  change(view, () => ({ busy: true, error: null }));
  try {
    const done = await work();
    close();
    done?.();
  } catch (error) {
    change(view, () => ({ busy: false, error }));
  }
}

/** A dialog: what it is called, what it says, what its button says and does. `serious` makes the button red. */
export function dialog(view, { title, action, serious, wide, submit }, ...content) {
  const { error, busy, kind } = asked(view);
  return h("dialog", {
    key: `dialog ${kind}`, class: wide ? "wide" : null, "aria-label": title,
    ref: (element) => queueMicrotask(() => element.showModal()),
    onclose: () => view.set(OPEN, undefined),
  },
  h("form", {
    method: "dialog",
    onsubmit: (event) => {
      event.preventDefault();
      carryOut(view, submit);
    },
  },
  h("h2", { tabindex: -1, autofocus: wide }, title),
  ...content,
  h("div", { role: "alert" }, error && h("p", { class: "outcome bad" }, icon("bad", 16), h("span", null, error.message))),
  h("div", { class: "buttons" },
    h("button", { type: "button", onclick: close }, "Cancel"),
    h("button", { type: "submit", class: serious ? "serious" : "primary", disabled: busy }, busy ? "Asking…" : action))));
}

/** A line to type in. `hint` says what for. */
export function textField(view, name, label, { hint, ...props } = {}) {
  const id = `field-${name}`;
  return h("div", { class: "field", key: name },
    h("label", { for: id }, label),
    h("input", {
      id, type: "text", autocomplete: "off", ...props, value: asked(view).draft[name] ?? "",
      "aria-describedby": hint ? `${id}-hint` : null, oninput: (event) => fill(view, name, event.currentTarget.value),
    }),
    hint && h("p", { class: "note", id: `${id}-hint` }, hint));
}

/** A yes or no. */
export const checkField = (view, name, label) => h("label", { class: "check", key: name },
  h("input", { type: "checkbox", checked: Boolean(asked(view).draft[name]), onchange: (event) => fill(view, name, event.currentTarget.checked) }),
  h("span", null, label));

/** One of several, { value: what it means }. */
export const radioField = (view, name, legend, options) => h("fieldset", { class: "radios", key: name },
  h("legend", null, legend),
  Object.entries(options).map(([value, meaning]) => h("label", { key: value },
    h("input", { type: "radio", name, value, checked: asked(view).draft[name] === value, onchange: () => fill(view, name, value) }),
    h("span", null, h("strong", null, value), h("span", { class: "note" }, meaning)))));

/** One of many: [value, label]. */
export const selectField = (view, name, label, options) => h("div", { class: "field", key: name },
  h("label", { for: `field-${name}` }, label),
  h("select", { id: `field-${name}`, onchange: (event) => fill(view, name, event.currentTarget.value) },
    options.map(([value, text]) => h("option", { key: value, value, selected: asked(view).draft[name] === value }, text))));

/** Where a freeze was in the way: whether to go ahead all the same. */
export const overFreeze = (view) => (asked(view).error?.code === "change_frozen" || asked(view).draft.override_freeze) && h("div", { class: "field", key: "override" },
  checkField(view, "override_freeze", "Override the freeze; only an administrator's key may"));
