// The curves: one uPlot a metric, all with the same axis, zoom and cursor.

import { band, beyond, brief, evenly, finitePoints, onGrid, smooth, tick } from "./maths.js";

const TITLES = {
  "train/return_per_game": ["Return per game", "raw score, mean of the last games"],
  "train/return_per_life": ["Return per life", "clipped rewards, mean of the last lives"],
  "loss/td": ["TD loss", ""],
  "q/mean": ["Mean Q", "of the actions in the batch"],
  "train/epsilon": ["ε", "probability of a random action"],
  "health/constant_features": ["Constant features", "share of the torso's outputs that nothing changes"],
  "health/action_gap": ["Action gap", "best action's value less the second best's"],
  "health/gradient_norm": ["Gradient norm", "before clipping, mean of the updates since the last point"],
  "perf/steps_per_second": ["Steps per second", "agent steps, four frames each"],
};
const COUNTERS = new Set(["step", "frames", "seconds", "games", "lives"]);
const AXES = {
  steps: { of: (points) => points.step, label: "steps" },
  frames: { of: (points) => points.frames ?? [], label: "emulator frames" },
  minutes: { of: (points) => (points.seconds ?? []).map((seconds) => seconds / 60), label: "minutes of training" },
};
const WIDEST_SMOOTHING = 0.15; // of the axis
const MOST_RAW = 4; // most curves with the unsmoothed one behind them
const ALONE = [2, 4]; // dots and gaps of a seed past the end of the shortest
const MOST_READ = 10; // values beside the cursor

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const chart = charts.get(target.dataset.key);
    chart.seen = isIntersecting;
    if (isIntersecting && chart.dirty) draw(chart);
  }
}, { rootMargin: "200px" });

const charts = new Map();
/** How the curves are shown; `zoom` is null or [low, high] on the axis. */
export const view = { axis: "steps", smoothing: 25, together: true, zoom: null };
let lines = [];
let zoomed = () => {};

/** Draw the curves of `groups`: [{label, colour, dash, runs}], each run alone or a group together. */
export function drawCharts(groups, onZoom) {
  lines = groups;
  zoomed = onZoom;
  const keys = new Set(groups.flatMap((group) => group.runs.flatMap((run) => Object.keys(run.points))));
  const order = Object.keys(TITLES);
  const rank = (key) => (order.includes(key) ? order.indexOf(key) : order.length);
  const wanted = [...keys].filter((key) => !COUNTERS.has(key)).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  for (const [key, chart] of charts) {
    if (!wanted.includes(key)) {
      chart.plot?.destroy();
      seen.unobserve(chart.figure);
      chart.figure.remove();
      charts.delete(key);
    }
  }
  wanted.forEach((key, i) => {
    const chart = charts.get(key) ?? makeChart(key);
    const place = document.querySelector("#charts");
    if (place.children[i] !== chart.figure) place.insertBefore(chart.figure, place.children[i] ?? null);
    chart.figure.classList.toggle("first", i === 0);
    chart.dirty = true;
    if (chart.seen || i === 0) draw(chart);
  });
}

function makeChart(key) {
  const figure = document.createElement("figure");
  const [title, about] = TITLES[key] ?? [key, ""];
  figure.className = "chart";
  figure.dataset.key = key;
  const caption = document.createElement("figcaption");
  const small = document.createElement("small");
  small.textContent = about;
  caption.append(`${title} `, small);
  const plot = document.createElement("div");
  plot.className = "plot";
  plot.tabIndex = 0;
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${title}: curve over training; arrow keys read its values`);
  const reading = document.createElement("div");
  reading.className = "reading";
  reading.hidden = true;
  reading.setAttribute("aria-live", "polite");
  plot.append(reading);
  figure.append(caption, plot);
  const chart = { key, figure, box: plot, reading, plot: null, signature: "", dirty: true, seen: false };
  plot.addEventListener("keydown", (event) => pressed(chart, event));
  plot.addEventListener("blur", () => (reading.hidden = true));
  charts.set(key, chart);
  seen.observe(figure);
  return chart;
}

function extent() {
  let [low, high] = [Infinity, -Infinity];
  for (const { runs } of lines) {
    for (const run of runs) {
      const x = AXES[view.axis].of(run.points);
      if (x.length) [low, high] = [Math.min(low, x[0]), Math.max(high, x[x.length - 1])];
    }
  }
  return high > low ? [low, high] : [low - 1, low + 1].map((end) => (Number.isFinite(end) ? end : 0));
}

/** A run's points and the smoothed ones, recomputed only if they have changed. */
function curve(run, key, width) {
  const column = run.points[key] ?? [];
  const known = (run.curves ??= new Map()).get(key);
  if (known?.column === column && known.axis === view.axis && known.width === width) return known;
  const raw = known?.column === column && known.axis === view.axis ? known.raw : finitePoints(AXES[view.axis].of(run.points), column);
  const made = { column, axis: view.axis, width, raw, smoothed: smooth(raw, width) };
  run.curves.set(key, made);
  return made;
}

/** Series of a chart: [{label, colour, values, width, alpha, dash, fill}], on a grid of about a point a pixel. Seeds have a
 *  mean as far as all have come; those that have come further go on as dotted lines, each by itself. */
function compute(chart) {
  const whole = extent();
  const [low, high] = view.zoom ?? whole;
  const grid = evenly(low, high, Math.max(50, Math.min(1200, Math.round(chart.box.clientWidth))));
  const width = (view.smoothing / 100) ** 2 * WIDEST_SMOOTHING * (whole[1] - whole[0]);
  const series = [];
  const faint = [];
  for (const { label, colour, dash, runs } of lines) {
    const own = runs.map((run) => ({ name: run.name, ...curve(run, chart.key, width) })).filter(({ raw }) => raw.x.length);
    const names = own.map(({ name }) => name);
    const curves = own.map(({ smoothed }) => onGrid(smoothed, grid));
    if (!curves.length) continue;
    if (curves.length === 1) {
      if (width > 0 && lines.length <= MOST_RAW) {
        faint.push({ label, colour, dash: [], values: onGrid(own[0].raw, grid), width: 1, alpha: "40" });
      }
      series.push({ label, colour, dash, values: curves[0], width: 1.8, alpha: "" });
    } else {
      const { mean, low: lowest, high: highest } = band(curves);
      faint.push({ label, colour, dash: [], values: highest, width: 0, alpha: "00" });
      faint.push({ label, colour, dash: [], values: lowest, width: 0, alpha: "00", fill: true });
      series.push({ label: `${label} · ${curves.length} seeds`, colour, dash, values: mean, width: 2.2, alpha: "" });
      for (const { index, values } of beyond(curves)) {
        series.push({ label: `${names[index]} alone`, colour, dash: ALONE, values, width: 1, alpha: "" });
      }
    }
  }
  return { grid, series: [...faint, ...series], ends: [low, high] };
}

function draw(chart) {
  const { grid, series, ends } = compute(chart);
  const data = [grid, ...series.map(({ values }) => values)];
  const shape = series.map(({ label, colour, width, alpha, dash }) => [label, colour, width, alpha, dash]);
  const signature = JSON.stringify([shape, view.axis, style("--text"), chart.figure.className]);
  chart.ends = ends;
  chart.series = series;
  chart.dirty = false;
  if (chart.plot && chart.signature === signature) {
    chart.plot.setData(data);
  } else {
    chart.plot?.destroy();
    chart.plot = new uPlot(options(chart, series), data, chart.box);
    chart.signature = signature;
  }
  chart.figure.dataset.series = series.length;
}

function options(chart, series) {
  const axis = { stroke: style("--soft"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const values = (u, splits) => splits.map((value) => (value === null ? "" : tick(value)));
  return {
    width: chart.box.clientWidth,
    height: chart.box.clientHeight,
    legend: { show: false },
    padding: [8, 26, 0, 0],
    cursor: { sync: { key: "pixelq", setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { show: false }, y: false },
    scales: { x: { time: false, range: () => chart.ends } },
    axes: [
      { ...axis, values, label: AXES[view.axis].label, labelSize: 16, labelGap: 0, labelFont: axis.font, gap: 3, size: 24 },
      { ...axis, values, gap: 6, size: 52 },
    ],
    series: [{}, ...series.map(({ label: name, colour, width, alpha, dash }) => ({
      label: name, stroke: style(colour) + alpha, width, dash, points: { show: false }, spanGaps: false,
    }))],
    bands: series.flatMap(({ fill, colour }, i) => (fill ? [{ series: [i, i + 1], fill: style(colour) + "26" }] : [])),
    hooks: { setCursor: [(u) => read(chart, u)], setSelect: [(u) => select(u)] },
  };
}

function select(u) {
  if (u.select.width < 4) return;
  const ends = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  zoom(ends);
}

/** Show a part of the axis, null for the whole. */
export function zoom(ends) {
  view.zoom = ends;
  zoomed();
}

/** The values at the cursor, highest first. */
function read(chart, u) {
  const row = u.cursor.idx;
  const here = chart.box.matches(":hover, :focus");
  const named = chart.series
    .map(({ label, colour, values, alpha }) => ({ label, colour, value: values[row], alpha }))
    .filter(({ value, alpha }) => alpha === "" && value !== null && value !== undefined)
    .sort((a, b) => b.value - a.value);
  chart.reading.hidden = !here || row === null || row === undefined || !named.length;
  if (chart.reading.hidden) return;
  const title = document.createElement("strong");
  title.textContent = `${brief(u.data[0][row])} ${AXES[view.axis].label}`;
  const list = document.createElement("ol");
  for (const { label, colour, value } of named.slice(0, MOST_READ)) {
    const item = document.createElement("li");
    item.style.setProperty("--swatch", `var(${colour})`);
    const [name, number] = [document.createElement("span"), document.createElement("span")];
    [name.textContent, number.textContent] = [label, brief(value)];
    item.append(name, number);
    list.append(item);
  }
  if (named.length > MOST_READ) list.append(`and ${named.length - MOST_READ} more`);
  chart.reading.replaceChildren(title, list);
  const right = u.cursor.left > u.over.clientWidth / 2;
  chart.reading.style.left = right ? "" : `${u.over.offsetLeft + u.cursor.left + 14}px`;
  chart.reading.style.right = right ? `${chart.box.clientWidth - u.over.offsetLeft - u.cursor.left + 14}px` : "";
}

function pressed(chart, event) {
  const u = chart.plot;
  const [low, high] = chart.ends;
  const width = u.over.clientWidth;
  const at = u.cursor.left >= 0 ? u.cursor.left : width / 2;
  const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -width, End: width }[event.key];
  if (move) u.setCursor({ left: Math.max(0, Math.min(width - 1, at + move * Math.max(1, width / 200))), top: 10 });
  else if (event.key === "+" || event.key === "-") {
    const centre = u.posToVal(at, "x");
    const part = event.key === "+" ? 0.5 : 2;
    const ends = [centre - (centre - low) * part, centre + (high - centre) * part];
    const [first, last] = extent();
    zoom(ends[0] <= first && ends[1] >= last ? null : [Math.max(first, ends[0]), Math.min(last, ends[1])]);
  } else if (event.key === "0" || event.key === "Escape") zoom(null);
  else return;
  event.preventDefault();
}

new ResizeObserver(() => {
  for (const chart of charts.values()) {
    chart.plot?.setSize({ width: chart.box.clientWidth, height: chart.box.clientHeight });
    chart.dirty = true;
    if (chart.seen) draw(chart);
  }
}).observe(document.querySelector("#charts"));
document.querySelector("#charts").addEventListener("dblclick", () => zoom(null));
