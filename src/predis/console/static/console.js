// The console: the page that the address names, drawn anew from each answer. What the reader chose (the view) is kept beside the data.

import { alertPart } from "./alerts.js";
import { cachePage, cacheWants } from "./cache.js";
import { Client } from "./client.js";
import { deployDialog, deployWants } from "./deploy.js";
import { asked, close } from "./dialog.js";
import { draw, h } from "./dom.js";
import { endpointPart } from "./endpoint.js";
import { parse } from "./format.js";
import { freezeDialog, unfreezeDialog } from "./freezes.js";
import { acknowledgeDialog, alertsPage, alertsWants } from "./incidents.js";
import { modelPage, modelsPage, modelsWants, modelWants } from "./models.js";
import { place } from "./place.js";
import { tryRouteDialog } from "./receivers.js";
import { rolloutPage, rolloutWants } from "./rollout.js";
import { rolloutPanel, rolloutsPage, rolloutsWants } from "./rollouts.js";
import { retrainingPanel } from "./runs.js";
import { silenceDialog, unsilenceDialog } from "./silences.js";
import { banner, contents, footer, header, keyForm, title } from "./system.js";
import { command, empty, guarded } from "./ui.js";
import { wishDialog } from "./wishes.js";

/** What the reader chose, and how wide each chart is. A change draws the page again, once per frame. */
class View {
  #values = new Map();
  #sizes = new Map();
  #asked = false;
  #observer = new ResizeObserver((entries) => entries.forEach(({ target }) => this.#measure(target)));
  #names = new WeakMap();

  constructor(render) {
    this.render = render;
  }

  get(key) {
    return this.#values.get(key);
  }

  set(key, value) {
    if (this.#values.get(key) === value) return;
    this.#values.set(key, value);
    this.ask();
  }

  /** The measured width of a chart, and the `ref` its box must carry to be measured. */
  size(name) {
    return {
      width: this.#sizes.get(name) ?? 560,
      ref: (box) => {
        this.#names.set(box, name);
        this.#observer.observe(box);
      },
    };
  }

  #measure(box) {
    const width = Math.floor(box.clientWidth);
    const name = this.#names.get(box);
    if (!box.isConnected) this.#observer.unobserve(box);
    else if (width > 0 && this.#sizes.get(name) !== width) {
      this.#sizes.set(name, width);
      this.ask();
    }
  }

  ask() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.render();
    });
  }
}

// What each page asks for beside the overview, and how it is drawn.
const PAGES = {
  overview: { wants: () => ({}), draw: (_place, data) => overview(data) },
  alerts: { wants: alertsWants, draw: (_place, data, answers) => alertsPage(data, answers, view) },
  rollouts: { wants: rolloutsWants, draw: (_place, data, answers) => rolloutsPage(data, answers, view) },
  rollout: { wants: rolloutWants, draw: (_place, data, answers) => rolloutPage(data, answers, view) },
  models: { wants: modelsWants, draw: (_place, data, answers) => modelsPage(data, answers, view) },
  model: { wants: modelWants, draw: (where, data, answers) => modelPage(where, data, answers, view) },
  cache: { wants: cacheWants, draw: (_place, data, answers) => cachePage(data, answers, view) },
};
const DIALOGS = {
  acknowledge: { draw: () => acknowledgeDialog(view, client) },
  silence: { draw: () => silenceDialog(view, client) },
  unsilence: { draw: () => unsilenceDialog(view, client) },
  tryroute: { draw: () => tryRouteDialog(view, client) },
  wish: { draw: () => wishDialog(view, client) },
  freeze: { draw: (data) => freezeDialog(view, client, data) },
  unfreeze: { draw: () => unfreezeDialog(view, client) },
  deploy: { wants: deployWants, draw: (_data, answers) => deployDialog(view, client, answers) },
};

const state = { data: null, at: 0, lost: null, locked: null, receivedAt: 0 };
const view = new View(render);
const client = new Client({
  wants: () => ({ ...PAGES[place().page].wants(place()), ...DIALOGS[asked(view)?.kind]?.wants?.(asked(view)) }),
  seen: (overview) => show({ data: overview, at: parse(overview.now), receivedAt: performance.now(), lost: null, locked: null }),
  lost: (reason, pause) => show({ lost: { reason, pause } }),
  locked: (reason) => show({ data: null, lost: null, locked: { reason } }),
});

function show(change) {
  Object.assign(state, change);
  view.ask();
}

/** The overview with the server's clock in milliseconds: `at` runs on while nothing arrives, `at0` is the overview's own. */
function current() {
  if (!state.data) return null;
  return { ...state.data, at0: state.at, at: state.at + performance.now() - state.receivedAt };
}

let opened; // the kind of dialog that is open

function render() {
  const data = current();
  if (asked(view)?.kind !== opened) {
    opened = asked(view)?.kind;
    client.wake(); // it may want documents of its own
  }
  draw(document.getElementById("app"),
    header({ data, lost: state.lost, locked: state.locked, client }),
    banner({ lost: state.lost, data }),
    h("main", { id: "main", tabindex: -1, class: state.lost ? "stale" : null }, content(data)),
    data && asked(view) && DIALOGS[asked(view).kind].draw(data, client.page()));
  if (data) document.title = title(data, (data.alerts ?? []).filter((alert) => alert.state === "open"));
}

function content(data) {
  if (state.locked) return keyForm({ reason: state.locked.reason, client });
  if (!data) return empty(h("p", null, state.lost ? "No data yet." : "Connecting to the control process."));
  const where = place();
  return guarded("The page", () => PAGES[where.page].draw(where, data, client.page()));
}

function overview(data) {
  const endpoints = data.endpoints ?? [];
  return [
    guarded("Alerts", () => alertPart(data, view)),
    contents(endpoints),
    endpoints.length ? endpoints.map((endpoint) => guarded(endpoint.name, () => endpointPart(endpoint, data, view))) : first(),
    guarded("Other runs", () => orphans(data, endpoints)),
    guarded("Workers", () => footer(data)),
  ];
}

const first = () => empty(
  h("h2", null, "No endpoint yet"),
  h("p", null, "Create one, and its traffic, performance and drift appear here:"),
  command("predis endpoint create NAME --model M --version 1", view));

/** Runs of endpoints that are gone: still worth a look. */
function orphans(data, endpoints) {
  const gone = (run) => !endpoints.some((endpoint) => endpoint.name === run.endpoint);
  const rollouts = (data.rollouts ?? []).filter(gone);
  const retrainings = (data.retrainings ?? []).filter(gone);
  if (!rollouts.length && !retrainings.length) return null;
  return h("article", { class: "endpoint" },
    h("div", { class: "endpoint-head" }, h("h2", null, "Endpoints that are gone")),
    h("div", { class: "grid even" }, rollouts.length > 0 && rolloutPanel(rollouts, data.at), retrainings.length > 0 && retrainingPanel(retrainings, data.at)));
}

window.addEventListener("hashchange", () => {
  close();
  view.ask();
  client.wake();
  if (place().page !== "overview") scrollTo(0, 0);
});
render();
client.start();
