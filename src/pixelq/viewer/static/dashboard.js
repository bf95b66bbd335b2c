// The page: the selection and display of runs; redraws changes.

import { drawCharts, view, zoom } from "./charts.js";
import { brief, grouped } from "./maths.js";
import { folder, follow, newest, runs } from "./store.js";
import { machineTable, progressTable, scoresTable, settingsTable, showAbout } from "./tables.js";
import { showVideos } from "./videos.js";

const COLOURS = 10;
const DASHES = [[], [7, 4], [2, 3]];
const DRAW_MS = 60; // least time until new data is drawn; longer if drawing is slow
const FIRST_MS = 400; // longest wait for all runs, so that they are drawn once
const DRAW_SHARE = 4; // a page that always draws cannot respond

const find = (id) => document.getElementById(id);
const hidden = new Set(JSON.parse(sessionStorage.getItem("hidden") ?? "[]"));
const items = new Map();
const todo = { cards: false, points: false, timer: 0, waits: false, drawn: false, spent: 0 };

function matching() {
  const words = find("filter").value.toLowerCase().split(/\s+/);
  const text = ({ name, card }) => `${name} ${card.config.game} ${card.config.preset} ${card.state}`.toLowerCase();
  return [...runs.values()].filter((run) => words.every((word) => text(run).includes(word)));
}

/** Lines to draw: groups of runs that differ only in their seed, or every run alone; each keeps its colour. */
function lines(shown) {
  const together = find("together").checked;
  const all = new Map();
  for (const run of runs.values()) {
    const key = together ? run.card.group : run.name;
    if (!all.has(key)) all.set(key, { runs: [], all: [], colour: `--c${all.size % COLOURS}`, dash: DASHES[Math.floor(all.size / COLOURS) % DASHES.length] });
    all.get(key).all.push(run);
  }
  for (const line of all.values()) {
    line.runs = line.all.filter((run) => shown.includes(run));
    line.label = line.all.length > 1 && line.runs.length > 1 ? common(line.runs.map((run) => run.name)) : line.runs[0]?.name;
    for (const run of line.all) run.colour = line.colour;
  }
  return [...all.values()].filter((line) => line.runs.length);
}

/** The common part of the seeds' names, without separators: `nature` of nature-s1 and nature-s2. */
function common(names) {
  let length = 0;
  while (length < names[0].length && names.every((name) => name[length] === names[0][length])) length++;
  return names[0].slice(0, length).replace(/[-_/. ]*(seed|s)?[-_=]*$/i, "") || names[0];
}

function drawList(listed) {
  for (const [name, item] of items) {
    if (!runs.has(name)) {
      item.remove();
      items.delete(name);
    }
  }
  const list = find("list");
  const sorted = [...runs.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  sorted.forEach((run, i) => {
    const item = items.get(run.name) ?? makeItem(run.name);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
    const { card } = run;
    const step = newest(run, "step");
    const total = card.config.total_steps;
    item.hidden = !listed.includes(run);
    item.dataset.points = run.rows;
    item.style.setProperty("--swatch", `var(${run.colour})`);
    const [state, facts, done] = [".state", ".facts", ".bar i"].map((part) => item.querySelector(part));
    state.textContent = card.state;
    state.className = `state ${card.state}`;
    const score = newest(run, "train/return_per_game");
    facts.textContent = `${card.config.game ?? "–"}, seed ${card.config.seed ?? "–"} · ${brief(step)} steps · ${brief(score)}`;
    facts.title = `mean return per game ${brief(score)} at step ${grouped(step)}`;
    done.style.width = total ? `${Math.min(100, (100 * step) / total)}%` : "0";
  });
  find("count").textContent = runs.size < folder.count ? `${runs.size} of ${folder.count}` : `${runs.size}`;
  find("folder").textContent = folder.name;
  find("nothing").hidden = runs.size > 0;
  document.title = `${folder.name} – pixelq`;
}

function makeItem(name) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hidden.has(name) });
  const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
  label.append(box, text);
  const end = document.createElement("span");
  const about = Object.assign(document.createElement("button"), { className: "about", type: "button", textContent: "i" });
  about.setAttribute("aria-label", `About ${name}`);
  about.addEventListener("click", () => showAbout(runs.get(name)));
  end.append(document.createElement("span"), about);
  end.firstChild.className = "state";
  const facts = Object.assign(document.createElement("span"), { className: "facts" });
  const bar = Object.assign(document.createElement("span"), { className: "bar" });
  bar.append(document.createElement("i"));
  item.append(label, end, facts, bar);
  item.dataset.run = name;
  box.addEventListener("change", () => hide([name], !box.checked));
  items.set(name, item);
  return item;
}

function hide(names, away) {
  for (const name of names) {
    if (away) hidden.add(name);
    else hidden.delete(name);
    items.get(name).querySelector("input").checked = !away;
  }
  sessionStorage.setItem("hidden", JSON.stringify([...hidden]));
  drawAll();
}

function draw() {
  const listed = matching();
  const shown = listed.filter((run) => !hidden.has(run.name));
  const groups = lines(shown);
  drawList(listed);
  drawCharts(groups, drawAll);
  find("whole").hidden = view.zoom === null;
  progressTable(shown);
  if (todo.cards) {
    scoresTable(shown);
    settingsTable(shown);
    machineTable(shown);
    showVideos(shown);
  }
  todo.cards = todo.points = false;
  find("charts").dataset.runs = shown.filter((run) => run.rows).length; // what is drawn now, for tests
}

function drawSoon(what) {
  todo[what] = true;
  const waits = !todo.drawn && [...runs.values()].filter((run) => run.rows).length < folder.count;
  if (todo.timer && (waits || !todo.waits)) return;
  clearTimeout(todo.timer);
  todo.waits = waits;
  todo.timer = setTimeout(() => {
    todo.timer = 0;
    todo.drawn = true;
    const begin = performance.now();
    draw();
    todo.spent = performance.now() - begin;
  }, waits ? FIRST_MS : Math.max(DRAW_MS, DRAW_SHARE * todo.spent));
}

function drawAll() {
  todo.cards = true;
  draw();
}

function readControls() {
  view.axis = document.querySelector("input[name=axis]:checked").value;
  view.smoothing = Number(find("smoothing").value);
  find("smoothed").textContent = view.smoothing;
}

for (const input of document.querySelectorAll("#how input")) {
  input.addEventListener("input", () => {
    if (input.name === "axis") view.zoom = null;
    readControls();
    drawAll();
  });
}
find("how").addEventListener("submit", (event) => event.preventDefault());
find("filter").addEventListener("input", drawAll);
find("all").addEventListener("click", () => hide(matching().map((run) => run.name), false));
find("none").addEventListener("click", () => hide(matching().map((run) => run.name), true));
find("whole").addEventListener("click", () => zoom(null));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
if (matchMedia("(max-width: 900px)").matches) find("runs").open = false;
if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token is in the cookie now
readControls();
follow(drawSoon, (state) => {
  find("link").className = state;
  find("link").textContent = state === "live" ? "live" : "not connected, trying again";
});
