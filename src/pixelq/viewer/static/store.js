// The page's data of the runs, and the connection that updates it.

const RETRY_MS = [500, 1000, 2000, 4000];

/** Runs by name: {name, card, points: {metric: Float64Array}, rows}. */
export const runs = new Map();
/** The folder's name and the number of its runs, including runs that are still being read. */
export const folder = { name: "", count: 0 };

function takeCards({ folder: name, count, gone, cards }) {
  Object.assign(folder, { name, count });
  for (const old of gone) runs.delete(old);
  for (const card of cards) {
    const run = runs.get(card.name) ?? { name: card.name, points: { step: new Float64Array() }, rows: 0 };
    runs.set(card.name, Object.assign(run, { card }));
  }
}

function takeBlock(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const run = runs.get(header.run);
  if (!run) return;
  const rows = header.start + header.rows;
  const points = {};
  header.keys.forEach((key, i) => {
    const column = new Float64Array(rows).fill(NaN);
    if (header.start && run.points[key]) column.set(run.points[key].subarray(0, header.start));
    column.set(new Float64Array(buffer, 4 + length + 8 * i * header.rows, header.rows), header.start);
    points[key] = column;
  });
  Object.assign(run, { points, rows });
}

/**
 * Follow the server for ever.
 * @param {(what: "cards" | "points") => void} changed - called after every message
 * @param {(state: "live" | "lost") => void} linked - called when the connection comes or goes
 */
export function follow(changed, linked, failures = 0) {
  const socket = new WebSocket(new URL("live", location.href.replace(/^http/, "ws").replace(/[?#].*/, "")));
  socket.binaryType = "arraybuffer";
  let fresh = true;
  socket.onmessage = ({ data }) => {
    if (fresh) {
      runs.clear();
      failures = 0;
      fresh = false;
      linked("live");
    }
    if (typeof data === "string") takeCards(JSON.parse(data));
    else takeBlock(data);
    changed(typeof data === "string" ? "cards" : "points");
  };
  socket.onclose = () => {
    linked("lost");
    setTimeout(() => follow(changed, linked, failures + 1), RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
  };
}

/** The last value of a metric that is a number, NaN if there is none. */
export function newest(run, key) {
  const column = run.points[key] ?? [];
  for (let i = column.length - 1; i >= 0; i--) if (Number.isFinite(column[i])) return column[i];
  return NaN;
}
