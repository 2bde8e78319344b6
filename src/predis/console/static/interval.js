// The always-valid interval of a gate as a small picture: where it lies against no difference and against the margin.

import { h } from "./dom.js";
import { known } from "./format.js";

const HALF = 46; // per cent of the width on each side of no difference
// The margin stands at the same place whatever the interval, unless the interval needs more room; beyond this it leaves the picture.
const [NEAR, FAR] = [2, 8];

/**
 * `low` to `high` is candidate - baseline; from `margin` on (a signed difference, on the side where the candidate is worse) it would
 * be too much. `point` is what was seen. A `distance` starts at zero: all of it is to the right.
 */
export function intervalBar({ low, high, margin, point, distance, verdict, label }) {
  if (!known(low) || !known(high)) return null;
  const size = Math.abs(margin ?? 0);
  const widest = Math.max(Math.abs(low), Math.abs(high), 1e-9);
  const reach = size > 0 ? Math.max(size * NEAR, Math.min(widest * 1.1, size * FAR)) : widest * 1.2;
  const at = (value) => (distance ? 2 + (Math.max(0, Math.min(1, value / reach)) * 96) : 50 + Math.max(-1, Math.min(1, value / reach)) * HALF);
  const x = (value) => `${at(value).toFixed(2)}%`;
  const out = (value) => Math.abs(value) > reach;
  return h("svg", { class: `interval ${verdict}`, width: "100%", height: 40, role: "img", "aria-label": label },
    h("title", null, label),
    size > 0 && h("rect", margin > 0
      ? { class: "too-much", x: x(margin), y: 2, width: `${(100 - at(margin)).toFixed(2)}%`, height: 20 }
      : { class: "too-much", x: 0, y: 2, width: x(margin), height: 20 }),
    h("line", { class: "track", x1: 0, x2: "100%", y1: 12, y2: 12 }),
    h("line", { class: "zero", x1: x(0), x2: x(0), y1: 2, y2: 22 }),
    h("text", { class: "mark-text", x: x(0), y: 36, "text-anchor": distance ? "start" : "middle" }, "0"),
    size > 0 && [
      h("line", { class: "margin", x1: x(margin), x2: x(margin), y1: 2, y2: 22 }),
      h("text", { class: "mark-text", x: x(margin), y: 36, "text-anchor": margin < 0 ? "end" : "start" }, "margin"),
    ],
    h("line", { class: "reach", x1: x(low), x2: x(high), y1: 12, y2: 12 }),
    [low, high].map((end) => edge(end, { x, out })),
    known(point) && !out(point) && h("circle", { cx: x(point), cy: 12, r: 4 }));
}

/** The end of the interval: a bar across, or, where it goes on beyond the picture, an arrow. */
function edge(end, { x, out }) {
  if (!out(end)) return h("line", { class: "reach", x1: x(end), x2: x(end), y1: 7, y2: 17 });
  const d = end < 0 ? "M7 1L1 6L7 11" : "M1 1L7 6L1 11";
  return h("svg", { x: x(end), y: 6, width: 8, height: 12, overflow: "visible", class: end < 0 ? "arrow" : "arrow right" }, h("path", { class: "reach", d }));
}
