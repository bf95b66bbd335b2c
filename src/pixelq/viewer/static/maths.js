// Computations before drawing. No function here touches the page.

/** Points with a finite x and y, x growing: {x: [], y: []}. */
export function finitePoints(x, y) {
  const points = { x: [], y: [] };
  let last = -Infinity;
  for (let i = 0; i < x.length; i++) {
    if (x[i] > last && Number.isFinite(x[i]) && Number.isFinite(y[i])) {
      points.x.push((last = x[i]));
      points.y.push(y[i]);
    }
  }
  return points;
}

/** Mean of a point and those before it, weighted by exp(−distance / width); width 0 leaves the points as they are. */
export function smooth({ x, y }, width) {
  if (!(width > 0)) return { x, y };
  const means = new Array(y.length);
  let sum = 0;
  let weight = 0;
  for (let i = 0; i < y.length; i++) {
    const kept = i ? Math.exp((x[i - 1] - x[i]) / width) : 0;
    sum = sum * kept + y[i];
    weight = weight * kept + 1;
    means[i] = sum / weight;
  }
  return { x, y: means };
}

/** `count` evenly spaced numbers from `low` to `high`. */
export function evenly(low, high, count) {
  return Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
}

/** Values of a curve on a grid, linear between its points, null where it has none. */
export function onGrid({ x, y }, grid) {
  const values = new Array(grid.length).fill(null);
  let right = 0;
  for (let i = 0; i < grid.length; i++) {
    while (right < x.length && x[right] < grid[i]) right++;
    if (right === x.length) break;
    if (x[right] === grid[i]) values[i] = y[right];
    else if (right) {
      const part = (grid[i] - x[right - 1]) / (x[right] - x[right - 1]);
      values[i] = y[right - 1] + part * (y[right] - y[right - 1]);
    }
  }
  return values;
}

/** Mean, lowest and highest of curves on one grid, where all of them have a value: null elsewhere. */
export function band(curves) {
  const length = curves[0].length;
  const result = { mean: new Array(length).fill(null), low: new Array(length).fill(null), high: new Array(length).fill(null) };
  for (let i = 0; i < length; i++) {
    const values = curves.map((curve) => curve[i]);
    if (values.includes(null)) continue;
    result.mean[i] = values.reduce((sum, value) => sum + value, 0) / values.length;
    result.low[i] = Math.min(...values);
    result.high[i] = Math.max(...values);
  }
  return result;
}

/** The parts of curves on one grid past the last common point: [{index, values}]; curves that end there have none. */
export function beyond(curves) {
  const last = curves[0].findLastIndex((_, i) => curves.every((curve) => curve[i] !== null));
  const cut = (curve) => curve.map((value, i) => (i < last ? null : value));
  const goesOn = (curve) => curve.some((value, i) => i > last && value !== null);
  return curves.map((curve, index) => ({ index, values: cut(curve) })).filter(({ index }) => goesOn(curves[index]));
}

/** Names of settings that are not the same in all of the objects, in order of first appearance. */
export function differing(objects) {
  const names = new Set(objects.flatMap((values) => Object.keys(values)));
  return [...names].filter((name) => new Set(objects.map((values) => JSON.stringify(values[name]))).size > 1);
}

/** A whole number with its thousands set apart. */
export function grouped(number) {
  if (!Number.isFinite(number)) return "–";
  return number.toLocaleString("en", { maximumFractionDigits: 0 });
}

/** A number for a person: three or four significant digits. */
export function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size >= 1e6) return `${sign}${+(size / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${sign}${+(size / 1e3).toPrecision(3)}k`;
  if (size >= 100) return sign + size.toFixed(0);
  if (size >= 10) return sign + size.toFixed(1);
  if (size >= 1 || size === 0) return sign + size.toFixed(2);
  return sign + (size >= 0.01 ? size.toFixed(3) : size.toExponential(1));
}

/** A number beside an axis, if it is round. */
export function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(6)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(6)}k`;
  return String(+value.toPrecision(6)).replace("-", "−");
}

/** Seconds as 1:05:09 or 5:09. */
export function clock(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A value of a setting as text. */
export function shown(value) {
  if (value === undefined || value === null) return "–";
  if (Array.isArray(value)) return value.map(shown).join(value.some((part) => part instanceof Object) ? "; " : ", ");
  return value instanceof Object ? Object.entries(value).map(([name, part]) => `${name} ${shown(part)}`).join(", ") : String(value);
}
