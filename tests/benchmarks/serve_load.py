"""What the site costs: many clients at once, its memory over thousands of requests, and a training beside it.

::

    python tests/benchmarks/serve_load.py clients            20 clients play and watch; memory before and after
    python tests/benchmarks/serve_load.py watching           the server's own time for one open page of a run
    python tests/benchmarks/serve_load.py training           plies per second of a training, watched and not
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
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
POLL_S = 2.0
"""How often a page of a run asks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clients", "watching", "training"])
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
        watching(options.requests)
    else:
        beside_training(options.rounds, options.epochs)


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


def watching(looks: int) -> None:
    """Look at a run that grows by a row between two looks, as an open page does, and count the server's CPU time."""
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
                client.get("/api/runs")
                told = client.get(f"/api/runs/{key}?generation={told['generation']}&row={rows}").json()
                assert told["row"] == rows
                rows += 1
            after = server.cpu_times()
    used = after.user + after.system - before.user - before.system
    tell(f"{looks} looks: {1000 * used / looks:.1f} ms of the server's CPU time each")
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


def train(folder: Path, epochs: int) -> float:
    """Train connect four, and return the plies per second of its second half."""
    command = [
        sys.executable,
        "-m",
        "keisei_lightning",
        "train",
        "experiment=quickstart",
        f"trainer.max_epochs={epochs}",
    ]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    (file,) = folder.glob("results/*/*/csv/metrics.csv")
    with file.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["self_play/plies_per_s"]]
    return statistics.fmean(float(row["self_play/plies_per_s"]) for row in rows[len(rows) // 2 :])


if __name__ == "__main__":
    main()
