// The candidate's share over a rollout's time, as steps, with a mark where its state changed.

import { h } from "./dom.js";
import { HEIGHT, MARGIN, frame, hue, plot, scale } from "./charts.js";
import { moment, parse, sentence, share } from "./format.js";
import { words } from "./ui.js";

/** `now` in milliseconds; of a rollout that has ended, its end. */
export function courseChart(rollout, { now, size, active, choose }) {
  const moves = (rollout.moves ?? []).map((move, index) => ({ ...move, key: index, millis: parse(move.at) }));
  const from = moves[0].millis;
  const last = moves[moves.length - 1].millis;
  const end = rollout.ended_at ? last + (last - from) * 0.08 : now;
  const to = Math.max(end, from + 1000);
  const x = scale(from, to, MARGIN.left, size.width - MARGIN.right);
  const y = scale(0, 1, HEIGHT - MARGIN.bottom, MARGIN.top);
  const stops = moves.map((move) => ({ ...move, x: x(move.millis), y: y(move.share) }));
  const stop = stops.find((one) => one.key === active);
  return plot({ label: `Share of v${rollout.candidate} over time`, size, stops, active, choose, readout },
    h("g", { class: `hue-${hue(rollout.candidate)}` },
      h("path", { class: "band", d: `${line(stops, x(to))}V${y(0)}H${stops[0].x}Z` })),
    frame({ width: size.width, x, y, low: 0, high: 1, wanted: 4, from, to, unit: `share of v${rollout.candidate}`, text: share }),
    stop && h("line", { class: "cursor", x1: stop.x, x2: stop.x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
    h("g", { class: `hue-${hue(rollout.candidate)}` },
      h("path", { class: "course", d: line(stops, x(to)) }),
      stops.map((one) => h("circle", { key: String(one.key), class: `move ${one.state}`, cx: one.x, cy: one.y, r: one.key === active ? 6 : 4 }))));
}

const line = (stops, right) => `${stops.map(({ x, y }, index) => (index ? `H${x}V${y}` : `M${x} ${y}`)).join("")}H${right}`;

const readout = (stop) => [
  h("strong", null, `${words(stop.state)}, ${share(stop.share)}`),
  h("div", { class: "note" }, moment(stop.millis)),
  h("div", { class: "wrapped" }, sentence(stop.reason)),
];
