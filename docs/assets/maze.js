// A Q-table that learns a small maze in the page. It works with the keyboard and without a server.
"use strict";
(() => {
  const MAP = ["S..#.", ".#...", ".#.#.", "...#G"]; // S start, # wall, G goal
  const MOVES = [[-1, 0], [0, 1], [1, 0], [0, -1]]; // up, right, down, left
  const ARROWS = ["↑", "→", "↓", "←"];
  const rows = MAP.length, columns = MAP[0].length;

  class Maze {
    constructor(home) {
      this.home = home;
      this.random = 1;
      pixelq.title(home);
      this.grid = pixelq.make("div", "", home);
      this.grid.className = "pixelq-grid";
      this.grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
      this.cells = [...MAP.join("")].map(() => pixelq.make("div", "", this.grid));
      const controls = pixelq.make("div", "", home);
      this.epsilon = pixelq.slider(controls, "ε", [0, 1, 0.05], 0.3);
      this.gamma = pixelq.slider(controls, "γ", [0.5, 1, 0.05], 0.9);
      this.rate = pixelq.slider(controls, "learning rate", [0.05, 1, 0.05], 0.5);
      const button = (text, act) => pixelq.button(controls, text, () => { act(); this.draw(); });
      button("one step", () => this.steps(1));
      button("one episode", () => this.episodes(1));
      button("100 episodes", () => this.episodes(100));
      button("forget", () => this.forget());
      this.state = pixelq.summary(home);
      this.forget();
    }

    forget() {
      this.random = 1;
      this.q = MAP.map((row) => [...row].map(() => [0, 0, 0, 0]));
      this.done = 0;
      this.begin();
      this.draw();
    }

    begin() {
      this.place = [0, 0];
      this.length = 0;
    }

    chance() { // the same numbers every time (Park & Miller 1988)
      this.random = (this.random * 48271) % 2147483647;
      return this.random / 2147483647;
    }

    best(values) {
      return values.indexOf(Math.max(...values));
    }

    step() {
      const [row, column] = this.place, values = this.q[row][column];
      const action = this.chance() < this.epsilon() ? Math.floor(this.chance() * 4) : this.best(values);
      let next = [row + MOVES[action][0], column + MOVES[action][1]];
      const tile = MAP[next[0]]?.[next[1]];
      if (tile === undefined || tile === "#") next = [row, column];
      const goal = tile === "G";
      const target = goal ? 1 : this.gamma() * Math.max(...this.q[next[0]][next[1]]);
      values[action] += this.rate() * (target - values[action]);
      this.place = next;
      this.length += 1;
      if (goal || this.length >= 200) {
        this.done += 1;
        this.last = this.length;
        this.begin();
        return true;
      }
      return false;
    }

    steps(count) {
      for (let step = 0; step < count; step += 1) this.step();
    }

    episodes(count) {
      for (let episode = 0; episode < count; episode += 1) while (!this.step());
    }

    draw() {
      [...MAP.join("")].forEach((tile, place) => {
        const row = Math.floor(place / columns), column = place % columns, cell = this.cells[place];
        const most = Math.max(...this.q[row][column]), here = row === this.place[0] && column === this.place[1];
        cell.className = tile === "#" ? "wall" : here ? "here" : "";
        cell.textContent = tile === "G" ? "goal" : tile === "#" ? "" : most > 0.0005 ? `${ARROWS[this.best(this.q[row][column])]} ${most.toFixed(2)}` : "0";
        cell.style.setProperty("--value", tile === "#" ? 0 : Math.round(70 * most) + "%");
      });
      const steps = this.done ? ` The last one took ${this.last} steps; the shortest way takes 7.` : "";
      this.state.textContent = `${this.done} episodes.${steps}`;
    }
  }

  pixelq.start(".pixelq-maze", (home) => new Maze(home));
})();
