// A board that a person plays on: the game's own picture, with a cursor, marks and arrows of ours in it.

import { draw } from "./common.js";

const OWN_STYLE = `
  :host { display: block; position: relative; outline: none; touch-action: manipulation; }
  svg { display: block; width: 100%; height: auto; max-height: 78vh; }
  [data-part] { cursor: pointer; }
  .cursor { fill: none; stroke: #0b57d0; stroke-width: 4; visibility: hidden; }
  :host(:focus-visible) .cursor { visibility: visible; }
  .chosen { fill: #0b57d0; opacity: 0.35; }
  .target { fill: #0b57d0; opacity: 0.6; }
  .heat { fill: #7b2ff2; }
  .arrow { stroke: #7b2ff2; fill: #7b2ff2; stroke-linecap: round; }
  @media (prefers-color-scheme: dark) {
    .cursor { stroke: #a8c7fa; }
    .chosen, .target { fill: #a8c7fa; }
  }
`;

export class Board {
  /** @param host an empty element; @param onMove gets the moves that the clicked parts may mean; @param say tells. */
  constructor(host, onMove, say) {
    this.host = host;
    this.onMove = onMove;
    this.say = say;
    this.root = host.attachShadow({ mode: "open" });
    this.own = new CSSStyleSheet();
    this.own.replaceSync(OWN_STYLE);
    this.moves = [];
    this.chosen = [];
    this.cursor = null;
    this.turned = false;
    this.thoughts = [];
    this.root.addEventListener("click", (event) => {
      const part = event.target.closest("[data-part]");
      if (part) this.click(part);
    });
    host.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows a picture; moves that can be made on it, each with its name and parts. */
  show(text, moves) {
    const sheets = [this.own];
    const plain = text.replace(/<style[^>]*>([^<]*)<\/style>/g, (_, rules) => {
      const sheet = new CSSStyleSheet(); // the page's policy lets no style element in
      sheet.replaceSync(rules.replaceAll("&gt;", ">"));
      sheets.push(sheet);
      return "";
    });
    const picture = new DOMParser().parseFromString(plain, "image/svg+xml").documentElement;
    clean(picture);
    this.root.adoptedStyleSheets = sheets;
    this.svg = document.importNode(picture, true);
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", this.svg.querySelector("title")?.textContent || "board");
    const box = (this.svg.getAttribute("viewBox") || "").split(/[ ,]+/).map(Number);
    if (box.length === 4) this.host.dataset.shape = box[2] >= box[3] * 1.4 ? "wide" : "square";
    this.root.replaceChildren(this.svg);
    this.moves = moves;
    this.chosen = [];
    this.thoughts = [];
    this.parts = [...this.svg.querySelectorAll("[data-part]")];
    this.layer = draw("g", { "pointer-events": "none" });
    (this.svg.querySelector(".board") || this.svg).append(this.layer);
    this.cursor = this.cursor && this.at(this.cursor.dataset.part, place(this.cursor));
    this.turn(this.turned);
  }

  turn(turned) {
    this.turned = turned;
    this.svg?.classList.toggle("turned", turned);
    this.mark();
  }

  /** Arrows and heat for moves: parts, and how likely each one is. */
  think(moves) {
    this.thoughts = moves;
    this.mark();
  }

  at(name, near) {
    const all = this.parts.filter((part) => part.dataset.part === name);
    if (!near) return all[0];
    return all.sort((a, b) => distance(place(a), near) - distance(place(b), near))[0];
  }

  /** How far down a part is: 0 at the top, 1 at the bottom. */
  height(name) {
    const part = this.at(name);
    return part ? place(part)[1] / this.svg.viewBox.baseVal.height : 0.5;
  }

  possible(parts) {
    return this.moves.filter((move) => parts.every((part, index) => move.parts[index] === part));
  }

  click(element) {
    const name = element.dataset.part;
    this.cursor = element;
    let parts = [...this.chosen, name];
    if (!this.possible(parts).length) parts = this.chosen.at(-1) === name ? [] : [name];
    const moves = parts.length ? this.possible(parts) : [];
    const whole = moves.filter((move) => move.parts.length === parts.length);
    this.chosen = moves.length && !whole.length ? parts : [];
    this.mark();
    if (whole.length) this.onMove(whole);
    else if (this.chosen.length) this.say(`${name}: ${moves.length} ${moves.length === 1 ? "move" : "moves"}`);
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && this.parts.length) {
      this.move(this.turned ? step.map((value) => -value) : step);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor) {
      this.click(this.cursor);
    } else if (event.key === "Escape") {
      this.chosen = [];
      this.mark();
    } else return;
    event.preventDefault();
  }

  move([right, down]) {
    if (!this.cursor) this.cursor = this.middle();
    else {
      const [x, y] = place(this.cursor);
      const score = (part) => {
        const [dx, dy] = [place(part)[0] - x, place(part)[1] - y];
        const along = dx * right + dy * down;
        return along > 1 ? along + 3 * Math.abs(dx * down + dy * right) : Infinity;
      };
      const next = this.parts.reduce((best, part) => (score(part) < score(best) ? part : best));
      if (score(next) < Infinity) this.cursor = next;
    }
    const name = this.cursor.dataset.part;
    const count = this.possible([...this.chosen, name]).length;
    this.say(`${name}${count ? `, ${count} ${count === 1 ? "move" : "moves"}` : ""}`);
    this.mark();
  }

  middle() {
    const xs = this.parts.map(place);
    const mean = [0, 1].map((axis) => xs.reduce((sum, each) => sum + each[axis], 0) / xs.length);
    return this.parts.reduce((a, b) => (distance(place(b), mean) < distance(place(a), mean) ? b : a));
  }

  mark() {
    if (!this.layer) return;
    this.layer.replaceChildren();
    const unit = this.unit();
    this.drawThoughts(unit);
    const square = (element, kind) => {
      const [x, y] = place(element);
      return draw("rect", { class: kind, x: x - unit / 2, y: y - unit / 2, width: unit, height: unit, rx: unit / 12 });
    };
    const dots = new Set();
    if (this.chosen.length) {
      for (const move of this.possible(this.chosen)) dots.add(move.parts[this.chosen.length]);
      for (const name of this.chosen) if (this.at(name)) this.layer.append(square(this.at(name), "chosen"));
    }
    for (const name of dots) {
      const [cx, cy] = place(this.at(name) || this.svg);
      this.layer.append(draw("circle", { class: "target", cx, cy, r: unit / 6 }));
    }
    if (this.cursor) this.layer.append(square(this.cursor, "cursor"));
  }

  unit() {
    const [first, ...rest] = this.parts.map(place);
    if (!first) return 40;
    return Math.min(...rest.map((each) => distance(first, each)).filter((each) => each > 1), 60);
  }

  drawThoughts(unit) {
    const most = Math.max(...this.thoughts.map((move) => move.policy), 1e-9);
    for (const move of this.thoughts) {
      const ends = move.parts.map((name) => this.at(name)).filter(Boolean);
      const strength = move.policy / most;
      if (!ends.length || strength < 0.15) continue;
      const last = move.parts.at(-1);
      for (const element of this.parts.filter((part) => part.dataset.part === last)) {
        const [x, y] = place(element);
        const size = { x: x - unit / 2, y: y - unit / 2, width: unit, height: unit };
        this.layer.append(draw("rect", { class: "heat", ...size, opacity: 0.08 + 0.5 * strength }));
      }
      if (ends.length > 1) this.layer.append(arrow(place(ends[0]), place(ends.at(-1)), unit, strength));
    }
  }
}

function arrow([x1, y1], [x2, y2], unit, strength) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const head = unit * 0.28;
  const [bx, by] = [x2 - dx * head, y2 - dy * head];
  const tip = `M${x2} ${y2}L${bx - dy * head * 0.6} ${by + dx * head * 0.6}L${bx + dy * head * 0.6} ${by - dx * head * 0.6}Z`;
  return draw("g", { class: "arrow", opacity: 0.25 + 0.65 * strength },
    draw("line", { x1, y1, x2: bx, y2: by, "stroke-width": unit * (0.06 + 0.1 * strength) }),
    draw("path", { d: tip, "stroke-width": 1 }));
}

const place = (element) => [Number(element.dataset.x), Number(element.dataset.y)];
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** A game may be anybody's: what could run or load something is taken out of its picture. */
function clean(picture) {
  for (const bad of picture.querySelectorAll("script, foreignObject, image, iframe, a, animate, set")) bad.remove();
  for (const element of [picture, ...picture.querySelectorAll("*")]) {
    for (const { name, value } of [...element.attributes]) {
      const isLink = name === "href" || name.endsWith(":href");
      if (name.startsWith("on") || (isLink && !value.startsWith("#"))) element.removeAttribute(name);
    }
  }
}
