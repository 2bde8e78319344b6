// Charts as SVG, drawn in CSS pixels at the width they are given, so that text keeps its size on every screen.
// Colour comes from the class `hue-N` of a version; a marker shape and a label always say the same without colour.

import { h } from "./dom.js";
import { known, moment, share, score, short, small } from "./format.js";

const CHARACTER = 6.8; // width of one at 12 px, rounded up: labels are placed without measuring

// --- scales and ticks -------------------------------------------------------------------------------------------------

/** A linear map from [from, to] to [start, end] pixels. */
export const scale = (from, to, start, end) => (value) => start + ((value - from) / (to - from || 1)) * (end - start);

/** At most about `wanted` round numbers that cover low to high, and the digits they need. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const values = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) values.push(index * step);
  return { values, step, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const SECOND = 1e3, MINUTE = 60e3, HOUR = 3600e3, DAY = 86400e3;
const TIME_STEPS = [
  ...[1, 2, 5, 10, 15, 30].map((count) => count * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR),
  ...[1, 2, 4, 7, 14].map((count) => count * DAY),
];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60, 120];

const asSecond = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const asMinute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const asDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const asMonth = new Intl.DateTimeFormat("en-GB", { month: "short" });
const asYear = new Intl.DateTimeFormat("en-GB", { year: "numeric" });

/** Moments where a person would put a tick, in local time, each with its label. */
export function timeTicks(from, to, wanted) {
  const rough = (to - from) / Math.max(1, wanted);
  const step = TIME_STEPS.find((size) => size >= rough);
  if (step === undefined) return monthTicks(from, to, rough);
  const result = [];
  const start = new Date(from);
  start.setHours(0, 0, 0, 0);
  const first = start.getTime() + Math.floor((from - start.getTime()) / step) * step;
  for (let at = first; at <= to; at += step) {
    // Days are counted on the calendar: a day of 23 or 25 hours must not shift the ticks after it.
    const mark = step >= DAY ? new Date(at + DAY / 2).setHours(0, 0, 0, 0) : at;
    if (mark >= from && mark <= to) result.push({ at: mark, text: timeLabel(mark, step) });
  }
  return result;
}

function timeLabel(at, step) {
  if (step >= DAY) return asDay.format(at);
  const midnight = new Date(at).getHours() === 0 && new Date(at).getMinutes() === 0;
  if (midnight && step >= HOUR) return asDay.format(at);
  return (step < MINUTE ? asSecond : asMinute).format(at);
}

function monthTicks(from, to, rough) {
  const step = MONTH_STEPS.find((count) => count * 30.4 * DAY >= rough) ?? 120;
  const first = new Date(from);
  const result = [];
  let index = Math.floor((first.getFullYear() * 12 + first.getMonth()) / step) * step;
  for (; ; index += step) {
    const at = new Date(Math.floor(index / 12), index % 12, 1);
    if (at.getTime() > to) return result;
    const text = at.getMonth() === 0 ? asYear.format(at) : asMonth.format(at);
    if (at.getTime() >= from) result.push({ at: at.getTime(), text });
  }
}

// --- the frame of a chart ---------------------------------------------------------------------------------------------

export const HEIGHT = 240;
const NARROW = 480; // below this a readout stands under the chart, as beside the point it would hide it
export const MARGIN = { top: 26, right: 16, bottom: 26, left: 46 };

export function frame({ width, x, y, low, high, wanted, from, to, unit, text }) {
  const bottom = HEIGHT - MARGIN.bottom;
  const across = ticks(low, high, wanted);
  const along = timeTicks(from, to, Math.max(2, Math.floor((width - MARGIN.left) / 84)));
  const fits = ({ at, text: label }) => Math.abs(x(at)) + (label.length * CHARACTER) / 2 < width;
  return [
    across.values.map((value) =>
      h("g", { class: "tick" },
        h("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        h("text", { x: MARGIN.left - 8, y: y(value), dy: "0.35em", "text-anchor": "end" }, text(value, across.digits)))),
    h("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
    along.filter(fits).map(({ at, text: label }) =>
      h("g", { class: "tick" },
        h("line", { class: "axis", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4 }),
        h("text", { x: x(at), y: bottom + 18, "text-anchor": "middle" }, label))),
    h("text", { class: "unit", x: 4, y: 12 }, unit),
  ];
}

/** A chart's box: measured for its width, with a readout that follows pointer and arrow keys. */
export function plot({ label, size, stops, active, choose, readout }, ...marks) {
  const at = stops.findIndex((stop) => stop.key === active);
  const stop = stops[at];
  const go = (index) => choose(stops[Math.max(0, Math.min(stops.length - 1, index))]?.key ?? null);
  const keys = {
    ArrowLeft: () => go(at < 0 ? stops.length - 1 : at - 1),
    ArrowRight: () => go(at < 0 ? stops.length - 1 : at + 1),
    Home: () => go(0),
    End: () => go(stops.length - 1),
    Escape: () => choose(null),
  };
  const docked = size.width < NARROW;
  const flip = stop && stop.x > size.width / 2;
  return h("div", {
    class: "plot", key: "plot", tabindex: 0, role: "group", "aria-label": `${label}. Left and right arrow keys read the figures.`,
    ref: size.ref,
    onpointermove: (event) => choose(nearest(event, stops)),
    onpointerdown: (event) => choose(nearest(event, stops)),
    onpointerleave: (event) => event.pointerType === "mouse" && choose(null),
    onblur: () => choose(null),
    onkeydown: (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    },
  },
  h("svg", { viewBox: `0 0 ${size.width} ${HEIGHT}`, width: size.width, height: HEIGHT, "aria-hidden": "true" }, ...marks),
  h("div", {
    class: `readout${stop ? "" : " away"}${docked ? " docked" : ""}`, "aria-live": "polite",
    style: stop && !docked
      ? { [flip ? "right" : "left"]: `${flip ? size.width - stop.x + 12 : stop.x + 12}px`, top: `${MARGIN.top}px` }
      : {},
  }, stop && readout(stop)));
}

function nearest(event, stops) {
  const box = event.currentTarget.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = null;
  let least = Infinity;
  for (const stop of stops) {
    const far = Math.abs(stop.x - x) + Math.abs(stop.y - y) * 0.2; // time leads, height only parts what is close
    if (far < least) [best, least] = [stop.key, far];
  }
  return best;
}

// --- traffic ----------------------------------------------------------------------------------------------------------

const POINTS = 60;

/** Requests per second over time as bars, failed ones dark at the foot. `now` in milliseconds. */
export function trafficChart({ series, now, size, active, choose, readout }) {
  const spacing = gap(series);
  const last = series[series.length - 1].at + spacing;
  const stale = now / 1000 - last > POINTS * spacing;
  const to = (stale ? last : Math.max(last, now / 1000)) * 1000;
  const from = to - POINTS * spacing * 1000;
  const seen = series.filter((point) => point.at * 1000 >= from - 1);
  const most = Math.max(...seen.map((point) => point.requests / spacing), 0.001);
  const high = ticks(0, most, 4).step * Math.ceil((most / ticks(0, most, 4).step) * 1.0001);
  const x = scale(from, to, MARGIN.left, size.width - MARGIN.right);
  const y = scale(0, high, HEIGHT - MARGIN.bottom, MARGIN.top);
  const stops = seen.map((point) => ({
    key: point.at, point, spacing, x: x((point.at + spacing / 2) * 1000), y: y(point.requests / spacing),
    open: (point.at + spacing) * 1000 > now,
  }));
  const wide = Math.max(1, x(spacing * 1000) - x(0) - 1.5);
  return plot({ label: "Requests per second over the last minutes", size, stops, active, choose, readout },
    frame({
      width: size.width, x, y, low: 0, high, wanted: 4, from, to, unit: "requests per second",
      text: (value, digits) => (digits ? value.toFixed(digits) : short(value)),
    }),
    stops.map((stop) => bar(stop, { y, wide, active })));
}

function bar({ key, point, spacing, x, open }, { y, wide, active }) {
  const foot = HEIGHT - MARGIN.bottom;
  const top = y(point.requests / spacing);
  const failed = Math.min(top === foot ? 0 : foot - top, Math.max(point.failed > 0 ? 2 : 0, foot - y(point.failed / spacing)));
  const left = x - wide / 2;
  return h("g", { key: String(key), class: `bar${open ? " open" : ""}${key === active ? " active" : ""}` },
    h("rect", { class: "served", x: left, width: wide, y: top, height: Math.max(0, foot - top) }),
    failed > 0 && h("rect", { class: "failed", x: left, width: wide, y: foot - failed, height: failed }));
}

/** Seconds between two points: the median, as a missing point must not stretch the rest. */
export function gap(series) {
  const steps = series.slice(1).map((point, index) => point.at - series[index].at).filter((step) => step > 0);
  return steps.length ? steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] : 5;
}

// --- performance ------------------------------------------------------------------------------------------------------

/**
 * A score over event time. `lines`: per version { version, points: [{ key, at, value, low, high }], from, to, reference:
 * { value, low, high } | null }, newest version last; `marks`: moments to point out, { at, text }.
 */
export function scoreChart({ name, lines, marks, bounds, size, active, choose, readout }) {
  const all = lines.flatMap((line) => line.points);
  const [from, to] = padded(Math.min(...lines.map((line) => line.from)), Math.max(...lines.map((line) => line.to)));
  const [low, high] = limits(lines, bounds);
  const x = scale(from, to, MARGIN.left, size.width - MARGIN.right - 18);
  const y = scale(low, high, HEIGHT - MARGIN.bottom, MARGIN.top);
  const stops = all.map((point) => ({ ...point, x: x(point.at), y: y(point.value) })).sort((a, b) => a.x - b.x);
  const place = placer({ left: MARGIN.left, right: size.width, top: MARGIN.top - 8, bottom: HEIGHT - MARGIN.bottom }, lines.flatMap((line) => trace(line, x, y)));
  const ends = lines.map((line) => endLabel(line, { x, y, place }));
  const crowded = all.length > size.width / 5;
  const stop = stops.find((one) => one.key === active);
  return plot({ label: `${name} over event time`, size, stops, active, choose, readout },
    frame({ width: size.width, x, y, low, high, wanted: 6, from, to, unit: name, text: (value, digits) => value.toFixed(Math.max(2, digits)) }),
    marks.filter(({ at }) => at >= from && at <= to).map((mark) => flag(mark, x(mark.at))),
    lines.map((line) => line.reference && reference(line, { x, y, place })),
    lines.map((line) => band(line, { x, y })),
    lines.map((line) => course(line, { x, y, crowded })),
    ends,
    stop && h("line", { class: "cursor", x1: stop.x, x2: stop.x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
    stop && h("g", { class: `hue-${hue(stop.version)}` }, marker(stop.version, stop.x, stop.y, 6)));
}

export const hue = (version) => ((version % 6) + 6) % 6;

function padded(from, to) {
  const pad = (to - from) * 0.02 || HOUR;
  return [from - pad, to + pad];
}

/** The heights worth showing: all values, references and bands, but a wild band of a tiny window may leave the picture. */
function limits(lines, bounds) {
  const values = lines.flatMap((line) => [...line.points.map((point) => point.value), line.reference?.value]).filter(known);
  const edges = lines.flatMap((line) => [...line.points, line.reference ?? {}].flatMap(({ low, high }) => [low, high]));
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const reach = Math.max(most - least, 0.03) * 1.5;
  const near = edges.filter((edge) => known(edge) && edge > least - reach && edge < most + reach);
  const [low, high] = [Math.min(least, ...near), Math.max(most, ...near)];
  const pad = Math.max((high - low) * 0.08, 0.01 - (high - low) / 2, 0.002);
  return [Math.max(bounds[0], low - pad), Math.min(bounds[1], high + pad)];
}

function course(line, { x, y, crowded }) {
  const path = line.points.map((point, index) => `${index ? "L" : "M"}${x(point.at)} ${y(point.value)}`).join("");
  return h("g", { class: `hue-${hue(line.version)}` },
    h("path", { class: "course", d: path }),
    !crowded && line.points.map((point) => marker(line.version, x(point.at), y(point.value), 3.5)));
}

/** The confidence band; whiskers where there is only one window. */
function band(line, { x, y }) {
  const points = line.points.filter((point) => known(point.low) && known(point.high));
  const [top, foot] = [MARGIN.top - 6, HEIGHT - MARGIN.bottom];
  const inside = (value) => Math.max(top, Math.min(foot, y(value)));
  if (points.length === 1) {
    const [at, low, high] = [x(points[0].at), inside(points[0].low), inside(points[0].high)];
    return h("path", { class: `whisker hue-${hue(line.version)}`, d: `M${at} ${low}V${high}M${at - 4} ${low}h8M${at - 4} ${high}h8` });
  }
  if (!points.length) return null;
  const upper = points.map((point) => `${x(point.at)} ${inside(point.high)}`);
  const lower = points.map((point) => `${x(point.at)} ${inside(point.low)}`).reverse();
  return h("path", { class: `band hue-${hue(line.version)}`, d: `M${[...upper, ...lower].join("L")}Z` });
}

/** What the version scored when it was made: a dashed line with its band, over the time the version was judged in. */
function reference(line, { x, y, place }) {
  const { value, low, high } = line.reference;
  const left = x(line.from);
  const right = Math.max(x(line.to), left + 36);
  const text = `v${line.version} reference ${score(value)}`;
  const wide = text.length * CHARACTER;
  const free = [...[0, 1, 0.5, 0.25, 0.75, 0.12, 0.88].map((part) => left + 4 + part * (right - left - wide - 4)), left - wide - 4];
  const label = place(text, free.flatMap((at) => [-6, 15].map((offset) => [at, y(value) + offset])));
  const top = known(high) ? Math.max(MARGIN.top - 6, y(high)) : 0;
  const foot = known(low) ? Math.min(HEIGHT - MARGIN.bottom, y(low)) : 0;
  return h("g", { class: `reference hue-${hue(line.version)}` },
    foot > top && h("rect", { class: "band", x: left, width: right - left, y: top, height: foot - top }),
    h("line", { x1: left, x2: right, y1: y(value), y2: y(value) }),
    label);
}

function endLabel(line, { x, y, place }) {
  const last = line.points[line.points.length - 1];
  return place(`v${line.version}`, [4, -10, 18, -24, 32].map((offset) => [x(last.at) + 9, y(last.value) + offset]), "end-label");
}

/** Puts a label at the first of `places` that is free of lines and labels; else where only labels matter; else nowhere. */
function placer({ left, right, top, bottom }, lines) {
  const taken = [];
  return (text, places, name = "note") => {
    const wide = text.length * CHARACTER;
    const boxes = places.map(([x, y]) => ({ x: Math.max(left, Math.min(x, right - wide)), y: y - 11, wide, tall: 14 }))
      .filter((box) => box.y >= top && box.y + box.tall <= bottom + 2 && !taken.some((other) => touch(box, other)));
    const box = boxes.find((one) => !lines.some((other) => touch(one, other))) ?? boxes[0];
    if (!box) return null;
    taken.push(box);
    return h("text", { class: name, x: box.x, y: box.y + 11 }, text);
  };
}

function whiskerBox({ points }, x, y) {
  const [{ at, low, high }] = points;
  return points.length === 1 && known(low) && known(high) ? [{ x: x(at) - 5, y: y(high), wide: 10, tall: y(low) - y(high) }] : [];
}

/** Small boxes along a line and its whiskers, for labels to keep away from. */
function trace(line, x, y) {
  const box = (across, down) => ({ x: across - 3, y: down - 3, wide: 6, tall: 6 });
  return whiskerBox(line, x, y).concat(line.points.flatMap((point, index) => {
    const next = line.points[index + 1] ?? point;
    const [x1, y1, x2, y2] = [x(point.at), y(point.value), x(next.at), y(next.value)];
    const parts = Math.max(1, Math.min(40, Math.ceil((x2 - x1) / 8)));
    return Array.from({ length: parts }, (_, part) => box(x1 + ((x2 - x1) * part) / parts, y1 + ((y2 - y1) * part) / parts));
  }));
}

const touch = (a, b) => a.x < b.x + b.wide && b.x < a.x + a.wide && a.y < b.y + b.tall && b.y < a.y + a.tall;

function flag({ text }, at) {
  const top = MARGIN.top - 12;
  return h("g", { class: "flag" },
    h("title", null, text),
    h("line", { x1: at, x2: at, y1: top + 8, y2: HEIGHT - MARGIN.bottom }),
    h("path", { d: `M${at} ${top}l6 10h-12Z` }));
}

const SHAPES = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (x, y, r) => `M${x - r * 0.9} ${y - r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}Z`,
  (x, y, r) => `M${x} ${y - r * 1.2}l${r * 1.2} ${r * 2}h${-r * 2.4}Z`,
  (x, y, r) => `M${x} ${y - r * 1.3}l${r * 1.3} ${r * 1.3}l${-r * 1.3} ${r * 1.3}l${-r * 1.3} ${-r * 1.3}Z`,
];

export const marker = (version, x, y, r) =>
  h("path", { class: "marker", d: SHAPES[((version % 4) + 4) % 4](x, y, r) });

/** The marker and colour of a version, for legends and tables. */
export const swatch = (version) =>
  h("svg", { class: `swatch hue-${hue(version)}`, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" }, marker(version, 6, 6, 4));

// --- small ones -------------------------------------------------------------------------------------------------------

// A drift bar reaches from a tenth of the threshold to a thousand thresholds: real PSI spans that much, so its scale is logarithmic.
const [DECADES_BELOW, DECADES] = [1, 4];
const driftPlace = (ratio) => Math.max(0, Math.min(1, (Math.log10(ratio) + DECADES_BELOW) / DECADES)) * 100;

/** PSI as a bar against its threshold; the threshold stands at the same place in every row. */
export function driftBar({ psi, threshold, drifted }) {
  const ratio = known(psi) && threshold > 0 ? psi / threshold : 0;
  const end = ratio > 0 ? driftPlace(ratio) : 0;
  return h("svg", { class: `drift-bar${drifted ? " drifted" : ""}`, width: "100%", height: 16, role: "img", "aria-label": `PSI ${small(psi)}, threshold ${small(threshold)}` },
    h("rect", { class: "track", x: 0, y: 4, width: "100%", height: 8, rx: 2 }),
    h("rect", { class: "value", x: 0, y: 4, width: `${Math.max(0.5, end)}%`, height: 8, rx: 2 }),
    h("line", { class: "threshold", x1: `${driftPlace(1)}%`, x2: `${driftPlace(1)}%`, y1: 0, y2: 16 }));
}

/** The last values of a feature's PSI with its threshold dashed. */
export function sparkline({ history, threshold }) {
  const [width, height] = [64, 20];
  const values = history.filter(known);
  if (values.length < 2) return h("svg", { class: "spark", width, height, "aria-hidden": "true" });
  const high = Math.max(...values, threshold ?? 0) * 1.1 || 1;
  const x = scale(0, values.length - 1, 2, width - 4);
  const y = scale(0, high, height - 2, 2);
  const path = values.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const last = values.length - 1;
  return h("svg", { class: "spark", width, height, role: "img", "aria-label": `Last windows: ${values.map(small).join(", ")}` },
    h("title", null, `PSI of the last ${values.length} windows, oldest first: ${values.map(small).join(", ")}`),
    known(threshold) && h("line", { class: "threshold", x1: 0, x2: width, y1: y(threshold), y2: y(threshold) }),
    h("path", { class: "course", d: path }),
    h("circle", { cx: x(last), cy: y(values[last]), r: 2 }));
}

/** A difference with its interval around zero: where the interval lies to one side, the sign is certain. */
export function differenceBar({ difference, low, high }) {
  const reach = Math.max(Math.abs(low), Math.abs(high), Math.abs(difference), 1e-6) * 1.15;
  const x = (value) => `${50 + (value / reach) * 50}%`;
  return h("svg", { class: "difference", width: "100%", height: 34, role: "img", "aria-label": `Difference ${score(difference)}, interval ${score(low)} to ${score(high)}` },
    h("line", { class: "zero", x1: "50%", x2: "50%", y1: 0, y2: 18 }),
    h("text", { x: "50%", y: 31, "text-anchor": "middle" }, "no difference"),
    h("line", { class: "reach", x1: x(low), x2: x(high), y1: 9, y2: 9 }),
    [low, high].map((value) => h("line", { class: "reach", x1: x(value), x2: x(value), y1: 5, y2: 13 })),
    h("circle", { cx: x(difference), cy: 9, r: 4 }));
}

/** A share from 0 to 1 as a thin bar. */
export const shareBar = (value) =>
  h("svg", { class: "share-bar", width: "100%", height: 4, role: "img", "aria-label": share(value) },
    h("rect", { class: "track", x: 0, y: 0, width: "100%", height: 4, rx: 2 }),
    known(value) && h("rect", { class: "value", x: 0, y: 0, width: `${Math.max(0, Math.min(1, value)) * 100}%`, height: 4, rx: 2 }));

export const markText = (millis, text) => ({ at: millis, text: `${text}, ${moment(millis)}` });
