// The cache: how often it answers and how fast, what another size or policy would give, what it foretells, which keys are read, which are
// large, who reads.

import { predictorPanels, predictorWants } from "./cache-predictor.js";
import { h } from "./dom.js";
import { HEIGHT, MARGIN, frame, marker, plot, scale, shareBar, swatch, ticks } from "./charts.js";
import { ABSENT, clock, exact, known, ms, plural, sentence, share, short, span, withUnit } from "./format.js";
import { command, empty, guarded, panel, pill, table, tile } from "./ui.js";

const AT = "/api/v1/cache/insight";
const ROWS = 12;
const LEAST_READS = 200;
const POLICIES = [["lru", "LRU"], ["s3-fifo", "S3-FIFO"], ["twoq", "2Q"], ["arc", "ARC"]];
const SPACE = "\u00a0";

export const cacheWants = () => ({ cache: { path: AT, every: 2000 }, ...predictorWants });

export function cachePage({ at }, answers, view) {
  const { cache } = answers;
  const found = cache?.value;
  if (cache?.error) return empty(h("h2", null, "Cache"), h("p", null, sentence(cache.error)));
  if (!found) return empty(h("h2", null, "Cache"), h("p", null, "Asking for the cache."));
  if (!found.at) return first(found, view);
  return [
    h("div", { class: "cache-head" }, h("h2", null, "Cache"), listening(found)),
    figures(found),
    h("div", { class: "grid even" }, whatIf(found, view), hitRate(found, view)),
    guarded("What is read next", () => predictorPanels(answers, at, view)),
    h("div", { class: "grid even" }, sourcesPanel(found, view), prefixes(found)),
    h("div", { class: "grid even" }, hotKeys(found, view), bigKeys(found)),
  ];
}

const first = (found, view) => [
  h("h2", null, "Cache"),
  empty(
    h("h2", null, "Nothing is known of the cache yet"),
    h("p", null, "It runs with everything else where its packages are installed. Point any Redis client at its port, and hit rate, hot keys and what-if curves appear here:"),
    command("pip install 'predis[cache]'", view),
    command("redis-cli -p 6380 get user:1", view)),
  found.sources.length > 0 && sourcesPanel(found, view),
];

function listening(found) {
  if (found.stale) return pill("warn", "old figures", { title: `The learner last told something ${span(found.age_s)} ago` });
  if (!found.workers) return pill("idle", "no gateway worker tells what is read");
  const said = found.looking ? "every read is looked at" : "resting: curves are of earlier reads";
  return [pill(found.looking ? "good" : "idle", said), found.dropped > 0 && h("span", { class: "note" }, `${plural(found.dropped, "read")} dropped`)];
}

// --- figures ----------------------------------------------------------------------------------------------------------

function figures({ valkey, series, gateway, hot_keys: hot }) {
  const recent = total(series.slice(-6));
  const ever = valkey ? rate(valkey.keyspace_hits, valkey.keyspace_misses) : null;
  const answer = gateway.upstream_ms;
  const added = gateway.added_ms;
  return h("dl", { class: "figures" },
    tile("Hit rate", share(rate(recent.hits, recent.misses) ?? ever), recent.hits + recent.misses ? "of the last minute" : "since Valkey started"),
    tile("Keys", short(valkey?.keys), valkey ? `${short(valkey.evicted_keys)} evicted, ${short(valkey.expired_keys)} expired` : ABSENT),
    tile("Memory", bytes(valkey?.used_memory), valkey?.maxmemory ? `of ${bytes(valkey.maxmemory)}, ${valkey.policy}` : "without a limit"),
    tile("Valkey answers in", withUnit(ms(answer?.p50), "ms"), answer ? `p99 ${withUnit(ms(answer.p99), "ms")}` : "not measured yet"),
    tile("The gateway adds", withUnit(ms(added?.p50), "ms"), added ? `p99 ${withUnit(ms(added.p99), "ms")}` : "not measured yet"),
    tile("Hottest key", share(hot[0]?.share), hot.length ? "of all reads" : "nothing was read yet"));
}

const rate = (hits, misses) => (hits + misses ? hits / (hits + misses) : null);
const total = (points) => ({ hits: sum(points, "hits"), misses: sum(points, "misses") });
const sum = (points, name) => points.reduce((all, point) => all + point[name], 0);

export function bytes(count) {
  if (!known(count)) return ABSENT;
  return `${short(count).replace(/k$/, `${SPACE}k`).replace(/([MGT])$/, `${SPACE}$1`)}${count < 999.5 ? SPACE : ""}B`;
}

// --- what if ----------------------------------------------------------------------------------------------------------

function whatIf({ curves }, view) {
  const told = Object.keys(curves.policies).length > 0 && curves.sampled_reads >= LEAST_READS;
  // After a restart of the learner the counts are there, and the keys are found anew.
  const keys = told && curves.sampled_keys ? ` of ${short(curves.sampled_keys)} keys` : "";
  const note = told ? `from ${short(curves.sampled_reads)} reads${keys}` : null;
  return panel("What if the cache were larger, smaller, or chose otherwise?", { name: "what-if", note },
    told
      ? [
        whatIfChart(curves, view),
        h("div", { class: "legend note" }, policiesOf(curves).map(([name, label, index]) => h("span", { key: name }, swatch(index), label))),
        h("p", { class: "note" }, presently(curves.present)),
        command("predis cache what-if --memory 2x --policy s3-fifo", view),
      ]
      : empty(h("p", null, `${plural(Math.round(curves.sampled_reads), "read")} sampled so far; from ${LEAST_READS} on there are curves.`)));
}

const policiesOf = (curves) => POLICIES.map(([name, label], index) => [name, label, index]).filter(([name]) => curves.policies[name]);

function presently({ memory_bytes: memory, keys, limited, full }) {
  if (!limited) return `Now: ${bytes(memory)} for ${short(keys)} keys. Valkey has no maxmemory, so nothing is evicted.`;
  const room = `Now: ${bytes(memory)}, room for about ${short(keys)} keys.`;
  return full ? room : `${room} The cache is not full: more memory begins to matter when it is.`;
}

function whatIfChart(curves, view) {
  const size = view.size("what-if");
  const lines = policiesOf(curves).map(([name, label, index]) => ({ name, label, index, ...curves.policies[name] }));
  const [first] = lines; // the one whose uncertainty is drawn
  const rates = [...lines.flatMap((line) => line.hit_rate), ...first.hit_rate.flatMap((value, index) => [value - first.half_width[index], value + first.half_width[index]])];
  const [least, most] = [Math.min(...rates), Math.max(...rates)];
  const pad = Math.max(0.02, (most - least) * 0.15);
  const [low, high] = [Math.max(0, least - pad), Math.min(1, most + pad)];
  const x = scale(Math.log2(curves.scales[0]), Math.log2(curves.scales.at(-1)), MARGIN.left + 8, size.width - MARGIN.right);
  const y = scale(low, high, HEIGHT - MARGIN.bottom, MARGIN.top);
  const across = (index) => x(Math.log2(curves.scales[index]));
  const stops = curves.scales.map((times, index) => ({ key: times, index, x: across(index), y: y(lines[0].hit_rate[index]) }));
  const active = view.get("what-if");
  const stop = stops.find((one) => one.key === active);
  return plot({
    label: "Hit rate by memory", size, stops, active, choose: (key) => view.set("what-if", key),
    readout: (one) => whatIfReadout(one, curves, lines),
  },
  axes({ curves, size, x, y, low, high }),
  lines.map((line) => h("g", { key: line.name, class: `hue-${line.index}` },
    line.index === 0 && h("path", { class: "band", d: ribbon(line, across, (value) => y(Math.max(low, Math.min(high, value)))) }),
    h("path", { class: "course", d: line.hit_rate.map((value, index) => `${index ? "L" : "M"}${across(index)} ${y(value)}`).join("") }),
    line.hit_rate.map((value, index) => h("g", { key: String(index) }, marker(line.index, across(index), y(value), stop?.index === index ? 5 : 3))))),
  stop && h("line", { class: "cursor", x1: stop.x, x2: stop.x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
}

function axes({ curves, size, x, y, low, high }) {
  const bottom = HEIGHT - MARGIN.bottom;
  const narrow = size.width < 420;
  const shown = curves.scales.filter((times) => !narrow || [0.25, 0.5, 1, 2, 4].includes(times));
  const now = x(0);
  return [
    ticks(low, high, 5).values.map((value) => h("g", { key: `y${value}`, class: "tick" },
      h("line", { class: "grid", x1: MARGIN.left, x2: size.width - MARGIN.right, y1: y(value), y2: y(value) }),
      h("text", { x: MARGIN.left - 8, y: y(value), dy: "0.35em", "text-anchor": "end" }, `${Number((value * 100).toFixed(2))}%`))),
    h("line", { class: "axis", x1: MARGIN.left, x2: size.width - MARGIN.right, y1: bottom, y2: bottom }),
    h("line", { class: "now", x1: now, x2: now, y1: MARGIN.top, y2: bottom }),
    shown.map((times) => h("text", { key: `x${times}`, x: x(Math.log2(times)), y: bottom + 18, "text-anchor": "middle" }, times === 1 ? "now" : `${times}×`)),
    h("text", { class: "unit", x: 4, y: 12 }, "hit rate, by memory"),
  ];
}

function ribbon(line, across, y) {
  const upper = line.hit_rate.map((value, index) => `${across(index)} ${y(value + line.half_width[index])}`);
  const lower = line.hit_rate.map((value, index) => `${across(index)} ${y(value - line.half_width[index])}`).reverse();
  return `M${[...upper, ...lower].join("L")}Z`;
}

const whatIfReadout = ({ index }, curves, lines) => [
  h("strong", null, curves.scales[index] === 1 ? "The present memory" : `${curves.scales[index]}× the memory`),
  h("span", { class: "note" }, `, ${bytes(curves.scales[index] * curves.present.memory_bytes)}`),
  h("table", null, h("tbody", null, lines.map((line) => h("tr", { key: line.name },
    h("th", null, swatch(line.index), line.label),
    h("td", null, `${(line.hit_rate[index] * 100).toFixed(1)}% ±${(line.half_width[index] * 100).toFixed(1)}`))))),
];

// --- hit rate over time -----------------------------------------------------------------------------------------------

function hitRate({ series, valkey }, view) {
  const points = series.filter(({ hits, misses }) => hits + misses > 0).map((point) => ({ ...point, rate: rate(point.hits, point.misses) }));
  return panel("Hit rate over time", { name: "hit-rate", note: "of all reads of Valkey" },
    points.length > 1
      ? hitRateChart(points, view)
      : empty(h("p", null, valkey ? "Not enough was read in the last hour to draw it." : "Valkey does not answer the learner, or is a cluster: it tells no figures of its own.")));
}

function hitRateChart(points, view) {
  const size = view.size("hit-rate");
  const [from, to] = [points[0].at * 1000, points.at(-1).at * 1000];
  const least = Math.min(...points.map((point) => point.rate));
  const low = Math.max(0, Math.floor((least - 0.02) * 20) / 20);
  const x = scale(from, to, MARGIN.left, size.width - MARGIN.right);
  const y = scale(low, 1, HEIGHT - MARGIN.bottom, MARGIN.top);
  const stops = points.map((point) => ({ ...point, key: point.at, x: x(point.at * 1000), y: y(point.rate) }));
  const active = view.get("hit-rate");
  const stop = stops.find((one) => one.key === active);
  return plot({ label: "Hit rate over the last hour", size, stops, active, choose: (key) => view.set("hit-rate", key), readout: hitRateReadout },
    frame({ width: size.width, x, y, low, high: 1, wanted: 4, from, to, unit: "hit rate", text: (value) => `${Number((value * 100).toFixed(1))}%` }),
    h("g", { class: "hue-0" }, h("path", { class: "course", d: stops.map((one, index) => `${index ? "L" : "M"}${one.x} ${one.y}`).join("") })),
    stop && h("line", { class: "cursor", x1: stop.x, x2: stop.x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
}

const hitRateReadout = (stop) => [
  h("strong", null, share(stop.rate)),
  h("div", { class: "note" }, `${clock(stop.at * 1000)}: ${plural(stop.hits, "hit")}, ${plural(stop.misses, "miss", "misses")}`),
];

// --- tables -----------------------------------------------------------------------------------------------------------

const keyCell = (key) => h("th", { scope: "row", class: "key-cell" }, h("code", { title: key }, key));

function hotKeys({ hot_keys: hot }, view) {
  return panel("Hot keys", { name: "hot-keys", note: "share of the reads of about the last ten minutes" },
    hot.length
      ? [
        table("Table of hot keys", ["Key", ["", "bar-cell"], ["Reads", "number"]], hot.slice(0, ROWS).map((row) => h("tr", { key: row.key },
          keyCell(row.key),
          h("td", { class: "bar-cell" }, shareBar(row.share / hot[0].share)),
          h("td", { class: "number", title: `between ${share(row.share_low)} and ${share(row.share)}` }, share(row.share))))),
        hot.length > ROWS && command("predis cache hot-keys --limit 50", view),
      ]
      : empty(h("p", null, "No key stands out yet: nothing, or nothing twice, was read lately.")));
}

function sourcesPanel({ sources }, view) {
  return panel("Sources", { name: "sources", note: "where misses are loaded from" },
    sources.length
      ? table("Table of sources", ["Source", ["Reads", "number"], ["Hit rate", "number"], ["p50", "number"], ["p99", "number"]], sources.map((row) => h("tr", { key: `${row.tenant} ${row.source}` },
        h("th", { scope: "row" }, row.source),
        h("td", { class: "number", title: exact(row.reads) }, short(row.reads)),
        h("td", { class: "number" }, row.reads ? share(row.hit_rate) : ABSENT),
        h("td", { class: "number" }, withUnit(ms(row.latency_ms?.p50), "ms")),
        h("td", { class: "number" }, withUnit(ms(row.latency_ms?.p99), "ms")))))
      : empty(h("p", null, "No source: what is not in the cache, clients load themselves. Let the gateway load it:"), command("predis cache source add --help", view)));
}

function prefixes({ prefixes: rows }) {
  return panel("Who reads", { name: "prefixes", note: "by the first part of the key, which is the tenant where there are tenants" },
    rows.length
      ? table("Table of prefixes", ["Prefix", ["", "bar-cell"], ["Reads", "number"], ["Bytes", "number"], ["Hit rate", "number"]], rows.slice(0, ROWS).map((row) => h("tr", { key: row.prefix },
        row.prefix ? keyCell(row.prefix) : h("th", { scope: "row", class: "note" }, "others"),
        h("td", { class: "bar-cell" }, shareBar(row.reads)),
        h("td", { class: "number" }, share(row.reads)),
        h("td", { class: "number" }, share(row.bytes)),
        h("td", { class: "number" }, share(row.hit_rate)))))
      : empty(h("p", null, "Nothing was read lately.")));
}

function bigKeys({ big_keys: big }) {
  return panel("Big keys", { name: "big-keys", note: "the largest values that were read in the last day" },
    big.length
      ? table("Table of big keys", ["Key", ["", "bar-cell"], ["Size", "number"]], big.slice(0, ROWS).map((row) => h("tr", { key: row.key },
        keyCell(row.key),
        h("td", { class: "bar-cell" }, shareBar(row.bytes / big[0].bytes)),
        h("td", { class: "number", title: `${exact(row.bytes)} bytes` }, bytes(row.bytes)))))
      : empty(h("p", null, "No value was read lately.")));
}
