"""Games of ``keisei usi`` under a match runner that is not ours, and refereed once more by another rules library.

    pip install shogiarena cshogi        # in an environment of their own; cshogi is GPL, and a referee here alone
    python tests/benchmarks/usi_matches.py --runner VENV/bin --games 100 --write results/usi_matches.json

The runner is ShogiArena (MIT). It starts both engines, keeps the clocks (with 500 ms of grace, its own default), and
decides games. The opponent is Fairy-Stockfish; games start from random openings, each played from both sides.
Afterwards every recorded game is replayed with cshogi, which must find each move legal. The script ends with exit code
1 if our engine lost a game on time, by an illegal move or by a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rsshogi.core import Board, Move

ROOT = Path(__file__).resolve().parents[2]
FAIRY = shutil.which("fairy-stockfish", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/games"]))

# A game that ends so is lost by a fault of the loser's.
FAULTS = ("TIMEOUT", "ILLEGAL", "ERROR", "CRASH", "FORFEIT", "DISCONNECT")

CONTROLS: dict[str, dict[str, int]] = {
    "byoyomi 100 ms": {"time_ms": 0, "byoyomi_ms": 100},
    "byoyomi 1 s": {"time_ms": 0, "byoyomi_ms": 1000},
    "10 s + 100 ms a move": {"time_ms": 10_000, "increment_ms": 100},
    "50 nodes": {"node_limit": 50},
}

REFEREE = """
import json, sys
import cshogi
games, faults = json.load(sys.stdin), []
for name, start, moves in games:
    board = cshogi.Board(start)
    for ply, usi in enumerate(moves):
        move = board.move_from_usi(usi)
        if not board.is_legal(move):
            faults.append([name, ply, usi])
            break
        board.push(move)
json.dump({"games": len(games), "moves": sum(len(moves) for *_, moves in games), "illegal": faults}, sys.stdout)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", type=Path, required=True, help="folder with `shogiarena` and `python` with cshogi")
    parser.add_argument("--games", type=int, default=100, help="of each time control")
    parser.add_argument("--only", nargs="*", default=list(CONTROLS), choices=list(CONTROLS), help="time controls")
    parser.add_argument("--seconds", type=float, default=600, help="for each time control: what is not played is left")
    parser.add_argument("--checkpoint", default="published:shogi")
    parser.add_argument("--skill", type=int, default=-5, help="of Fairy-Stockfish")
    parser.add_argument("--grace-ms", type=int, default=500, help="beyond the clock, before a game is lost on time")
    parser.add_argument("--seed", type=int, default=0, help="of the openings")
    parser.add_argument("--folder", type=Path, default=Path("results/usi_matches"))
    parser.add_argument("--write", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    folder = options.folder.absolute() / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    write_inputs(folder, options)
    rows = [play(folder, name, options) for name in options.only]
    report = {
        "command": shlex.join(["python", "tests/benchmarks/usi_matches.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end",
        "controls": rows,
    }
    text = json.dumps(report, indent=1)
    if options.write:
        options.write.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return int(any(row["our_faults"] or row["referee"]["illegal"] for row in rows))


def write_inputs(folder: Path, options: argparse.Namespace) -> None:
    """The engines and the openings."""
    if FAIRY is None:
        sys.exit("fairy-stockfish: there is no such program (apt-get install fairy-stockfish)")
    command = shlex.join([sys.executable, "-m", "keisei_lightning", "usi", f"checkpoint={options.checkpoint}"])
    engine = folder / "keisei-usi"
    engine.write_text(f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(ROOT))}\nexec {command}\n", encoding="utf-8")
    engine.chmod(0o755)
    for name, program, more in (("keisei", engine, {}), ("fairy", FAIRY, fairy_options(options.skill))):
        content = {"name": name, "engine_path": str(program), "working_directory": str(folder), "options": more}
        (folder / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    rng = random.Random(options.seed)
    (folder / "openings.txt").write_text("".join(f"{opening(rng)}\n" for _ in range(options.games)), encoding="utf-8")


def fairy_options(skill: int) -> dict[str, object]:
    return {"UCI_Variant": "shogi", "Skill Level": skill}


def opening(rng: random.Random) -> str:
    """A position behind 2 to 12 random moves."""
    board = Board()
    for _ in range(rng.randint(2, 12)):
        board.apply_move(rng.choice(board.legal_moves()))
    return f"sfen {board.to_sfen()}"


def play(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The games of one time control, and what came of them."""
    config: dict[str, Any] = {
        "experiment_name": name.replace(" ", "_"),
        "engines": [{"engine_path": "keisei.yaml"}, {"engine_path": "fairy.yaml"}],
        "tournament": {"scheduler": "round_robin", "games_per_pair": options.games, "num_parallel": 1},
        "rules": {
            "time_control": {**CONTROLS[name], "expiry_margin_ms": options.grace_ms},
            "initial_positions": {"type": "file", "source": "openings.txt", "sync_scope": "pair"},
            "repetition_occurrences_to_draw": 4,
            "adjudication": {"max_plies": 320, "sync_max_plies_with_engine": False},
        },
        "dashboard": {"enabled": False},
    }
    file, run = folder / f"{config['experiment_name']}.yaml", folder / config["experiment_name"]
    file.write_text(json.dumps(config), encoding="utf-8")
    words = [options.runner / "shogiarena", "run", "tournament", file, "--run-dir", run]
    began = time.monotonic()
    with (folder / f"{run.name}.log").open("w") as log:
        process = subprocess.Popen(list(map(str, words)), stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            process.wait(options.seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # it notes what has been played
            process.wait(120)
    games = recorded(run)
    referee = subprocess.run(
        [str(options.runner / "python"), "-c", REFEREE],
        input=json.dumps([(game["name"], game["start"], game["moves"]) for game in games]),
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "time_control": name,
        "games": len(games),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "our_score": Counter(game["ours"] for game in games),
        "ends": Counter(game["result"] for game in games),
        "our_faults": [game["name"] for game in games if game["ours"] == "fault"],
        "their_faults": [game["name"] for game in games if game["theirs"] == "fault"],
        "move_ms": {who: times([ms for game in games for ms in game["ms"][who]]) for who in ("ours", "theirs")},
        "referee": json.loads(referee.stdout),
    }


def recorded(run: Path) -> list[dict[str, Any]]:
    """The finished games in the runner's database."""
    with sqlite3.connect(f"file:{run / 'game.db'}?mode=ro", uri=True) as database:
        ours = {key for key, name in database.execute("select id, player_name from player") if "keisei" in name}
        rows = database.execute(
            "select id, game_name, game_result, black_player_id, initial_position_sfen from game order by id"
        ).fetchall()
        return [
            game_of(name, result, black in ours, start, database.execute(_MOVES, [key]).fetchall())
            for key, name, result, black, start in rows
        ]


_MOVES = "select ply, next_move, engine_wall_time_ms from game_move where game_id = ? order by ply"


def game_of(
    name: str, result: str, ours_is_black: bool, start: str, rows: list[tuple[int, int, int]]
) -> dict[str, Any]:
    ours, theirs = ("BLACK", "WHITE") if ours_is_black else ("WHITE", "BLACK")
    is_fault = any(word in result for word in FAULTS)
    has_won = {side: result.startswith(f"{side}_WIN") for side in ("BLACK", "WHITE")}
    outcome = {side: "win" if has_won[side] else "draw" if not any(has_won.values()) else "loss" for side in has_won}
    for side, other in (("BLACK", "WHITE"), ("WHITE", "BLACK")):
        if is_fault and (has_won[other] or not any(has_won.values())):
            outcome[side] = "fault"
    # A code whose origin is its target stands for the end of a game, such as a resignation.
    moves = [row for row in rows if row[1] & 127 != row[1] >> 7 & 127 or row[1] >> 14 & 1]
    first = "BLACK" if start.split()[1] == "b" else "WHITE"
    second = "WHITE" if first == "BLACK" else "BLACK"
    ms = {side: [row[2] for at, row in enumerate(rows) if (first, second)[at % 2] == side and row[2] is not None]
          for side in has_won}  # fmt: skip
    return {
        "name": name,
        "result": result,
        "start": start,
        "moves": [Move(code).to_usi() for _, code, _ in moves],
        "ours": outcome[ours],
        "theirs": outcome[theirs],
        "ms": {"ours": ms[ours], "theirs": ms[theirs]},
    }


def times(ms: list[int]) -> dict[str, float]:
    """How long moves took."""
    if not ms:
        return {"moves": 0}
    middle, high, most = np.percentile(ms, [50, 99, 100]).tolist()
    return {"moves": len(ms), "median": middle, "99 %": high, "most": most}


if __name__ == "__main__":
    sys.exit(main())
