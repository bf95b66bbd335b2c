// The page of `pixelq watch`. The server plays a step on request; the clock is here. messages.py describes the
// messages between them.

import { Bars, drawLook, drawPicture, drawPlanes, drawTimeline, historyLength, makePlanes } from "./watch-draw.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const LEAD = { agent: 12, person: 3 }; // pictures kept ahead at real speed: enough to be smooth, few enough to steer
const GAME_OVER_MS = 1500;
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", " ": "fire" };
const LOOKS = ["off", "gradient", "occlusion"];
const CHOOSERS = { chance: "at random (ε)", fire: "FIRE after a lost life", person: "by you" };
const part = (id) => document.getElementById(id);

let state = null; // the server's newest settings
let shown = null; // the moment on the screen
let queue = []; // next pictures: { moment, index }
let asked = 0; // requested moments
let stale = 0; // how many of them belong to a dropped game
let playing = true;
let onlyStep = false; // pause at the end of the moment
let speed = 1;
let due = 0.5; // pictures that should have been shown by now; half a picture off the screen's beat, to slip rarely
let lastTick = 0;
let heldUntil = 0; // a finished game stays for a while
let look = "off";
let looking = false; // a map is on its way
let lookAt = null; // the newest map, unless the kind has changed since
let history = [];
const keys = new Set(); // held keys
const tapped = new Set(); // pressed since the last step, perhaps released again
const lookButtons = document.querySelectorAll("[data-look]");
let planes = []; // a canvas each
const bars = new Bars(part("bars"), part("axis"));
const trace = {
  framesDrawn: 0, steps: 0, moment: null, start: null, lookAt: null, closed: null, get playing() { return playing; },
};
window.pixelq = trace; // for tests and the curious

const socket = new WebSocket(new URL("/play", location.href.replace(/^http/, "ws")));
socket.binaryType = "arraybuffer";
let arrivals = Promise.resolve(); // in order, though unpacking takes its time
socket.onmessage = ({ data }) => {
  arrivals = arrivals.then(() => (typeof data === "string" ? takeState(JSON.parse(data)) : unpack(data)));
};
socket.onclose = ({ code, reason }) => {
  arrivals.then(() => {
    trace.closed = { code, reason };
    playing = false;
    banner(`${reason || "The connection to pixelq is closed"}. Reload the page to go on.`);
    for (const control of document.querySelectorAll("button, input")) control.disabled = true;
  });
};
const send = (request) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(request));

async function unpack(data) {
  const length = new DataView(data).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const body = new Blob([new Uint8Array(data, 4 + length)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(body).arrayBuffer());
  if (facts.type === "look") takeLook(facts, bytes);
  else takeMoment(facts, bytes);
}

function takeState(said) {
  if (!state) {
    part("game").textContent = said.game;
    part("agent").textContent = `played by ${said.name}`;
    document.title = `${said.game} – pixelq watch`;
    bars.show(said.actions, said.sees);
    part("value-card").hidden = !said.sees;
    if (!said.sees) {
      part("values-title").textContent = "Random actions";
      part("side-agent").firstElementChild.textContent = "Random play";
    }
    for (const button of lookButtons) button.disabled = !said.sees;
    part("epsilon").disabled = !said.sees;
    part("seed").value = said.seed;
    part("sticky").value = said.sticky;
    part("epsilon").value = said.epsilon;
    planes = makePlanes(part("planes"), said.seen.stack);
    const kind = said.seen.channels === 3 ? "colour pictures" : "planes";
    part("planes-form").textContent = `${said.seen.stack} ${kind} of ${said.seen.height}×${said.seen.width}, newest right`;
    asked = 1; // the server sends the first moment unasked
  }
  state = said;
  part("epsilon-shown").textContent = said.epsilon.toFixed(2);
  part("conditions").textContent = said.conditions;
  showHolder();
}

function takeMoment(moment, bytes) {
  asked -= 1;
  if (stale > 0) {
    stale -= 1;
    return;
  }
  const size = moment.rows * moment.columns * 3;
  moment.pictures = Array.from({ length: moment.count }, (_, n) => bytes.subarray(n * size, (n + 1) * size));
  moment.planes = bytes.subarray(moment.count * size);
  for (let index = 0; index < moment.count; index += 1) queue.push({ moment, index });
}

function takeLook(facts, bytes) {
  looking = false;
  if (facts.kind === look) {
    if (facts.found) drawLook(part("overlay"), bytes, look, state.seen);
    lookAt = trace.lookAt = facts;
  }
  askLook();
}

// The clock

function tick(now) {
  requestAnimationFrame(tick);
  const passed = Math.min(now - lastTick, 100); // a hidden tab does not run after the time
  lastTick = now;
  if (!state) return;
  ask();
  if (!playing || now < heldUntil) return;
  due += passed / 1000 * state.pictures_a_second * speed;
  const before = shown;
  let next = null;
  while (due >= 1 && queue.length) {
    due -= 1;
    next = queue.shift();
    if (next.index === 0) begin(next.moment);
    if (next.index === next.moment.count - 1 && finish(next.moment, now)) break;
  }
  if (!queue.length) due = Math.min(due, 0.5); // late pictures keep their pace
  if (!next) return;
  if (shown !== before) drawThoughts();
  drawPicture(part("screen"), next.moment.pictures[next.index], next.moment.rows, next.moment.columns);
  trace.framesDrawn += 1;
}

function ask() {
  const each = shown ? Math.max(1, Math.round(state.pictures_a_second / state.steps_a_second)) : 1;
  const lead = LEAD[state.holder] * Math.max(1, speed) * each / 4;
  while (socket.readyState === WebSocket.OPEN && queue.length + asked * each <= lead) {
    send({ do: "next", keys: [...new Set([...keys, ...tapped])] });
    tapped.clear();
    asked += 1;
  }
}

// A moment's first picture: observation, values and action
function begin(moment) {
  const before = shown;
  shown = trace.moment = moment;
  trace.steps += 1;
  if (!before || moment.action === null) {
    trace.start = moment;
    part("stage").style.setProperty("--ratio", moment.columns / moment.rows);
    banner("");
  }
  const fresh = before !== null && moment.trained !== before.trained;
  if (fresh || !before) showTrained(moment, fresh);
  if (!moment.values) return;
  const lost = moment.over || (before !== null && moment.action !== null && moment.lives < before.lives);
  const [low, value] = [Math.min(...moment.values), Math.max(...moment.values)];
  history.push({ value, low, reward: moment.reward, lost, fresh, start: moment.action === null });
  history = history.slice(-historyLength(state.steps_a_second));
}

function drawThoughts() {
  drawPlanes(planes, shown.planes, state.seen);
  bars.draw(shown, history);
  if (shown.values) {
    part("value").textContent = history.at(-1).value.toFixed(3);
    part("chooser").textContent = CHOOSERS[shown.chooser] ?? "";
    drawTimeline(part("timeline"), history, state.steps_a_second);
  }
  askLook();
}

// Its last picture: the result. Returns whether the clock stops here
function finish(moment, now) {
  showScores(moment);
  if (moment.over) {
    heldUntil = now + GAME_OVER_MS / Math.max(1, speed);
    const points = moment.scores.person.points + moment.scores.agent.points;
    banner(`Game over: ${points} point${points === 1 ? "" : "s"}`);
  }
  if (onlyStep) pause(true);
  return moment.over || !playing;
}

// Saliency: of the moment on the screen, as fast as maps come

function askLook() {
  if (look === "off" || looking || !shown || !state.sees) return;
  if (lookAt && lookAt.number === shown.number && lookAt.kind === look) return;
  looking = send({ do: "look", number: shown.number, kind: look }) !== false;
}

function setLook(kind) {
  look = kind;
  lookAt = trace.lookAt = null;
  if (state) drawLook(part("overlay"), null, look, state.seen);
  for (const button of lookButtons) button.ariaPressed = String(button.dataset.look === kind);
  askLook();
}

// The panels beside the screen

function banner(text) {
  if (part("banner").textContent !== text) part("banner").textContent = text;
}

function showTrained(moment, fresh) {
  const badge = part("trained");
  badge.hidden = moment.trained === null;
  if (badge.hidden) return;
  badge.textContent = `${fresh ? "new: " : ""}${moment.trained.toLocaleString("en")} steps of training`;
  badge.classList.toggle("fresh", fresh);
}

function showScores(moment) {
  part("lives").textContent = moment.lives ? `${moment.lives} ${moment.lives === 1 ? "life" : "lives"} left` : "";
  for (const [side, score] of Object.entries(moment.scores)) {
    const seconds = score.steps / state.steps_a_second;
    const clock = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    const set = (name, text) => { part(`side-${side}`).querySelector(`[data-part="${name}"]`).textContent = text; };
    set("points", score.points);
    set("rate", score.steps ? `in ${clock}, ${(score.points * 60 / seconds).toFixed(1)} a minute` : "not played yet");
    const games = `${score.games} game${score.games === 1 ? "" : "s"}`;
    set("games", score.games ? `alone: best ${score.best}, last ${score.last}, ${games}` : "no whole game alone yet");
  }
}

function showHolder() {
  const person = state.holder === "person";
  for (const side of ["person", "agent"]) part(`side-${side}`).classList.toggle("holds", state.holder === side);
  part("joystick").textContent = person ? "Give it back" : "Take the joystick";
  part("joystick").ariaPressed = String(person);
  part("stage").classList.toggle("person", person);
  part("pad").hidden = !(person && matchMedia("(pointer: coarse)").matches);
}

// A person's input

function pause(stop) {
  playing = !stop;
  onlyStep = false;
  part("pause").textContent = stop ? "Continue" : "Pause";
}

function step() {
  pause(false);
  onlyStep = true;
  part("pause").textContent = "Continue";
}

function changeSpeed(by) {
  speed = SPEEDS[Math.min(Math.max(SPEEDS.indexOf(speed) + by, 0), SPEEDS.length - 1)];
  part("speed").textContent = `${{ 0.25: "¼", 0.5: "½" }[speed] ?? speed}×`;
}

function hand(holder) {
  keys.clear();
  tapped.clear();
  send({ do: "joystick", holder });
  if (holder === "person") {
    part("stage").focus();
    if (!playing) pause(false);
  }
}

function restart() {
  if (!part("settings").reportValidity()) return;
  send({ do: "restart", seed: Number(part("seed").value), sticky: Number(part("sticky").value) });
  queue = [];
  stale = asked;
  asked += 1;
  heldUntil = 0;
  history = [];
  if (!playing) step();
  banner("Starting…");
  backToPlay();
}

// The focused element gets the arrow keys
function backToPlay() {
  if (state.holder === "person") part("stage").focus();
}

part("pause").onclick = () => pause(playing && !onlyStep);
part("step").onclick = step;
part("slower").onclick = () => changeSpeed(-1);
part("faster").onclick = () => changeSpeed(1);
part("joystick").onclick = () => hand(state.holder === "person" ? "agent" : "person");
for (const button of lookButtons) button.onclick = () => setLook(button.dataset.look);
part("epsilon").oninput = () => { part("epsilon-shown").textContent = Number(part("epsilon").value).toFixed(2); };
part("epsilon").onchange = () => {
  send({ do: "epsilon", value: Number(part("epsilon").value) });
  backToPlay();
};
part("settings").onsubmit = (event) => {
  event.preventDefault();
  restart();
};

const SHORTCUTS = {
  p: "pause", ".": "step", "-": "slower", "−": "slower", "+": "faster", "=": "faster", j: "joystick", r: "restart",
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.target instanceof HTMLInputElement) return;
  if (state.holder === "person" && key in KEYS) {
    event.preventDefault(); // no scrolling, no click on the focused element
    keys.add(KEYS[key]);
    tapped.add(KEYS[key]);
  } else if (key === "Escape" && state.holder === "person") hand("agent");
  else if (event.repeat && key !== ".") return;
  else if (key in SHORTCUTS) part(SHORTCUTS[key]).click();
  else if (key === "s" && state.sees) setLook(LOOKS[(LOOKS.indexOf(look) + 1) % LOOKS.length]);
});
document.addEventListener("keyup", (event) => {
  keys.delete(KEYS[event.key]);
  if (event.target instanceof HTMLInputElement) return;
  if (state?.holder === "person" && event.key in KEYS) event.preventDefault();
});
window.addEventListener("blur", () => keys.clear());
for (const button of document.querySelectorAll("[data-key]")) {
  button.onpointerdown = (event) => {
    event.preventDefault();
    keys.add(button.dataset.key);
    tapped.add(button.dataset.key);
  };
  button.onpointerup = button.onpointercancel = button.onpointerleave = () => keys.delete(button.dataset.key);
}

requestAnimationFrame(tick);
