// The pieces every panel is made of.

import { h } from "./dom.js";

const ICONS = {
  good: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13ZM4.8 8.2l2.2 2.2l4.2-4.6",
  warn: "M8 1.8L15 14H1ZM8 6v4M8 11.6v.6",
  bad: "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3ZM8 4.5v4.5M8 11v.6",
  info: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13ZM8 7.2v4.3M8 4.6v.6",
  idle: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13ZM5 8h6",
  run: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13ZM6.4 5.2v5.6L11 8Z",
  arrow: "M3 8h10M9 4l4 4l-4 4",
  tick: "M3.5 8.5l3 3l6-7",
  cross: "M4 4l8 8M12 4l-8 8",
};

export const icon = (name, size = 16) =>
  h("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", width: size, height: size, "aria-hidden": "true" },
    h("path", { d: ICONS[name] ?? ICONS.info }));

/** A word with a tone (good, warn, bad, info, idle, run) and its icon. */
export const pill = (tone, text, props) =>
  h("span", { ...props, class: `pill ${tone}` }, icon(tone, 14), h("span", null, text));

/** The tone of a state's name; a name not known here is neutral. */
const TONES = {
  ok: "good", degraded: "warn", down: "bad", idle: "idle",
  warming: "run", running: "run", rolling_out: "run", holding: "run", waiting: "warn", paused: "warn",
  promoted: "good", concluded: "good", aborted: "bad", failed: "bad", rejected: "idle",
  pass: "good", hold: "run", fail: "bad",
};
export const tone = (state) => TONES[state] ?? "idle";

/** An identifier as words: build_set -> build set. */
export const words = (name) => String(name ?? "").replace(/[_-]+/g, " ");

/** Text of the server: what stands between backticks is code. */
export const prose = (text) => String(text ?? "").split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));

/** One line of shell with a button that copies it. */
export function command(text, view) {
  const key = `copy ${text}`;
  const copied = view.get(key);
  return h("div", { class: "command" },
    h("code", { tabindex: 0 }, text),
    h("button", { type: "button", class: "quiet", "aria-label": `Copy ${text}`, onclick: (event) => copy(event.currentTarget, text, view, key) },
      h("span", { "aria-live": "polite" }, copied ?? "Copy")));
}

async function copy(button, text, view, key) {
  const done = (await written(text)) || chosen(button.previousSibling);
  view.set(key, done ? "Copied" : "Press Ctrl+C");
  setTimeout(() => view.set(key, undefined), 1600);
}

// The clipboard is granted to secure pages only, and the console may be read over plain HTTP.
async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function chosen(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand("copy");
}

/** A small switch: one of `options` [value, label], remembered in the view under `key`. */
export function choice(view, key, legend, options, chosenValue) {
  return h("fieldset", { class: "choice" },
    h("legend", { class: "unseen" }, legend),
    options.map(([value, label]) =>
      h("label", { key: String(value) },
        h("input", { type: "radio", name: key, value: String(value), checked: value === chosenValue, onchange: () => view.set(key, value) }),
        h("span", null, label))));
}

/** Steps of a run. Each { label, state: done | current | failed | todo, note }. */
const SAID = { done: "done", current: "now", failed: "stopped here", todo: "to come" };
export function stepper(steps) {
  return h("ol", { class: "stepper" }, steps.map((step) =>
    h("li", { class: step.state, "aria-current": step.state === "current" ? "step" : null },
      h("span", { class: "dot" }, step.state === "done" && icon("tick", 12), step.state === "failed" && icon("cross", 12)),
      h("span", { class: "label" }, step.label),
      h("span", { class: "unseen" }, ` (${SAID[step.state]})`))));
}

export const empty = (...content) => h("div", { class: "empty", key: "empty" }, ...content);

export function panel(title, { tools, name, note } = {}, ...content) {
  return h("section", { class: `panel ${name ?? ""}`, "aria-label": title },
    h("div", { class: "panel-head" }, h("h3", null, title), note && h("span", { class: "note" }, note), tools),
    ...content);
}

/** A table that scrolls by itself where the page is too narrow. Heads are texts, or [text, class]. */
export const table = (label, heads, rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
  h("table", { class: "plain" },
    h("thead", null, h("tr", null, heads.map((head) => [head].flat()).map(([head, kind]) => h("th", { scope: "col", class: kind }, head)))),
    h("tbody", null, rows)));

/** A figure in a list of figures: its name, the figure, what it is of. */
export const tile = (title, big, note) => h("div", { class: "tile" }, h("dt", null, title), h("dd", { class: "big" }, big), h("dd", { class: "note" }, note));

/** A part of the page that cannot be drawn says so and leaves the others alone. */
export function guarded(what, make) {
  try {
    return make();
  } catch (error) {
    console.error(error);
    return h("section", { class: "panel" }, empty(`${what} could not be drawn: ${error.message}`));
  }
}
