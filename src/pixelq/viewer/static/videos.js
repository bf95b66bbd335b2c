// Videos of the runs that are shown; a player does not change while it plays.

import { grouped } from "./maths.js";

const players = new Map();
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && target.dataset.src && target.getAttribute("src") !== target.dataset.src) target.src = target.dataset.src;
  }
}, { rootMargin: "300px" });

const address = (run, file) => `videos/${[...run.split("/"), file].map(encodeURIComponent).join("/")}`;
const name = ({ step, file }) => (step === null ? file : `step ${grouped(step)}`);

/** Show a player for each run that has videos, the newest unless another was chosen. */
export function showVideos(runs) {
  const box = document.querySelector("#videos .films");
  const wanted = runs.filter((run) => run.card.videos.length);
  for (const [run, player] of players) {
    if (!wanted.some((other) => other.name === run)) {
      near.unobserve(player.video);
      player.figure.remove();
      players.delete(run);
    }
  }
  for (const run of wanted) {
    const player = players.get(run.name) ?? makePlayer(run.name);
    update(player, run);
    box.append(...(player.figure.parentNode ? [] : [player.figure]));
  }
  box.querySelector(".empty")?.remove();
  if (!wanted.length) {
    const text = document.createElement("p");
    text.className = "empty";
    text.textContent = "No videos of these runs yet.";
    box.append(text);
  }
}

function makePlayer(run) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const label = document.createElement("span");
  label.textContent = label.title = run;
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", `Video of ${run}`);
  const video = document.createElement("video");
  Object.assign(video, { controls: true, loop: true, muted: true, playsInline: true, preload: "metadata" });
  video.setAttribute("aria-label", `A game played by ${run}`);
  caption.append(label, choice);
  figure.append(caption, video);
  const player = { run, figure, choice, video, files: "", followsNewest: true };
  choice.addEventListener("change", () => {
    player.followsNewest = choice.selectedIndex === 0;
    show(player, true);
  });
  near.observe(video);
  players.set(run, player);
  return player;
}

function update(player, { card }) {
  const videos = card.videos.toReversed();
  const files = JSON.stringify(videos);
  if (files === player.files) return;
  player.files = files;
  const chosen = player.choice.value;
  player.choice.replaceChildren(...videos.map((video) => new Option(name(video), video.file)));
  const busy = !player.video.paused && !player.video.ended;
  if ((!player.followsNewest || busy) && videos.some(({ file }) => file === chosen)) player.choice.value = chosen;
  show(player, false);
}

function show({ run, choice, video }, now) {
  const wanted = address(run, choice.value);
  if (video.dataset.src === wanted) return;
  video.dataset.src = wanted;
  if (now) video.src = wanted;
  else {
    near.unobserve(video);
    near.observe(video); // reports again whether it is near
  }
}
