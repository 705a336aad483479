// The page on which trainings are watched. The runs that are looked at are in the address, the first one in detail.

import { ask, byId, make, readable, repeat } from "./common.js";
import { Chart } from "./chart.js";
import { showLive } from "./live.js";

const POLL_MS = 2000;
const LIST_MS = 5000;
const ACTIVE_S = 60;

const GROUPS = [
  ["Score", "points per game", (name) => name.startsWith("eval/score_vs_") && !/_(low|high)$/.test(name)],
  ["Rating", "Elo", (name) => name === "eval/rating"],
  ["Speed", "plies per second", (name) => ["self_play/plies_per_s", "self_play/frames_per_s"].includes(name)],
  ["Loss", "of the critic and of the policy", (name) => ["train/loss_critic", "train/loss_objective"].includes(name)],
  ["Entropy", "of the policy, nats", (name) => name === "train/entropy"],
  ["Game length", "plies", (name) => name === "self_play/game_length_mean"],
  ["Policy lag", "versions", (name) => ["self_play/policy_lag_max", "self_play/policy_lag_mean"].includes(name)],
];
const NUMBERS = [
  ["plies", ["self_play/plies", "self_play/frames"]], ["plies/s", ["self_play/plies_per_s", "self_play/frames_per_s"]],
  ["games", ["self_play/games"]], ["epoch", ["epoch"]], ["workers", ["self_play/healthy_workers"]],
  ["restarts", ["self_play/restarts"]], ["lost rollouts", ["self_play/lost_rollouts"]],
  ["refused batches", ["self_play/refused_batches"]], ["largest lag", ["self_play/policy_lag_max"]],
  ["rating", ["eval/rating"]],
];

let runs = [];
const data = new Map(); // of each run that is looked at: generation, rows, columns
let charts = new Map();
let shownChoice = "";

const chosen = () => location.hash.slice(1).split(",").filter((key) => /^[0-9a-f]{16}$/.test(key)).slice(0, 6);

function choose(keys) {
  history.replaceState(null, "", `#${keys.join(",")}`);
  listRuns();
  refresh();
}

function fail(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

// ---- the list

async function readRuns() {
  try {
    const told = await ask("/api/runs");
    byId("error").hidden = true;
    runs = told.runs;
    byId("folder").textContent = runs.length ? `in ${told.folder}` : `There is none in ${told.folder} yet.`;
    if (!chosen().length && runs.length) choose([runs[0].key]);
    else listRuns();
  } catch (error) {
    fail(error);
  }
}

function listRuns() {
  const keys = chosen();
  const old = new Map([...byId("runs").children].map((item) => [item.dataset.key, item]));
  const items = runs.map((run) => {
    const item = old.get(run.key) || runItem(run);
    item.querySelector("input").checked = keys.includes(run.key);
    item.querySelector("a").toggleAttribute("aria-current", keys[0] === run.key);
    item.querySelector("span").textContent = `${run.game.replaceAll("_", " ") || "?"} · ${ago(run.idle_s)}`;
    item.classList.toggle("active", run.idle_s < ACTIVE_S);
    return item;
  });
  const isSame = items.length === byId("runs").children.length && items.every((item, n) => byId("runs").children[n] === item);
  if (!isSame) byId("runs").replaceChildren(...items);
}

function runItem(run) {
  const toggle = (event) => {
    const others = chosen().filter((key) => key !== run.key);
    choose(event.target.checked ? [...others, run.key] : others);
  };
  const look = (event) => { event.preventDefault(); choose([run.key]); };
  return make("li", { "data-key": run.key },
    make("input", { type: "checkbox", "aria-label": `compare ${run.name}`, change: toggle }),
    make("div", {}, make("a", { href: `#${run.key}`, click: look }, run.name), make("span", { class: "small" })));
}

function ago(seconds) {
  if (seconds < ACTIVE_S) return "changed just now";
  if (seconds < 5400) return `changed ${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `changed ${Math.round(seconds / 3600)} h ago` : `changed ${Math.round(seconds / 86400)} days ago`;
}

// ---- the runs that are looked at

async function refresh() {
  const keys = chosen();
  byId("run").hidden = !keys.length;
  if (!keys.length) return;
  try {
    await Promise.all(keys.map((key, n) => read(key, n === 0)));
    byId("error").hidden = true;
  } catch (error) {
    fail(error);
    return;
  }
  if (keys.join() === chosen().join()) show(keys.map((key) => data.get(key)));
}

async function read(key, isWhole) {
  const run = data.get(key) || { generation: 0, rows: 0, columns: {} };
  const told = await ask(`/api/runs/${key}?generation=${run.generation}&row=${run.rows}&is_whole=${isWhole}`);
  const columns = told.generation === run.generation && told.row ? run.columns : {};
  for (const [name, values] of Object.entries(told.columns)) columns[name] = (columns[name] || []).concat(values);
  const rows = Math.max(0, ...Object.values(columns).map((values) => values.length));
  data.set(key, { ...run, ...told, columns, rows });
}

function axisOf(columns) {
  const found = ["self_play/plies", "self_play/frames", "step"].find((name) => name in columns) || "step";
  return [found, found === "step" ? "optimiser steps" : "plies"];
}

function points(run, name) {
  const xs = run.columns[axisOf(run.columns)[0]] || [];
  const ys = run.columns[name] || [];
  return ys.map((y, n) => [xs[n], y]).filter(([x, y]) => x !== null && x !== undefined && y !== null);
}

function show(all) {
  const [run] = all;
  byId("run-title").textContent = all.length > 1 ? `${all.length} trainings` : run.name;
  byId("about").textContent = all.length > 1 ? all.map((each) => each.name).join(" · ") : `${run.game.replaceAll("_", " ")}, ${ago(run.idle_s)}`;
  byId("numbers").replaceChildren(...(all.length > 1 ? [] : NUMBERS.flatMap(([label, names]) => number(run, label, names))));
  byId("more").hidden = all.length > 1;
  showLive(run.key, all.length > 1 ? null : run.live);
  byId("metric-label").hidden = all.length < 2;
  if (all.length > 1) compare(all);
  else showCharts(GROUPS.map(([title, unit, fits]) => {
    const names = Object.keys(run.columns).filter(fits);
    return [title, unit, names.map((name) => ({ name: short(name), points: points(run, name) }))];
  }).filter(([, , series]) => series.length), axisOf(run.columns)[1], run.key);
  showRest(run);
}

const short = (name) => name.replace(/^(eval\/score_vs_|eval\/|train\/loss_|train\/|self_play\/)/, "").replaceAll("_", " ");

function number(run, label, names) {
  const name = names.find((each) => run.latest[each] !== undefined && run.latest[each] !== null);
  return name ? [make("div", {}, make("dt", {}, label), make("dd", {}, readable(run.latest[name])))] : [];
}

function compare(all) {
  const names = [...new Set(all.flatMap((run) => Object.keys(run.columns)))].filter((name) => !["step", "epoch"].includes(name)).sort();
  const select = byId("metric");
  if ([...select.options].map((each) => each.value).join() !== names.join()) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    const usual = names.find((name) => GROUPS[0][2](name)) || names.find((name) => GROUPS[2][2](name)) || names[0];
    select.value = names.includes(before) ? before : usual || "";
  }
  const series = all.map((run) => ({ name: run.name, points: points(run, select.value) }));
  showCharts([[select.value, "", series]], axisOf(all[0].columns)[1], all.map((run) => run.key).join());
}

function showCharts(groups, axis, choice) {
  const titles = `${choice} ${groups.map(([title]) => title).join()}`;
  if (titles !== shownChoice) {
    shownChoice = titles;
    charts = new Map(groups.map(([title, unit]) => [title, new Chart(title, unit)]));
    byId("charts").replaceChildren(...[...charts.values()].map((chart) => chart.element));
  }
  for (const [title, , series] of groups) charts.get(title).show(series, axis);
}

function showRest(run) {
  setText(byId("log"), run.log || "There is none.");
  setText(byId("config"), run.config || "There is none.");
  const image = byId("picture");
  const source = run.picture ? `/api/runs/${run.key}/last_game.svg?${run.picture}` : "";
  if (source && image.getAttribute("src") !== source) image.src = source;
  image.hidden = !source;
  byId("no-picture").hidden = Boolean(source);
  const rows = run.league || [];
  byId("league").hidden = !rows.length;
  if (!rows.length) return;
  const names = ["opponent", "wins", "draws", "losses", "score", "opponent_elo"].filter((name) => name in rows[0]);
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name.replace("_", " "))));
  const line = (row) => make("tr", {}, ...names.map((name, n) => make(n ? "td" : "th", n ? {} : { scope: "row" }, row[name])));
  byId("standings").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map(line))));
}

function setText(element, text) {
  if (element.textContent === text) return;
  const isAtEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 4;
  element.textContent = text;
  if (element.id === "log" && isAtEnd) element.scrollTop = element.scrollHeight;
}

byId("metric").addEventListener("change", () => compare(chosen().map((key) => data.get(key)).filter(Boolean)));
window.addEventListener("hashchange", () => { listRuns(); refresh(); });

await readRuns();
repeat(refresh, POLL_MS);
repeat(readRuns, LIST_MS);
