// One endpoint: how it is, who answers, how much and how fast, and how good the answers are.

import { h } from "./dom.js";
import { gap, hue, markText, scoreChart, shareBar, swatch, trafficChart } from "./charts.js";
import {
  clock, count, exact, figure, interval, known, moment, ms, parse,
  period, plural, score, share, short, signed, span, when, withUnit,
} from "./format.js";
import { driftPanel } from "./drift.js";
import { deployButton } from "./deploy.js";
import { to } from "./place.js";
import { rolloutPanel } from "./rollouts.js";
import { retrainingPanel } from "./runs.js";
import { choice, empty, icon, panel, pill, tone } from "./ui.js";

export const anchor = (name) => `endpoint-${encodeURIComponent(name)}`;

export function endpointPart(endpoint, data, view) {
  const own = (list) => (list ?? []).filter((item) => item.endpoint === endpoint.name);
  const rollouts = own(data.rollouts);
  const retrainings = own(data.retrainings);
  return h("article", { class: "endpoint", key: endpoint.name, id: anchor(endpoint.name), "aria-label": `Endpoint ${endpoint.name}` },
    heading(endpoint, { rollouts, retrainings, now: data.at, view }),
    figures(endpoint),
    used(endpoint)
      ? h("div", { class: "grid", key: "charts" },
        trafficPanel(endpoint, data.at, view),
        performancePanel(endpoint, own(data.alerts), view))
      : unused(endpoint),
    versionPanel(endpoint.versions ?? [], data.at),
    used(endpoint) && driftPanel(endpoint, view),
    (used(endpoint) || rollouts.length > 0 || retrainings.length > 0) && h("div", { class: "grid even", key: "runs" },
      rolloutPanel(rollouts, data.at),
      retrainingPanel(retrainings, data.at)));
}

const used = (endpoint) => endpoint.traffic?.requests > 0 || (endpoint.versions ?? []).some((version) => version.performance?.length > 0);

const unused = (endpoint) => panel("Traffic", { name: "traffic" }, empty(
  h("p", null, "No request yet. Send one to the serving port; traffic, performance and drift appear here:"),
  h("p", null, h("code", null, `POST /v2/models/${endpoint.name}/infer`))));

// --- heading ----------------------------------------------------------------------------------------------------------

const HEALTH = { ok: "healthy", degraded: "degraded", down: "down", idle: "idle" };

function heading(endpoint, { rollouts, retrainings, now, view }) {
  const moving = rollouts.find((rollout) => !rollout.ended_at);
  const learning = retrainings.find((run) => !run.ended_at);
  return h("div", { class: "endpoint-head" },
    h("div", { class: "endpoint-name" },
      h("h2", null, endpoint.name),
      pill(tone(endpoint.health), HEALTH[endpoint.health] ?? endpoint.health ?? "not known"),
      h("span", { class: "note" }, "model ", h("a", { href: to.model(endpoint.model) }, endpoint.model)),
      moving && h("span", { class: "chip" }, icon("run", 14), `rollout of v${moving.candidate} ${moving.state}`),
      learning && h("span", { class: "chip" }, icon("run", 14), "retraining"),
      deployButton(endpoint, moving, view)),
    route(endpoint, now));
}

function route(endpoint, now) {
  const weights = Object.entries(endpoint.route?.weights ?? {}).map(([version, weight]) => ({ version: Number(version), weight }))
    .filter(({ weight }) => weight > 0).sort((a, b) => a.version - b.version);
  const total = weights.reduce((sum, { weight }) => sum + weight, 0) || 1;
  const said = weights.map(({ version, weight }) => `v${version} ${share(weight / total)}`);
  if (!weights.length) return h("div", { class: "route" }, h("span", { class: "note" }, "No route yet"));
  return h("div", { class: "route" },
    h("div", { class: "split", role: "img", "aria-label": `Route: ${said.join(", ")}` },
      weights.map(({ version, weight }) => h("span", { key: String(version), class: `hue-${hue(version)}`, style: { "flex-grow": String(weight / total) } }))),
    h("div", { class: "split-labels" },
      weights.map(({ version, weight }) => h("span", { key: String(version), title: `Weight ${exact(weight)}` }, swatch(version), h("strong", null, `v${version}`), ` ${share(weight / total)}`)),
      h("span", { class: "note" }, `route ${endpoint.route.number}, `, when(endpoint.route.created_at, now), endpoint.route.reason && `: ${endpoint.route.reason}`)),
    special(endpoint.route));
}

/** Segments, which are answered by versions of their own, and shadows, which answer nobody. */
function special({ segments, shadows }) {
  const lines = [
    ...(segments ?? []).map(({ when: holds, weights }) => ["where ", h("code", null, holds), ": ", versionsOf(weights)]),
    ...Object.entries(shadows ?? {}).map(([version, part]) => ["copies of ", share(part), " to ", swatch(Number(version)), `v${version}`]),
  ];
  return lines.length > 0 && h("ul", { class: "note" }, lines.map((line, index) => h("li", { key: String(index) }, line)));
}

const versionsOf = (weights) => Object.entries(weights).filter(([, weight]) => weight > 0)
  .map(([version, weight]) => [swatch(Number(version)), `v${version} ${share(weight)} `]);

// --- figures ----------------------------------------------------------------------------------------------------------

function figures(endpoint) {
  const [traffic, latency, labels] = [endpoint.traffic ?? {}, endpoint.latency_ms ?? {}, endpoint.labels ?? {}];
  const feedback = labels.feedback ?? {};
  const failing = recentFailures(traffic);
  return h("dl", { class: "figures" },
    tile("Requests", count(traffic.requests), h("span", null, count(traffic.rows), " rows")),
    tile("Per second", h("span", { title: exact(traffic.per_second) }, short(rounded(traffic.per_second))), "now"),
    tile(failing.label, h("span", { title: exact(failing.share), class: failing.share >= SERIOUS ? "raised" : null }, share(failing.share)),
      h("span", null, count(traffic.failed), " failed, ", count(traffic.rejected), " rejected in all")),
    tile("Latency p50, p95, p99", latencies(latency), "over the last minutes"),
    tile("Label coverage", h("span", { title: exact(labels.coverage) }, share(labels.coverage)),
      shareBar(labels.coverage), h("span", null, count(labels.matured), " of ", count(labels.predictions), " predictions")),
    tile("Label age, median", h("span", { title: `${exact(labels.age_s)} s` }, span(labels.age_s)),
      h("span", null, count(feedback.waiting), " waiting, ", count(feedback.duplicates), " duplicates")));
}

const SERIOUS = 0.01; // from here the share of failures is shown in red; what alerts is up to the server

/** The share of failed requests in the minutes the series covers, or of all when there is no series. */
function recentFailures({ series: points, requests, failed }) {
  const series = points ?? [];
  const total = (name) => series.reduce((sum, point) => sum + point[name], 0);
  if (!(total("requests") > 0)) return { label: "Failed", share: requests > 0 ? failed / requests : null };
  const minutes = Math.max(1, Math.round((series[series.length - 1].at - series[0].at) / 60));
  return { label: `Failed, last ${minutes}\u00a0min`, share: total("failed") / total("requests") };
}

const rounded = (value) => (known(value) && value >= 10 ? Math.round(value) : value);

function tile(label, value, ...notes) {
  return h("div", { class: "tile" }, h("dt", null, label), h("dd", null, h("div", { class: "big" }, value), notes.map((note) => h("div", { class: "note" }, note))));
}

function latencies(latency) {
  const values = [latency.p50, latency.p95, latency.p99];
  if (!values.some(known)) return withUnit(ms(null), "ms");
  const title = `p50 ${exact(values[0])} ms, p95 ${exact(values[1])} ms, p99 ${exact(values[2])} ms`;
  return h("span", { title }, values.map((value, index) => [index > 0 && h("span", { class: "slash" }, " / "), ms(value)]), h("span", { class: "unit" }, "\u00a0ms"));
}

// --- traffic ----------------------------------------------------------------------------------------------------------

function trafficPanel(endpoint, now, view) {
  const series = endpoint.traffic?.series ?? [];
  const key = `traffic ${endpoint.name}`;
  const none = !series.some((point) => point.requests > 0);
  return panel("Traffic", { name: "traffic", note: legend() },
    none
      ? empty(h("p", null, "No request in the last minutes."))
      : trafficChart({
        series, now, size: view.size(key), active: view.get(key), choose: (at) => view.set(key, at),
        readout: ({ point, spacing, open }) => [
          h("strong", null, `${clock(point.at * 1000)} to ${clock((point.at + spacing) * 1000)}`),
          h("div", null, `${exact(point.requests)} requests${open ? " so far" : `, ${short(point.requests / spacing)} per second`}`),
          h("div", null, `${exact(point.failed)} failed`),
        ],
      }),
    !none && h("p", { class: "note caption" }, `Clock time, one bar per ${span(gap(series))}.`));
}

const legend = () => h("span", { class: "legend" },
  h("span", null, h("span", { class: "key served" }), "requests"),
  h("span", null, h("span", { class: "key failed" }), "failed, at the foot"));

// --- performance ------------------------------------------------------------------------------------------------------

const METRICS = {
  auc: { label: "AUC", bounds: [0, 1] },
  ks: { label: "KS", bounds: [0, 1] },
  gini: { label: "Gini", bounds: [-1, 1] },
};

/** The interval of a score. Gini = 2 AUC - 1, so its interval is the AUC's; for KS none is kept. */
function bandOf(record, metric) {
  if (metric === "auc") return { low: record.auc_low, high: record.auc_high };
  if (metric === "gini" && known(record.auc_low) && known(record.auc_high)) return { low: 2 * record.auc_low - 1, high: 2 * record.auc_high - 1 };
  return { low: null, high: null };
}

function lineOf(version, metric) {
  const windows = (version.performance ?? []).filter((window) => known(window[metric]));
  if (!windows.length) return null;
  const points = windows.map((window) => {
    const [first, last] = [parse(window.first_event), parse(window.last_event)];
    return { key: `${version.version}:${window.number}`, version: version.version, at: (first + last) / 2, value: window[metric], ...bandOf(window, metric), window };
  }).filter((point) => Number.isFinite(point.at));
  if (!points.length) return null;
  return {
    version: version.version, points,
    from: Math.min(...windows.map((window) => parse(window.first_event))),
    to: Math.max(...windows.map((window) => parse(window.last_event))),
    reference: known(version.reference?.[metric]) ? { value: version.reference[metric], ...bandOf(version.reference, metric) } : null,
  };
}

function performancePanel(endpoint, alerts, view) {
  const key = `performance ${endpoint.name}`;
  const metric = view.get(`metric ${endpoint.name}`) ?? "auc";
  const versions = [...(endpoint.versions ?? [])].sort((a, b) => a.version - b.version);
  const lines = versions.map((version) => lineOf(version, metric)).filter(Boolean);
  const { label, bounds } = METRICS[metric];
  const shown = Object.entries(METRICS).map(([value, { label: text }]) => [value, text]);
  return panel("Performance on matured labels", { name: "performance", tools: lines.length > 0 && choice(view, `metric ${endpoint.name}`, "Score shown", shown, metric) },
    lines.length
      ? scoreChart({
        name: label, lines, bounds, marks: alertMarks(alerts), size: view.size(key),
        active: view.get(key), choose: (point) => view.set(key, point), readout: windowReadout,
      })
      : empty(h("p", null, noLabels(endpoint.labels))),
    lines.length > 0 && h("p", { class: "note caption" }, caption(metric, lines, alerts)));
}

const alertMarks = (alerts) => alerts.filter((alert) => alert.event_at).slice(0, 20)
  .map((alert) => markText(parse(alert.event_at), `${alert.severity}: ${alert.message}`));

function caption(metric, lines, alerts) {
  const from = Math.min(...lines.map((line) => line.from));
  const to = Math.max(...lines.map((line) => line.to));
  const bands = metric === "ks" ? "" : " Shaded: confidence interval.";
  const flags = alerts.some((alert) => parse(alert.event_at) >= from && parse(alert.event_at) <= to) ? " Triangles: alerts." : "";
  return `Event time ${period(from, to)}. One point per window of labelled predictions.${bands} Dashed: reference from training.${flags}`;
}

function noLabels(labels) {
  if (!(labels?.predictions > 0)) return "No prediction yet, so nothing to judge.";
  const waiting = `${plural(labels.predictions, "prediction")}, ${short(labels.matured ?? 0)} with a label.`;
  return `${waiting} The first point appears when a window of labelled predictions is full. Send labels as feedback, with the id of their prediction.`;
}

function windowReadout({ version, window }) {
  const rows = [
    ["AUC", score(window.auc), interval(window.auc_low, window.auc_high)],
    ["KS", score(window.ks)],
    ["Gini", score(window.gini)],
    ["Rows", exact(window.rows), `${exact(window.positives)} positive`],
    ["Labels", share(window.coverage), `age ${span(window.label_age_s)}`],
  ];
  return [
    h("strong", null, swatch(version), `v${version}, window ${window.number}`),
    h("div", { class: "note" }, period(parse(window.first_event), parse(window.last_event))),
    h("table", null, h("tbody", null, rows.map(([name, value, more]) => h("tr", null, h("th", { scope: "row" }, name), h("td", null, value), h("td", { class: "note" }, more))))),
  ];
}

const HEADS = ["Version", "AUC, last window", "Reference AUC", "KS", "Gini", "Share", "Rows", "Labelled", "Made"];

function versionPanel(versions, now) {
  if (!versions.length) return null;
  const newest = [...versions].sort((a, b) => b.version - a.version);
  return panel("Versions", { name: "versions-panel" },
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of versions" },
      h("table", { class: "versions" },
        h("thead", null, h("tr", null, HEADS.map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", null, newest.map((version) => versionRow(version, now))))));
}

function versionRow(version, now) {
  const windows = version.performance ?? [];
  const last = windows[windows.length - 1] ?? {};
  const reference = version.reference ?? {};
  const change = known(last.auc) && known(reference.auc) ? last.auc - reference.auc : null;
  return h("tr", { key: String(version.version) },
    h("th", { scope: "row" }, swatch(version.version), `v${version.version} `, h("span", { class: "role" }, version.role)),
    h("td", { title: known(last.auc) ? `${exact(last.auc)}, interval ${interval(last.auc_low, last.auc_high) ?? "not known"}` : null },
      h("strong", null, score(last.auc)), known(change) && h("span", { class: "note" }, ` ${signed(change)}`)),
    h("td", { title: interval(reference.auc_low, reference.auc_high) && `Interval ${interval(reference.auc_low, reference.auc_high)}` }, score(reference.auc)),
    h("td", null, figure(last.ks)),
    h("td", null, figure(last.gini)),
    h("td", null, share(version.weight)),
    h("td", null, count(version.rows)),
    h("td", null, count(version.matured)),
    h("td", { title: `${moment(parse(version.created_at))}, ${version.format}` }, when(version.created_at, now), h("span", { class: "note" }, ` ${version.format ?? ""}`)));
}
