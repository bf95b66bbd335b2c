// Three curves with sliders: how ε falls, how far γ looks ahead, how a target network follows.
"use strict";
(() => {
  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
  const whole = (value) => Math.round(value).toLocaleString("en");

  // ε over the steps of a recorded run, beside the return per game that the run had.
  const epsilon = (home) => {
    const [steps, returns, recorded] = ["steps", "returns", "epsilon"].map((name) => JSON.parse(home.dataset[name]));
    const last = steps[steps.length - 1], most = Math.max(...returns.filter((value) => value !== null));
    const curve = (values) => steps.map((step, index) => [step, values[index]]).filter(([, value]) => value !== null);
    pixelq.title(home);
    const draw = pixelq.chart(home, "ε and return per game over steps");
    pixelq.legend(home, [["one", "ε by the sliders (left)"], ["faint", "ε of the run (left)"], ["two", "return per game of the run (right)"]]);
    const controls = pixelq.make("div", "", home), update = () => redraw();
    const random = pixelq.slider(controls, "all random until step", [0, 200_000, 10_000], home.dataset.from, whole, update);
    const decay = pixelq.slider(controls, "decay steps", [10_000, 500_000, 10_000], home.dataset.decay, whole, update);
    const end = pixelq.slider(controls, "ε at the end", [0, 0.5, 0.01], home.dataset.end, (value) => value.toFixed(2), update);
    const line = pixelq.summary(home);
    const at = (step) => 1 + (end() - 1) * Math.min(1, Math.max(0, (step - random()) / decay()));
    const redraw = () => {
      const points = Array.from({ length: 101 }, (_, index) => [(index * last) / 100, at((index * last) / 100)]);
      const mean = points.reduce((sum, [, value]) => sum + value, 0) / points.length;
      draw([{ kind: "faint", points: curve(recorded) }, { kind: "two", points: curve(returns), right: true }, { kind: "one", points }],
        { most: last, name: "steps" }, { most: 1 }, { most });
      line.textContent = `At step 100,000 ε is ${at(100_000).toFixed(2)}. ${percent(mean)} of all actions in ${whole(last)} steps are random.`;
    };
    redraw();
  };

  // What a reward some steps ahead counts.
  const gamma = (home) => {
    const far = 400;
    pixelq.title(home);
    const draw = pixelq.chart(home, "weight of a reward by its distance in steps");
    const controls = pixelq.make("div", "", home), update = () => redraw();
    const value = (place) => 1 - 10 ** (-place / 100); // evenly in the horizon: 0.9 at 100, 0.99 at 200
    const chosen = pixelq.slider(controls, "γ", [30, 300, 1], 200, (place) => value(place).toFixed(3), update);
    const steps = pixelq.slider(controls, "reward after, steps", [0, far, 1], 100, String, update);
    const line = pixelq.summary(home);
    const redraw = () => {
      const discount = value(chosen()), horizon = 1 / (1 - discount), weight = discount ** steps();
      const points = Array.from({ length: far + 1 }, (_, index) => [index, discount ** index]);
      draw([{ kind: "one", points }, { kind: "faint", points: [[steps(), 0], [steps(), weight], [0, weight]] }],
        { most: far, name: "steps until the reward" }, { most: 1 });
      line.textContent = `A reward after ${steps()} steps counts ${percent(weight)}. All weights add up to ${horizon.toFixed(1)}: ` +
        `the agent looks some ${whole(horizon)} steps ahead, on Atari ${(horizon / 15).toFixed(1)} seconds.`;
    };
    redraw();
  };

  // One state that leads to itself and pays about 1: its value follows the target network's, copy by copy.
  const target = (home) => {
    const updates = 400;
    pixelq.title(home);
    const draw = pixelq.chart(home, "value, target and true value over updates");
    pixelq.legend(home, [["one", "online network's value"], ["two", "target network's value"], ["faint", "true value"]]);
    const controls = pixelq.make("div", "", home), update = () => redraw();
    const period = pixelq.slider(controls, "updates between copies", [1, 100, 1], 10, String, update);
    const rate = pixelq.slider(controls, "learning rate", [0.05, 1, 0.05], 0.3, (value) => value.toFixed(2), update);
    const discount = pixelq.slider(controls, "γ", [0.5, 0.95, 0.05], 0.9, (value) => value.toFixed(2), update);
    const line = pixelq.summary(home);
    const redraw = () => {
      const truth = 1 / (1 - discount()), online = [], copies = [];
      let value = 0, copy = 0, random = 1, first = null;
      for (let index = 0; index <= updates; index += 1) {
        if (index % period() === 0) copy = value;
        online.push([index, value]);
        copies.push([index, copy]);
        if (first === null && value >= 0.9 * truth) first = index;
        random = (random * 48271) % 2147483647; // the same numbers every time (Park & Miller 1988)
        const reward = 0.5 + random / 2147483647;
        value += rate() * (reward + discount() * copy - value);
      }
      draw([{ kind: "faint", points: [[0, truth], [updates, truth]] }, { kind: "two", points: copies }, { kind: "one", points: online }],
        { most: updates, name: "updates" }, { most: 1.25 * truth });
      line.textContent = first === null ? `The value does not reach 90% of ${truth.toFixed(1)} in ${updates} updates.`
        : `The value reaches 90% of ${truth.toFixed(1)} after ${first} updates.`;
    };
    redraw();
  };

  pixelq.start(".pixelq-epsilon", epsilon);
  pixelq.start(".pixelq-gamma", gamma);
  pixelq.start(".pixelq-target", target);
})();
