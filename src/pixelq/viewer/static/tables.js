// Progress, scores, settings and machines of the runs that are shown.

import { clock, differing, grouped, shown } from "./maths.js";
import { newest } from "./store.js";

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text instanceof Node) made.append(text);
  else made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** A table; a head that ends in `#` has numbers below it, one that ends in `…` text of several lines. */
function table(heads, rows) {
  const kinds = heads.map((head) => ({ "#": "number", "…": "text" })[head.at(-1)] ?? "");
  const made = document.createElement("table");
  const top = made.createTHead().insertRow();
  heads.forEach((head, i) => top.append(element("th", head.replace(/[#…]$/, ""), kinds[i] === "text" ? "" : kinds[i])));
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((cell, i) => row.append(element(i ? "td" : "th", cell, kinds[i])));
  }
  return made;
}

function fill(section, ...parts) {
  document.querySelector(`#${section} .wide`).replaceChildren(...parts);
}

const number = (value, digits) => (value === null || !Number.isFinite(value) ? "–" : value.toFixed(digits).replace("-", "−"));

/** Each run's step, speed and remaining time. */
export function progressTable(runs) {
  if (!runs.length) return fill("progress", element("p", "No run is shown."));
  const rows = runs.map((run) => {
    const [step, frames, seconds, now] = ["step", "frames", "seconds", "perf/steps_per_second"].map((key) => newest(run, key));
    const total = run.card.config.total_steps;
    const left = run.card.state === "running" && now > 0 ? (total - step) / now : NaN;
    const state = element("span", run.card.state, `state ${run.card.state}`);
    return [
      run.name, state, grouped(step), total ? `${number((100 * step) / total, 1)}%` : "–", number(now, 0),
      number(step / seconds, 0), number(frames / seconds, 0), clock(seconds), clock(left), shown(run.card.provenance.started).replace("T", " ").slice(0, 16),
    ];
  });
  fill("progress", table(["Run", "State", "Steps#", "Done#", "Steps/s now#", "on average#", "Frames/s#", "Trained for#", "Left#", "Started (UTC)"], rows));
}

/** Results of `pixelq eval`, with their conditions. */
export function scoresTable(runs) {
  const found = runs.flatMap((run) => run.card.evaluations.map((result) => ({ run, ...result })));
  if (!found.length) return fill("scores", element("p", "No scores yet. Measure one: pixelq eval RUN"));
  found.sort((a, b) => a.game.localeCompare(b.game) || a.protocol.localeCompare(b.protocol) || b.mean - a.mean);
  const noted = found.some((result) => result.notes.length);
  const rows = found.map((r) => [
    r.run.name, r.game, grouped(r.step), r.protocol, String(r.games), number(r.mean, 2), `${number(r.ci95[0], 2)} to ${number(r.ci95[1], 2)}`,
    number(r.median, 2), number(r.iqm, 2), number(r.human_normalised, 3), ...(noted ? [r.notes.join("; ")] : []),
  ]);
  const conditions = [...new Set(found.map((result) => result.settings))].map((text) => element("p", text));
  const heads = ["Run", "Game", "At step#", "Protocol", "Games#", "Mean#", "95% interval#", "Median#", "IQM#", "Human-normalised#", ...(noted ? ["Notes…"] : [])];
  fill("scores", table(heads, rows), ...conditions);
}

/** The settings in which the runs differ. */
export function settingsTable(runs) {
  const names = differing(runs.map((run) => run.card.config));
  if (!names.length) {
    const text = runs.length > 1 ? "These runs have the same settings." : "One run, nothing to compare. Its settings are behind the i beside its name.";
    return fill("settings", element("p", runs.length ? text : "No run is shown."));
  }
  fill("settings", table(["Run", ...names], runs.map((run) => [run.name, ...names.map((name) => shown(run.card.config[name]))])));
}

/** A run's provenance: at the start, then at each resume, with the name of each part. */
function parts(run) {
  const start = run.card.provenance;
  const resumed = Array.isArray(start.resumed) ? start.resumed.filter((again) => again instanceof Object) : [];
  const later = resumed.map((again) => {
    const commit = "git" in again ? { "git.commit": null } : {}; // it continued outside any checkout
    return { run, name: `${run.name} from step ${grouped(again.step)}`, p: { ...start, ...commit, ...again } };
  });
  return [{ run, name: run.name, p: start }, ...later];
}

/** The machines and versions, each once, with their runs, or parts of runs. */
export function machineTable(runs) {
  const groups = new Map();
  for (const { run, name, p } of runs.flatMap(parts)) {
    const memory = p.memory_bytes ? `${Math.round(p.memory_bytes / 2 ** 30)} GiB` : "–";
    const cells = [shown(p.cpu), shown(p.cores), memory, p.gpus?.length ? shown(p.gpus) : "none", run.card.config.device, run.card.config.precision, p.python,
      p["packages.torch"], p["packages.ale-py"], p.pixelq, p["git.commit"]?.slice(0, 9)].map(shown);
    const key = JSON.stringify(cells);
    const { names } = groups.get(key) ?? { names: new Map() };
    if (!names.has(run)) names.set(run, name); // a resume on the same machine and commit is nothing new
    groups.set(key, { cells, names });
  }
  if (!groups.size) return fill("machine", element("p", "No run is shown."));
  const rows = [...groups.values()].map(({ cells, names }) => [...cells, names.size > 4 ? `${names.size} runs` : [...names.values()].join(", ")]);
  fill("machine", table(["Processor", "Cores#", "Memory#", "GPU", "Ran on", "Precision", "Python", "torch", "ale-py", "pixelq", "Commit", "Runs…"], rows));
}

/** All facts of a run, in a dialog. */
export function showAbout(run) {
  const dialog = document.querySelector("#about");
  const { card } = run;
  document.querySelector("#about-name").textContent = run.name;
  const facts = Object.entries({ state: card.state, ...card.provenance, ...(card.damaged_lines ? { "unreadable lines": card.damaged_lines } : {}) });
  const rows = (entries) => entries.map(([name, value]) => [name, shown(value)]);
  document.querySelector("#about-text").replaceChildren(table(["Where it comes from", ""], rows(facts)), table(["Settings", ""], rows(Object.entries(card.config))));
  dialog.showModal();
}
