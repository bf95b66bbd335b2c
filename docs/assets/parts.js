// What the small programs of the pages share: elements, sliders, buttons, and a chart in SVG. No server, no other host.
"use strict";
const pixelq = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 400, HEIGHT = 210, LEFT = 42, RIGHT = 34, TOP = 12, BOTTOM = 34; // of a chart, in its own units

  const make = (tag, text, into) => {
    const element = document.createElement(tag);
    element.textContent = text;
    into.append(element);
    return element;
  };

  const draw = (tag, attributes, into, text = "") => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    into.append(element);
    return element;
  };

  // A labelled slider with its value beside it; returns a function that reads it. `shown` makes text of a value.
  const slider = (into, name, [low, high, step], value, shown = String, changed = () => {}) => {
    const label = make("label", `${name} `, into);
    const input = make("input", "", label), output = make("output", "", label);
    Object.assign(input, { type: "range", min: low, max: high, step });
    input.value = value;
    const show = () => {
      output.textContent = shown(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { show(); changed(); });
    show();
    return () => Number(input.value);
  };

  const button = (into, text, act) => {
    const element = make("button", text, into);
    element.type = "button";
    element.addEventListener("click", act);
  };

  // A line that says what is drawn, read aloud when it changes.
  const summary = (into) => {
    const line = make("p", "", into);
    line.setAttribute("aria-live", "polite");
    return line;
  };

  const ticks = (most) => {
    const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
    return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, index) => index * step);
  };

  const short = (value) => (value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(3))));

  // A chart: `lines` are {kind, points: [[x, y], …], right}, drawn from 0 to `x.most` and `y.most`.
  // With `right`, a second axis, lines marked so belong to it.
  const chart = (home, label) => {
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, home);
    svg.classList.add("pixelq-chart");
    return (lines, x, y, right = null) => {
      svg.replaceChildren();
      const across = (value) => LEFT + (value / x.most) * (WIDTH - LEFT - RIGHT);
      const up = (value, most) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
      for (const value of ticks(y.most)) {
        draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(value, y.most), y2: up(value, y.most), class: "grid" }, svg);
        draw("text", { x: LEFT - 4, y: up(value, y.most) + 4, class: "left" }, svg, short(value));
      }
      for (const value of ticks(x.most)) {
        draw("text", { x: across(value), y: HEIGHT - BOTTOM + 14, class: "under" }, svg, short(value));
      }
      for (const value of right ? ticks(right.most) : []) {
        draw("text", { x: WIDTH - RIGHT + 4, y: up(value, right.most) + 4, class: "right" }, svg, short(value));
      }
      draw("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, class: "under" }, svg, x.name);
      for (const { kind, points, right: second } of lines) {
        const most = second ? right.most : y.most;
        const path = points.map(([at, value]) => `${across(at).toFixed(1)},${up(Math.min(value, most), most).toFixed(1)}`);
        draw("path", { d: `M${path.join("L")}`, class: kind }, svg);
      }
    };
  };

  // What the lines of a chart are, in words.
  const legend = (home, entries) => {
    const line = make("p", "", home);
    line.className = "pixelq-legend";
    for (const [kind, text] of entries) make("span", text, line).className = kind;
  };

  // The frame of a program on a page, with its title.
  const title = (home) => {
    home.classList.add("pixelq-box");
    make("p", home.dataset.title, home).className = "pixelq-title";
  };

  // Runs a program for every empty element that a selector finds, once the page is there.
  const start = (selector, program) => {
    const run = () => document.querySelectorAll(`${selector}:empty`).forEach(program);
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
    else run();
  };

  return { button, chart, legend, make, slider, start, summary, title };
})();
