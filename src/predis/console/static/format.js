// Figures and moments as people read them. What is shown is short; the exact value stands in the title.

import { h } from "./dom.js";

export const ABSENT = "–";
const SPACE = "\u00a0"; // a figure and its unit stay on one line
const MINUS = "\u2212";

export const known = (value) => typeof value === "number" && Number.isFinite(value);
const proper = (text) => text.replace("-", MINUS);

/** 12345 -> 12.3k */
export function short(value) {
  if (!known(value)) return ABSENT;
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit * 0.9995) return proper(trim((value / limit).toPrecision(3)) + unit);
  }
  return proper(Number.isInteger(value) ? String(value) : trim(value.toPrecision(size < 1 ? 2 : 3)));
}

function trim(text) {
  const plain = text.includes("e") ? String(Number(text)) : text;
  return plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain;
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
export const exact = (value) => (known(value) ? proper(plain.format(value)) : "not known");

/** 0.9 -> 90 %. Never rounds to 0 % or 100 % what is not. */
export function share(value) {
  if (!known(value)) return ABSENT;
  const percent = value * 100;
  const size = Math.abs(percent);
  if (size > 0 && size < 0.01) return `<${SPACE}0.01${SPACE}%`;
  const near = Math.min(size, Math.abs(100 - size));
  const digits = near === 0 ? 0 : near < 1 ? 2 : near < 10 ? 1 : 0;
  return `${proper(trim(percent.toFixed(digits)))}${SPACE}%`;
}

/** A score such as AUC: three decimals. */
export const score = (value) => (known(value) ? proper(value.toFixed(3)) : ABSENT);
export const signed = (value) => (known(value) ? (value < 0 ? "" : "+") + score(value) : ABSENT);
export const interval = (low, high) => (known(low) && known(high) ? `${score(low)} to ${score(high)}` : null);

/** PSI and other figures around 0.01: two digits that count, at most four decimals. */
export const small = (value) => (known(value) ? proper(value.toFixed(Math.abs(value) < 0.1 ? 3 : 2)) : ABSENT);

/** Milliseconds without the unit, or seconds with it when long. */
export function ms(value) {
  if (!known(value)) return ABSENT;
  if (value >= 9950) return `${short(value / 1000)}${SPACE}s`;
  return value >= 99.5 ? value.toFixed(0) : trim(value.toPrecision(2));
}

export const withUnit = (text, unit) => (text === ABSENT || /s$/.test(text) ? text : text + SPACE + unit);

/** p = 0.0003 -> p < 0.001 */
export const chance = (value) => (known(value) ? (value < 0.001 ? "p < 0.001" : `p = ${value.toFixed(3)}`) : null);

/** Seconds as a length of time: 0.4 s, 12 s, 3 min, 2.1 h, 3.4 days. */
export function span(seconds) {
  if (!known(seconds)) return ABSENT;
  const size = Math.abs(seconds);
  const scales = [[86400, "days"], [3600, "h"], [60, "min"]];
  for (const [unit, name] of scales) {
    if (size >= unit * 1.5 || (unit === 3600 && size >= unit)) return digits(seconds / unit) + SPACE + name;
  }
  return digits(seconds) + SPACE + "s";
}

const digits = (value) => trim(Math.abs(value) < 9.95 ? value.toFixed(1) : value.toFixed(0));

export const parse = (text) => (text ? Date.parse(text) : NaN);

/** How long ago, or the date when that says more. */
export function ago(millis, now) {
  if (!Number.isFinite(millis)) return ABSENT;
  const seconds = (now - millis) / 1000;
  if (seconds > 30 * 86400) return day(millis);
  if (Math.abs(seconds) < 1.5) return "just now";
  const length = span(seconds < 90 ? Math.round(Math.abs(seconds)) : Math.abs(seconds));
  return seconds < 0 ? `in ${length}` : `${length} ago`;
}

const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const exactFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

export const day = (millis) => (Number.isFinite(millis) ? dayFormat.format(millis) : ABSENT);
export const clock = (millis) => (Number.isFinite(millis) ? clockFormat.format(millis) : ABSENT);
export const moment = (millis) => (Number.isFinite(millis) ? exactFormat.format(millis) : "not known");

/** From one moment to another, no longer than needed: 14 Mar 2013, 08:00 to 12:30. */
export function period(from, to) {
  if (!Number.isFinite(from) || !Number.isFinite(to)) return ABSENT;
  if (to - from > 2 * 86400e3) return day(from) === day(to) ? day(from) : `${day(from)} to ${day(to)}`;
  const [start, end] = [`${day(from)}, ${minuteFormat.format(from)}`, minuteFormat.format(to)];
  return `${start} to ${day(from) === day(to) ? "" : day(to) + ", "}${end}`;
}

/** A count: short to see, exact in its title. */
export const count = (value, props) => h("span", { ...props, title: exact(value) }, short(value));

/** A score: three decimals to see, exact in its title. */
export const figure = (value, text = score(value)) => h("span", { title: exact(value) }, text);

/** A moment: relative to see, exact in its title. */
export function when(text, now) {
  const millis = parse(text);
  if (!Number.isFinite(millis)) return ABSENT;
  return h("time", { datetime: text, title: moment(millis) }, ago(millis, now));
}

/** A message as a sentence; a version such as v3 keeps its small v. */
export const sentence = (text) => (/^v\d/.test(text ?? "") ? text : String(text ?? "").replace(/^./u, (letter) => letter.toUpperCase()));

export const plural = (number, one, many = one + "s") => `${short(number)} ${number === 1 ? one : many}`;
