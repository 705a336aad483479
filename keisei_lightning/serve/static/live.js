// What is going on in a training that runs: single workers, and some games in progress.

import { byId, make, readable } from "./common.js";

const COLUMNS = ["worker", "state", "restarts", "lag, versions", "plies/s", "last rollout"];

/** Show a run's state; null: it has ended, or does not tell. */
export function showLive(key, live) {
  byId("live").hidden = !live?.boards.length;
  byId("workers").hidden = !live?.workers.length;
  showBoards(key, live);
  if (live?.workers.length) showWorkers(live);
}

function showBoards(key, live) {
  const boards = live?.boards || [];
  const list = byId("boards");
  while (list.children.length > boards.length) list.lastChild.remove();
  while (list.children.length < boards.length) list.append(make("li", {}, make("img", { class: "picture" }), caption(), caption()));
  boards.forEach((board, number) => {
    const [image, who, when] = list.children[number].children;
    const source = `/api/runs/${key}/boards/${number}.svg?${live.stamp}`;
    const name = `worker ${board.worker}, board ${board.board}`;
    if (image.getAttribute("src") !== source) image.src = source;
    image.alt = `Game in progress: ${name}`;
    who.textContent = name;
    when.textContent = `${board.ply} ${board.ply === 1 ? "ply" : "plies"} of self-play`; // an opening's random ones are not counted
  });
  byId("live-age").textContent = live ? `After the newest rollouts, as of ${ago(live.age_s)}.` : "";
}

const caption = () => make("span", { class: "small" });

function showWorkers(live) {
  const head = make("tr", {}, ...COLUMNS.map((name) => make("th", { scope: "col" }, name)));
  const rows = live.workers.map((worker) => make("tr", {},
    make("th", { scope: "row" }, worker.name),
    ...[
      worker.paused ? `${worker.state}, paused` : worker.state,
      worker.restarts,
      readable(worker.policy_lag),
      readable(worker.plies_per_s),
      worker.last_rollout_s === null ? "–" : ago(worker.last_rollout_s + live.age_s),
    ].map((text) => make("td", {}, String(text)))));
  byId("worker-rows").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function ago(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`;
}
