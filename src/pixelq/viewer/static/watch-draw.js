// The drawings of `pixelq watch`: pictures, planes, saliency, bars, the value over time.

const SECONDS = 20; // of the value over time
const HEAT = { gradient: [70, 220, 255], occlusion: [255, 120, 40] };
const context = new Map();

// Enough decimals to distinguish the ends of a span
function decimals(span) {
  return Math.min(Math.max(1 - Math.floor(Math.log10(Math.max(span, 1e-6))), 0), 4);
}

function surface(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    context.delete(canvas);
  }
  if (!context.has(canvas)) {
    const to = canvas.getContext("2d");
    context.set(canvas, { to, image: to.createImageData(width, height) });
  }
  return context.get(canvas);
}

export function drawPicture(canvas, picture, rows, columns) {
  const { to, image } = surface(canvas, columns, rows);
  const data = image.data;
  for (let from = 0, at = 0; from < picture.length; from += 3, at += 4) {
    data[at] = picture[from];
    data[at + 1] = picture[from + 1];
    data[at + 2] = picture[from + 2];
    data[at + 3] = 255;
  }
  to.putImageData(image, 0, 0);
}

// A canvas for each picture that the agent sees at once
export function makePlanes(place, count) {
  place.replaceChildren();
  return Array.from({ length: count }, (_, number) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", number === count - 1 ? "The newest plane" : `The plane ${count - 1 - number} steps before`);
    place.append(canvas);
    return canvas;
  });
}

// Planes [stack x channels x height x width]: a picture has one in grey, three in colour
export function drawPlanes(canvases, planes, { channels, height, width }) {
  const size = height * width;
  const [green, blue] = channels === 3 ? [size, 2 * size] : [0, 0];
  canvases.forEach((canvas, number) => {
    const { to, image } = surface(canvas, width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const from = number * channels * size;
    for (let at = from; at < from + size; at += 1) {
      pixels[at - from] = 0xff000000 | (planes[at + blue] << 16) | (planes[at + green] << 8) | planes[at];
    }
    to.putImageData(image, 0, 0);
  });
}

// A map [height x width] as a glow over the screen, null for none; the power makes faint parts visible
export function drawLook(canvas, map, kind, { height, width }) {
  const { to, image } = surface(canvas, width, height);
  image.data.fill(0);
  if (map) {
    map.forEach((value, at) => image.data.set([...HEAT[kind], 220 * (value / 255) ** 0.75], 4 * at));
  }
  to.putImageData(image, 0, 0);
}

// A bar an action. Values lie close together, so the bars span the lowest to the highest of the last seconds.
export class Bars {
  constructor(list, axis) {
    this.list = list;
    this.axis = axis;
    this.rows = [];
  }

  show(actions, sees) {
    this.list.replaceChildren();
    const many = actions.length > 9;
    for (const part of [this.list, this.axis]) part.classList.toggle("many", many);
    this.list.classList.toggle("blind", !sees);
    this.axis.hidden = !sees;
    this.rows = actions.map((action) => {
      const row = document.createElement("li");
      const [name, track, number] = ["name", "track", "number"].map((part) => {
        const span = document.createElement("span");
        span.className = part;
        row.append(span);
        return span;
      });
      name.textContent = action.replace(/^(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?$/, (_, ...words) =>
        words.slice(0, 3).filter(Boolean).join(" "));
      const bar = document.createElement("div");
      bar.className = "bar";
      track.append(bar);
      this.list.append(row);
      return { row, bar, number };
    });
  }

  draw(moment, history) {
    const { values, action, chooser } = moment;
    const best = values ? values.indexOf(Math.max(...values)) : -1;
    let low = Infinity;
    let high = -Infinity;
    for (const past of history) {
      low = Math.min(low, past.low);
      high = Math.max(high, past.value);
    }
    const span = Math.max(high - low, 1e-6);
    this.rows.forEach(({ row, bar, number }, index) => {
      const chosen = index === action ? ` chosen by-${chooser}` : "";
      row.className = (index === best ? "best" : "") + chosen;
      row.ariaCurrent = index === action ? "true" : null;
      if (!values) return;
      bar.style.transform = `scaleX(${0.02 + 0.98 * (values[index] - low) / span})`;
      number.textContent = values[index].toFixed(3);
    });
    if (values) {
      this.axis.firstElementChild.textContent = low.toFixed(decimals(span));
      this.axis.lastElementChild.textContent = high.toFixed(decimals(span));
    }
  }
}

// The best value of the last seconds as a line, with marks at points, lost lives and new checkpoints.
export function drawTimeline(canvas, history, stepsASecond) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const to = canvas.getContext("2d");
  const colour = getComputedStyle(canvas);
  const paint = (name) => colour.getPropertyValue(`--${name}`);
  to.setTransform(ratio, 0, 0, ratio, 0, 0);
  to.clearRect(0, 0, width, height);
  if (!history.length) return;
  const values = history.map((past) => past.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [left, top, bottom] = [44, 8, height - 8];
  const x = (index) => width - 4 - (history.length - 1 - index) * (width - left - 4) / (SECONDS * stepsASecond);
  const y = (value) => (high > low ? bottom - (bottom - top) * (value - low) / (high - low) : (top + bottom) / 2);
  to.font = "11px system-ui, sans-serif";
  to.textAlign = "right";
  to.textBaseline = "middle";
  to.fillStyle = paint("quiet");
  to.strokeStyle = paint("edge");
  to.lineWidth = 1;
  for (const value of high > low ? [low, high] : [low]) {
    to.fillText(value.toFixed(decimals(high - low)), left - 6, y(value));
    to.beginPath();
    to.moveTo(left, y(value));
    to.lineTo(width, y(value));
    to.stroke();
  }
  history.forEach((past, index) => {
    if (!past.fresh) return;
    to.strokeStyle = paint("fresh");
    to.beginPath();
    to.moveTo(x(index), 0);
    to.lineTo(x(index), height);
    to.stroke();
  });
  to.strokeStyle = paint("agent");
  to.lineWidth = 2;
  to.lineJoin = "round";
  to.beginPath();
  history.forEach((past, index) => to[past.start ? "moveTo" : "lineTo"](x(index), y(past.value)));
  to.stroke();
  history.forEach((past, index) => {
    if (!past.reward && !past.lost) return;
    to.fillStyle = paint(past.lost || past.reward < 0 ? "lost" : "reward");
    to.beginPath();
    to.arc(x(index), y(past.value), 3.5, 0, 2 * Math.PI);
    to.fill();
  });
}

export const historyLength = (stepsASecond) => SECONDS * stepsASecond;
