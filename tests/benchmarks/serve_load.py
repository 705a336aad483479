"""What the site costs: many clients at once, its memory over thousands of requests, and the trainings that it shows.

::

    python tests/benchmarks/serve_load.py clients            20 clients play and watch; memory before and after
    python tests/benchmarks/serve_load.py watching           the server's own time for one open page of a run
    python tests/benchmarks/serve_load.py training           plies per second of a training, watched and not
    python tests/benchmarks/serve_load.py live               plies per second of one that writes live.json, and not
    python tests/benchmarks/serve_load.py drawing            CPU time of drawing boards and of writing live.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from keisei_lightning.games import Game, make_game
from keisei_lightning.training.files import write_whole
from keisei_lightning.training.live_file import LIVE_NAME, LiveBoard, LiveState, LiveWorker

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
POLL_S = 2.0
"""How often a page of a run asks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clients", "watching", "training", "live", "drawing"])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4, help="of requests by all clients, or of trainings in turn")
    parser.add_argument("--requests", type=int, default=150, help="of each client in a round")
    parser.add_argument("--epochs", type=int, default=150, help="of each training")
    options = parser.parse_args()
    versions = "".join(f", {name} {version(name)}" for name in ("starlette", "uvicorn", "torch"))
    tell(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}{versions}")
    if options.what == "clients":
        clients(options.clients, options.rounds, options.requests)
    elif options.what == "watching":
        watching(options.requests, is_live=False)
        watching(options.requests, is_live=True)
    elif options.what == "training":
        beside_training(options.rounds, options.epochs)
    elif options.what == "live":
        live(options.rounds, options.epochs)
    else:
        for game in ("tic_tac_toe", "connect_four", "shogi"):
            drawing(game)


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server in a process of its own."""
    command = [sys.executable, "-m", "keisei_lightning", "serve", f"folder={folder}", "port=0", "open=false"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].rstrip("/")
        try:
            yield address, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def clients(number: int, rounds: int, requests: int) -> None:
    """Play and watch by many clients, and look at the server's memory after each round."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run" / "csv"
        run.mkdir(parents=True)
        run.joinpath("metrics.csv").write_text("step,a,b\n" + "".join(f"{n},{n * 2},{n / 3}\n" for n in range(5000)))
        with served(Path(folder)) as (address, server):
            tell(f"{number} clients, {requests} requests each in a round")
            for round_number in range(1, rounds + 1):
                started = time.monotonic()
                delays: list[float] = []
                refused = [0]
                threads = [
                    threading.Thread(target=play, args=(address, requests, delays, refused)) for _ in range(number)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                elapsed = time.monotonic() - started
                delays.sort()
                tell(
                    f"round {round_number}: {len(delays)} requests, {len(delays) / elapsed:.0f}/s, "
                    f"median {1000 * statistics.median(delays):.1f} ms, 99 % within "
                    f"{1000 * delays[int(len(delays) * 0.99)]:.0f} ms, refused (503) {refused[0]}, "
                    f"memory {server.memory_info().rss / 2**20:.1f} MiB, threads {server.num_threads()}, "
                    f"files {server.num_fds()}"
                )


def watching(looks: int, *, is_live: bool) -> None:
    """Look at a run that grows by a row between two looks, as an open page does, and count the server's CPU time.

    Args:
        looks: how many.
        is_live: it also shows workers and games of connect four in progress.
    """
    live = sample_state("connect_four").to_json() if is_live else ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run" / "csv" / "metrics.csv"
        file.parent.mkdir(parents=True)
        names = ["step", "self_play/plies", *(f"metric_{number}" for number in range(48))]
        row = ",".join(["1.2345678"] * len(names))
        file.write_text("\n".join([",".join(names), *[row] * 1500]) + "\n")
        with served(Path(folder)) as (address, server), httpx.Client(base_url=address, timeout=120) as client:
            key = client.get("/api/runs").json()["runs"][0]["key"]
            told = client.get(f"/api/runs/{key}").json()
            rows = len(told["columns"]["step"])
            before = server.cpu_times()
            for _ in range(looks):
                with file.open("a") as stream:
                    stream.write(f"{row}\n")
                if live:
                    (file.parents[1] / LIVE_NAME).write_text(live)
                client.get("/api/runs")
                told = client.get(f"/api/runs/{key}?generation={told['generation']}&row={rows}").json()
                assert told["row"] == rows
                rows += 1
                for number in range(len(told["live"]["boards"]) if live else 0):
                    assert client.get(f"/api/runs/{key}/boards/{number}.svg").status_code == 200
            after = server.cpu_times()
    used = after.user + after.system - before.user - before.system
    what = "a run with live.json" if is_live else "a run without live.json"
    tell(f"{what}, {looks} looks: {1000 * used / looks:.1f} ms of the server's CPU time each")
    tell(f"one look in {POLL_S:g} s is {100 * used / looks / POLL_S:.2f} % of one CPU")


def play(address: str, requests: int, delays: list[float], refused: list[int]) -> None:
    """Begin games, play them against a search, and look at a run between two moves."""
    with httpx.Client(base_url=address, timeout=120) as client:
        choices = client.get("/api/choices").json()["policies"]
        policy = next(each["key"] for each in choices if each["game"] == "tic_tac_toe")
        run = client.get("/api/runs").json()["runs"][0]["key"]
        state: dict[str, Any] = {"is_over": True}
        for number in range(requests):
            started = time.monotonic()
            if state["is_over"]:
                body = {"policy": policy, "side": "first", "simulations": 16, "temperature": 1}
                answer = client.post("/api/games", json=body)
            elif number % 5 == 0:
                answer = client.get(f"/api/runs/{run}")
            elif state["waits_for"] == "person":
                body = {"move": state["legal"][-1]["name"], "ply": len(state["moves"])}
                answer = client.post(f"/api/games/{state['id']}/moves", json=body)
            else:
                answer = client.post(f"/api/games/{state['id']}/reply", json={})
            delays.append(time.monotonic() - started)
            told = answer.json()
            if answer.status_code == 503:
                refused[0] += 1
            elif answer.status_code == 404:  # its game made room for another one
                state = {"is_over": True}
            elif "moves" in told:
                state = told
            assert answer.status_code in (200, 201, 404, 503), answer.text


def beside_training(rounds: int, epochs: int) -> None:
    """Train in turn with a server whose page of the run is open, with an idle one, and without; compare speeds."""
    speeds: dict[str, list[float]] = {"alone": [], "watched": []}
    shares = []
    for _ in range(rounds):
        for kind in speeds:
            with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "results") as (address, server):
                stop = threading.Event()
                watcher = threading.Thread(target=watch, args=(address, stop))
                if kind == "watched":
                    watcher.start()
                before, started = server.cpu_times(), time.monotonic()
                speeds[kind].append(train(Path(folder), epochs))
                after = server.cpu_times()
                used = after.user + after.system - before.user - before.system
                if kind == "watched":
                    shares.append(100 * used / (time.monotonic() - started))
                stop.set()
                if kind == "watched":
                    watcher.join()
            tell(f"{kind}: {speeds[kind][-1]:.0f} plies/s")
    medians = {kind: statistics.median(each) for kind, each in speeds.items()}
    tell(json.dumps({kind: [round(each) for each in all_of] for kind, all_of in speeds.items()}))
    tell(f"the server used {statistics.median(shares):.2f} % of one CPU while it was watched")
    tell(f"median alone {medians['alone']:.0f}, watched {medians['watched']:.0f} plies/s")


def live(rounds: int, epochs: int) -> None:
    """Train in turn with and without live.json, each first in every other round; compare speeds."""
    speeds: dict[str, list[float]] = {"live_every_s=0": [], "live_every_s=2": []}
    for number in range(rounds):
        for word in sorted(speeds, reverse=bool(number % 2)):
            with tempfile.TemporaryDirectory() as folder:
                speeds[word].append(train(Path(folder), epochs, word))
            tell(f"{word}: {speeds[word][-1]:.0f} plies/s")
    without, with_it = speeds.values()
    ratios = sorted(one / other for one, other in zip(with_it, without, strict=True))
    tell(f"medians: {statistics.median(without):.0f} without, {statistics.median(with_it):.0f} plies/s with it")
    tell(f"ratios of the rounds: {', '.join(f'{each:.3f}' for each in ratios)}; median {statistics.median(ratios):.3f}")


def drawing(name: str, *, times: int = 100) -> None:
    """Draw boards in mid-game and write a state of them; count the CPU time of each."""
    state = sample_state(name)
    game = game_in_progress(name, 1)
    draw_ms = cpu_ms(lambda: game.render(0, "svg"), times)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LIVE_NAME
        write_ms = cpu_ms(lambda: write_whole(path, state.to_json().encode()), times)
        num_bytes = path.stat().st_size
    share = (len(state.boards) * draw_ms + write_ms) / 1000 / POLL_S
    tell(
        f"{name}: {draw_ms:.2f} ms a board, {write_ms:.2f} ms to write {num_bytes:,} bytes ({len(state.boards)} boards,"
        f" {len(state.workers)} workers); every {POLL_S:g} s that is {share:.2%} of one CPU"
    )


def sample_state(name: str, *, boards: int = 4, workers: int = 8) -> LiveState:
    """What a training of a game tells of itself."""
    game = game_in_progress(name, boards)
    worker = LiveWorker(name="worker 0", state="running", policy_lag=1, plies_per_s=1234.5678, last_rollout_s=0.0123)
    return LiveState(
        time_s=time.time(),
        epoch=100,
        plies=10**6,
        workers=(worker,) * workers,
        boards=tuple(LiveBoard(worker=n, board=0, ply=20, mover=0, svg=game.render(n, "svg")) for n in range(boards)),
    )


def game_in_progress(name: str, boards: int) -> Game:
    """Boards after some random plies."""
    game = make_game(name, boards)
    rng = np.random.default_rng(0)
    observation = np.zeros((boards, *game.spec.observation_shape), np.uint8)
    legal, mover = np.zeros((boards, game.spec.mask_bytes), np.uint8), np.zeros(boards, np.int8)
    for _ in range(4 if name == "tic_tac_toe" else 20):
        game.observe(observation, legal, mover)
        bits = np.unpackbits(legal, axis=1, count=game.spec.num_actions)
        step = game.step((bits * rng.random(bits.shape)).argmax(axis=1))
        game.reset(np.flatnonzero(step.terminated | step.truncated))
    return game


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """Milliseconds of this process's CPU time for one call."""
    work()
    started = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - started) / times


def watch(address: str, stop: threading.Event) -> None:
    """What a page does that is open on the newest run."""
    known: dict[str, tuple[int, int]] = {}
    with httpx.Client(base_url=address, timeout=120) as client:
        while not stop.wait(POLL_S):
            runs = client.get("/api/runs").json()["runs"]
            if runs:
                key = runs[0]["key"]
                generation, row = known.get(key, (0, 0))
                told = client.get(f"/api/runs/{key}?generation={generation}&row={row}").json()
                rows = max(map(len, told["columns"].values()), default=0)
                known[key] = (told["generation"], told["row"] + rows)


def train(folder: Path, epochs: int, *overrides: str) -> float:
    """Train connect four, and return the plies per second of its second half."""
    command = [
        sys.executable,
        "-m",
        "keisei_lightning",
        "train",
        "experiment=quickstart",
        f"trainer.max_epochs={epochs}",
        *overrides,
    ]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    (file,) = folder.glob("results/*/*/csv/metrics.csv")
    with file.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["self_play/plies_per_s"]]
    return statistics.fmean(float(row["self_play/plies_per_s"]) for row in rows[len(rows) // 2 :])


if __name__ == "__main__":
    main()
