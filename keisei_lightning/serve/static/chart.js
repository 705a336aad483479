// A chart of lines: axes with units, a legend, values where the pointer is, and the same numbers as a table.

import { draw, make, readable } from "./common.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [380, 200, 50, 12, 10, 36];
const ROWS = 25;

/** Numbers for an axis from low to high: round, and about as many as asked for. */
export function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

export class Chart {
  constructor(title, unit) {
    this.readout = make("p", { class: "readout small" });
    this.legend = make("ul", { class: "legend" });
    this.picture = make("div", {});
    this.table = make("details", { toggle: () => this.fillTable() }, make("summary", {}, "Table"));
    this.title = title;
    this.unit = unit;
    this.element = make("figure", { class: "card chart" },
      make("figcaption", {}, make("strong", {}, title), unit ? make("span", { class: "small" }, ` ${unit}`) : ""),
      this.legend, this.picture, this.readout, this.table);
  }

  /** Draws lines, each with a name and points [x, y], over an axis of this name. */
  show(series, axis) {
    this.series = series.filter((each) => each.points.length);
    this.axis = axis;
    this.legend.replaceChildren(...this.series.map((each, n) => make("li", { class: `s${n % 6}` }, each.name)));
    this.legend.hidden = this.series.length < 2;
    const points = this.series.flatMap((each) => each.points);
    if (!points.length) {
      this.picture.replaceChildren(make("p", { class: "small" }, "Nothing yet."));
      return;
    }
    this.measure(points);
    this.picture.replaceChildren(this.plot());
    this.tell(null);
    if (this.table.open) this.fillTable();
  }

  measure(points) {
    const ends = (values) => values.reduce(([a, b], each) => [Math.min(a, each), Math.max(b, each)], [Infinity, -Infinity]);
    const [x0, x1] = ends(points.map(([x]) => x));
    let [y0, y1] = ends(points.map(([, y]) => y));
    if (y0 === 0 && y1 === 0) y1 = 1;
    if (y0 === y1) [y0, y1] = [y0 - Math.abs(y0) * 0.1 - 0.1, y1 + Math.abs(y1) * 0.1 + 0.1];
    const pad = (y1 - y0) * 0.05;
    [this.low, this.high] = [y0 >= 0 && y0 < pad * 4 ? 0 : y0 - pad, y1 + pad];
    const first = Math.min(x0, 0);
    [this.first, this.last] = [first, x1 > first ? x1 : first + 1];
  }

  x(value) { return LEFT + ((value - this.first) / (this.last - this.first)) * (WIDTH - LEFT - RIGHT); }

  y(value) { return TOP + ((this.high - value) / (this.high - this.low)) * (HEIGHT - TOP - BOTTOM); }

  plot() {
    const words = this.series.map((each) => `${each.name} ${readable(each.points.at(-1)[1])}`).join(", ");
    const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${this.title}: ${words}` });
    for (const at of ticks(this.low, this.high, 4)) {
      picture.append(draw("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: this.y(at), y2: this.y(at) }),
        draw("text", { x: LEFT - 6, y: this.y(at) + 4, "text-anchor": "end" }, readable(at)));
    }
    for (const at of ticks(this.first, this.last, 4)) {
      picture.append(draw("text", { x: this.x(at), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, readable(at)));
    }
    picture.append(draw("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, this.axis));
    this.series.forEach((each, n) => {
      const points = each.points.map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`).join(" ");
      picture.append(draw("polyline", { class: `line s${n % 6}`, points }));
      if (each.points.length < 40) {
        for (const [x, y] of each.points) picture.append(draw("circle", { class: `dot s${n % 6}`, cx: this.x(x), cy: this.y(y), r: 3 }));
      }
    });
    this.pointer = draw("line", { class: "now", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    picture.append(this.pointer);
    picture.addEventListener("pointermove", (event) => this.tell(event));
    picture.addEventListener("pointerleave", () => this.tell(null));
    return picture;
  }

  /** The numbers below the pointer, or the last ones. */
  tell(event) {
    let at = this.last;
    if (event) {
      const box = event.currentTarget.getBoundingClientRect();
      const inside = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
      at = this.first + Math.max(0, Math.min(1, inside)) * (this.last - this.first);
    }
    const near = this.series.map((each) => nearest(each.points, at));
    const x = event ? this.x(near[0][0]) : -9;
    this.pointer.setAttribute("x1", x);
    this.pointer.setAttribute("x2", x);
    const values = this.series.map((each, n) => `${this.series.length > 1 ? `${each.name} ` : ""}${readable(near[n][1])}`);
    this.readout.textContent = `${event ? "" : "now: "}${values.join(" · ")} at ${readable(near[0][0])} ${this.axis}`;
  }

  fillTable() {
    this.table.querySelector("div")?.remove();
    if (!this.series?.length) return;
    const longest = this.series.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
    const step = Math.max(1, Math.ceil(longest.length / ROWS));
    const xs = longest.filter((_, n) => (longest.length - 1 - n) % step === 0).map(([x]) => x);
    const head = make("tr", {}, make("th", { scope: "col" }, this.axis), ...this.series.map((each) => make("th", { scope: "col" }, each.name)));
    const row = (x) => make("tr", {}, make("th", { scope: "row" }, readable(x)),
      ...this.series.map((each) => make("td", {}, readable(nearest(each.points, x)[1]))));
    this.table.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${this.title}, table` },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...xs.map(row)))));
  }
}

function nearest(points, at) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= at) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - at) <= Math.abs(points[high][0] - at) ? points[low] : points[high];
}
