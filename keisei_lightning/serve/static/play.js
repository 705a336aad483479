// The page on which games are played. All it knows of a game is what the server tells; its name is in the address.

import { ask, byId, draw, make, repeat, RequestError } from "./common.js";
import { Board } from "./board.js";

const POLL_MS = 1000;

let state = null; // of the game, as the server told it last
let shown = 0; // the ply that the board shows
let choices = null;
let isAsking = false; // for the policy's move
let isEvaluating = false;
let isPaused = false;
let turned = null; // null: as the side says

const board = new Board(byId("board"), chooseMove, (text) => { byId("heard").textContent = text; });

// ---- telling

function fail(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
  if (!(error instanceof RequestError)) console.error(error);
}

async function trying(work) {
  byId("error").hidden = true;
  try {
    return await work();
  } catch (error) {
    fail(error);
    return undefined;
  }
}

const path = (rest = "") => `/api/games/${encodeURIComponent(state.id)}${rest}`;
const isLast = () => state !== null && shown === state.moves.length;

// ---- new games

function gamesOf(policies) {
  return [...new Set(policies.map((policy) => policy.game).filter(Boolean))].sort();
}

function listPolicies() {
  const game = byId("game").value;
  const fitting = choices.policies.filter((policy) => policy.game === game || !policy.game);
  byId("policy").replaceChildren(...fitting.map((policy) => make("option", { value: policy.key }, policy.name)));
}

async function prepare() {
  const before = byId("game").value;
  choices = await ask("/api/choices");
  const games = gamesOf(choices.policies);
  const first = choices.policies.find((policy) => policy.kind !== "search")?.game || games[0];
  byId("game").replaceChildren(...games.map((game) => make("option", { value: game }, game.replaceAll("_", " "))));
  byId("game").value = games.includes(before) && state ? before : games.includes("shogi") && !before ? "shogi" : first;
  listPolicies();
}

async function begin(event) {
  event.preventDefault();
  const body = {
    policy: byId("policy").value,
    side: byId("side").value,
    simulations: Number(byId("simulations").value),
    temperature: Number(byId("temperature").value),
  };
  const file = byId("file").files[0];
  if (file) {
    body.record = await file.text();
    body.policy = policyFor(body.record) || body.policy;
  } else if (byId("position").value.trim()) body.position = byId("position").value.trim();
  byId("begin").disabled = true;
  byId("begin").textContent = "Loading the policy…";
  await trying(async () => {
    const game = await ask("/api/games", body);
    history.replaceState(null, "", `#${game.id}`);
    state = null;
    turned = null;
    isPaused = false;
    byId("file").value = "";
    byId("position").value = "";
    take(game);
    byId("board").focus();
  });
  byId("begin").disabled = false;
  byId("begin").textContent = "Play";
}

/** The chosen policy if it plays a saved game's game, else the first that does. */
function policyFor(record) {
  let game;
  try {
    game = JSON.parse(record).game;
  } catch {
    return null; // the server says what is wrong with it
  }
  if (byId("game").value === game) return null;
  return choices.policies.find((policy) => policy.game === game)?.key;
}

function showSetup(isShown) {
  byId("setup").hidden = !isShown;
  byId("play").hidden = isShown || state === null;
  byId("cancel").hidden = state === null;
}

// ---- the game

function take(next) {
  if (next === null || (state !== null && state.id === next.id && next.version < state.version)) return;
  const wasLast = state === null || isLast();
  const isChanged = state === null || state.version !== next.version || state.id !== next.id;
  const isMoved = isChanged && (state === null || state.id !== next.id || key(state) !== key(next));
  state = next;
  showSetup(false);
  if (wasLast || shown > state.moves.length) shown = state.moves.length;
  if (isMoved) showNow();
  showPanel();
  if (!isPaused && state.waits_for === "policy") askPolicy();
  evaluateMissing();
}

const key = (each) => each.moves.map((move) => move.name).join(" ") + each.outcome + each.side + each.start;

async function showNow() {
  byId("thoughts").hidden = true;
  if (isLast()) {
    board.show(state.svg, state.waits_for === "person" ? state.legal : []);
    if (turned === null && state.legal.length) turned = turnsItself();
    board.turn(turned === true);
    byId("turn").setAttribute("aria-pressed", board.turned);
  } else {
    const at = await trying(() => ask(path(`/plies/${shown}`)));
    if (at && at.ply === shown) board.show(at.svg, []);
  }
}

/** Whether the person's pieces are in the upper half: they belong below. Where nothing is moved, nothing is turned. */
function turnsItself() {
  const person = state.side === "second" ? 1 : 0;
  const heights = state.legal.filter((move) => move.parts.length > 1).map((move) => board.height(move.parts[0]));
  const mean = heights.reduce((sum, each) => sum + each, 0) / heights.length;
  return heights.length > 0 && (mean < 0.5) === (state.mover === person);
}

async function chooseMove(moves) {
  const move = moves.length === 1 ? moves[0] : await question(moves);
  if (move) await makeMove(move.name);
  byId("board").focus();
}

/** Asks which of several moves with the same parts is meant; null: none. */
function question(moves) {
  const dialog = byId("question");
  return new Promise((resolve) => {
    const names = moves.map((move) => move.name);
    const promotes = names.length === 2 && names.some((name) => names.includes(`${name}+`));
    byId("question-title").textContent = promotes ? "Promote?" : "Which move?";
    const label = (name) => (promotes ? (name.endsWith("+") ? "Promote" : "Do not promote") : name);
    const answer = (move) => () => { dialog.close(); resolve(move); };
    const ordered = [...moves].sort((a, b) => b.name.length - a.name.length);
    byId("answers").replaceChildren(
      ...ordered.map((move, n) => make("button", { type: "button", class: n ? "" : "main", click: answer(move) }, label(move.name))),
      make("button", { type: "button", click: answer(null) }, "Cancel"),
    );
    dialog.oncancel = () => resolve(null);
    dialog.showModal();
  });
}

async function makeMove(name) {
  await trying(async () => take(await ask(path("/moves"), { move: name, ply: state.moves.length })));
}

async function askPolicy() {
  if (isAsking) return;
  isAsking = true;
  showPanel();
  const id = state.id;
  let next = null;
  await trying(async () => { next = await ask(`/api/games/${encodeURIComponent(id)}/reply`, {}); });
  isAsking = false;
  if (next && state.id === id) take(next);
  showPanel();
}

/** Fills the gaps of the graph while it is open. */
async function evaluateMissing() {
  const isMissing = state.values.length <= state.moves.length || state.values.includes(null);
  if (!byId("evaluation").open || !isMissing || isEvaluating || isAsking || state.waits_for === "policy") return;
  isEvaluating = true;
  const id = state.id;
  let next = null;
  await trying(async () => { next = await ask(path("/values"), {}); });
  isEvaluating = false;
  if (next && state.id === id) take(next);
}

async function hint() {
  allow("hint", false);
  await trying(async () => {
    const ply = shown;
    const found = await ask(path("/hint"), { ply, simulations: Math.max(state.simulations, 64) });
    if (ply !== shown) return;
    board.think(found.moves);
    const score = Math.round(100 * found.score);
    const sure = found.result === null ? "" : { "-1": ", a certain loss", 0: ", a certain draw", 1: ", a certain win" }[found.result];
    byId("expects").textContent = `${score} % for the player to move${sure}; it expects ${found.variation.join(" ")}`;
    byId("ranking").replaceChildren(...found.moves.slice(0, 6).map(rank));
    byId("thoughts").hidden = false;
    byId("heard").textContent = `Hint: ${found.moves[0].name}`;
  });
  showPanel();
}

function rank(move) {
  const percent = Math.round(100 * move.policy);
  const bar = make("meter", { min: 0, max: 100, value: percent, "aria-label": `${move.name}: ${percent} %` });
  return make("li", {}, make("code", {}, move.name), bar, make("span", { "aria-hidden": "true" }, `${percent} %`));
}

function go(ply) {
  shown = Math.max(0, Math.min(ply, state.moves.length));
  showNow();
  showPanel();
}

// ---- the panel

function seats() {
  const isPerson = (seat) => state.side === "both" || state.side === ["first", "second"][seat];
  return [0, 1].map((seat) => (isPerson(seat) ? "you" : `policy ${state.policy}`));
}

function status() {
  const names = seats();
  if (state.is_over) {
    const result = { 1: "The first player wins", 0: "The second player wins", 0.5: "A draw" }[state.result] || "No result";
    const person = ["first", "second"].indexOf(state.side);
    const won = person >= 0 && state.result !== null && state.result !== 0.5 && (state.result === 1) === (person === 0);
    const lost = person >= 0 && (state.result === 0 || state.result === 1) && !won;
    return `${won ? "You win" : lost ? "You lose" : result} (${state.outcome.replaceAll("_", " ")}).`;
  }
  const last = state.moves.at(-1);
  const told = last ? `${names[last.seat] === "you" ? "You" : "Policy"}: ${last.name}. ` : "";
  if (state.waits_for === "policy") return `${told}${isPaused ? "Paused." : "The policy is thinking…"}`;
  return `${told}${state.side === "both" ? ["First", "Second"][state.mover] + " to move." : "Your turn."}`;
}

/** Whether a button does anything now; it keeps the focus in any case. */
function allow(id, can) {
  byId(id).setAttribute("aria-disabled", !can);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // or it would be read aloud again
}

function showPanel() {
  if (state === null) return;
  const [first, second] = seats();
  setText(byId("players"), `${state.game.replaceAll("_", " ")}: ${first} (first) and ${second} (second)`);
  setText(byId("status"), status());
  const canMove = state.waits_for === "person" && isLast();
  allow("hint", !isLast() || canMove);
  allow("undo", state.moves.length > 0);
  allow("resign", state.waits_for === "person");
  byId("pause").hidden = state.side !== "none";
  const loose = canMove ? state.legal.filter((move) => move.parts.length === 0) : [];
  const press = (name) => () => makeMove(name);
  byId("buttons").replaceChildren(...loose.map((move) => make("button", { type: "button", click: press(move.name) }, move.name)));
  byId("legal").replaceChildren(...(canMove ? state.legal : []).map((move) => make("option", { value: move.name })));
  byId("ply").max = state.moves.length;
  byId("ply").value = shown;
  byId("ply").setAttribute("aria-valuetext", shown ? `${shown}: ${state.moves[shown - 1].name}` : "the start");
  for (const id of ["back", "start"]) allow(id, shown > 0);
  for (const id of ["forward", "end"]) allow(id, !isLast());
  byId("save").href = path("/record");
  for (const name of ["simulations", "temperature"]) {
    const field = byId(`now-${name}`);
    if (document.activeElement !== field) field.value = state[name];
  }
  listMoves();
  drawGraph();
}

function listMoves() {
  const list = byId("moves");
  const names = state.moves.map((move) => move.name).join(" ");
  if (list.dataset.names !== `${state.id} ${names}`) {
    list.dataset.names = `${state.id} ${names}`;
    const jump = (ply) => () => go(ply);
    list.replaceChildren(...state.moves.map((move, n) => make("li", {}, make("button", { type: "button", click: jump(n + 1) }, move.name))));
    list.scrollTop = list.scrollHeight;
  }
  [...list.children].forEach((item, n) => {
    if (n + 1 === shown) item.firstChild.setAttribute("aria-current", "step");
    else item.firstChild.removeAttribute("aria-current");
  });
}

/** The expected score of the first player, ply by ply. */
function drawGraph() {
  const [width, height, left] = [320, 120, 34];
  const last = Math.max(state.moves.length, 1);
  const x = (ply) => left + (ply / last) * (width - left - 8);
  const y = (value) => 8 + (1 - value) * (height - 16);
  const points = state.values.map((value, ply) => [ply, value]).filter(([, value]) => value !== null);
  const line = points.map(([ply, value]) => `${x(ply).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const now = state.values[shown];
  const text = now === undefined || now === null ? "Not evaluated" : `First player: ${Math.round(100 * now)} %`;
  const label = (value, name) => draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, name);
  const picture = draw("svg", { class: "graph", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${text} at move ${shown}` },
    draw("rect", { class: "ground", x: left, y: 8, width: width - left - 8, height: height - 16 }),
    draw("line", { class: "middle", x1: left, x2: width - 8, y1: y(0.5), y2: y(0.5) }),
    label(1, "100"), label(0.5, "50"), label(0, "0 %"),
    draw("line", { class: "now", x1: x(shown), x2: x(shown), y1: 8, y2: height - 8 }),
    draw("polyline", { class: "line", points: line }),
    ...(now === undefined || now === null ? [] : [draw("circle", { class: "dot", cx: x(shown), cy: y(now), r: 4 })]));
  byId("graph").replaceChildren(picture, make("p", { class: "small" }, text));
}

// ---- listening

document.addEventListener("click", (event) => {
  if (event.target.closest?.("[aria-disabled=true]")) event.stopImmediatePropagation();
}, true);
byId("new").addEventListener("submit", begin);
byId("game").addEventListener("change", listPolicies);
byId("cancel").addEventListener("click", () => showSetup(false));
byId("again").addEventListener("click", async () => {
  await trying(prepare);
  showSetup(true);
  byId("game").focus();
});
byId("hint").addEventListener("click", hint);
byId("turn").addEventListener("click", () => {
  turned = !board.turned;
  board.turn(turned);
  byId("turn").setAttribute("aria-pressed", turned);
});
byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", isPaused);
  take(state);
});
for (const name of ["undo", "resign"]) {
  byId(name).addEventListener("click", () => trying(async () => {
    if (name === "undo" && state.side === "none") isPaused = true;
    take(await ask(path(`/${name}`), { ply: state.moves.length }));
  }));
}
byId("type").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = byId("move").value.trim();
  if (!name) return;
  byId("move").value = "";
  await makeMove(name);
});
byId("seating").addEventListener("submit", (event) => {
  event.preventDefault();
  const [simulations, temperature] = ["simulations", "temperature"].map((name) => Number(byId(`now-${name}`).value));
  trying(async () => take(await ask(path("/seating"), { side: state.side, simulations, temperature })));
});
byId("start").addEventListener("click", () => go(0));
byId("back").addEventListener("click", () => go(shown - 1));
byId("forward").addEventListener("click", () => go(shown + 1));
byId("end").addEventListener("click", () => go(state.moves.length));
byId("ply").addEventListener("input", () => go(Number(byId("ply").value)));
byId("evaluation").addEventListener("toggle", () => { if (state) evaluateMissing(); });
window.addEventListener("hashchange", open);

async function open() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id) return showSetup(true);
  try {
    state = null;
    take(await ask(`/api/games/${encodeURIComponent(id)}`));
  } catch (error) {
    fail(error);
    showSetup(true);
  }
  return undefined;
}

async function poll() {
  if (state === null || isAsking || byId("play").hidden) return;
  try {
    const id = state.id;
    const next = await ask(path(`?version=${state.version}-${Number(state.is_thinking)}`));
    if (next && state.id === id) take(next);
  } catch (error) {
    fail(error);
  }
}

await trying(prepare);
await open();
repeat(poll, POLL_MS);
