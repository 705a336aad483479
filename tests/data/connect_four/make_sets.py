"""Make random.csv and tactical.csv: connect four positions where a mistake is possible, labelled by a perfect solver.

    pip install --no-deps "bitbully==0.0.79" "bitbully-databases==0.0.2"
    python tests/data/connect_four/make_sets.py [folder]

The solver (AGPL) is needed for making the sets only; no other program here imports it. Up to 12 plies it looks into its
opening book, which comes from itself. Python's own random generator with a fixed seed decides, so the same files come
out everywhere. About six minutes on one core. See README.md.
"""

from __future__ import annotations

import csv
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyspiel

GAME = pyspiel.load_game("connect_four")
COLUMNS = range(7)
NUM_POSITIONS = 2000
MIN_PLIES, MAX_PLIES = 8, 30
RANDOM_PLIES = 4  # tactical.csv: random moves at the start
TACTICAL_SHARE = 0.85  # tactical.csv: chance of a tactical move after them
SEEDS = {"random": 1, "tactical": 2}

State = Any
Play = Callable[[State, random.Random], int]


def wins(state: State, column: int) -> bool:
    """Whether the mover makes four in a row by a legal move."""
    mover = state.current_player()
    child = state.child(column)
    return child.is_terminal() and child.player_return(mover) > 0


def winning_columns(state: State) -> list[int]:
    """The columns in which the mover wins at once."""
    return [column for column in state.legal_actions() if wins(state, column)]


def threats(state: State) -> list[int]:
    """The columns in which the opponent would win at once, were it his turn.

    To give him the turn the mover plays another column, which neither makes nor breaks a line of his. (A board with
    one open column allows no mistake anyway.)
    """
    return sorted(
        {
            column
            for own in state.legal_actions()
            for column in winning_columns(state.child(own))
            if column != own and not state.child(own).is_terminal()
        }
    )


def random_play(state: State, rng: random.Random) -> int:
    """Any legal move."""
    return rng.choice(state.legal_actions())


def tactical_play(state: State, rng: random.Random) -> int:
    """Win at once, else keep the opponent from it, else play as near to the centre as can be; now and then, any."""
    if state.move_number() < RANDOM_PLIES or rng.random() >= TACTICAL_SHARE:
        return random_play(state, rng)
    legal = state.legal_actions()
    safe = [column for column in legal if state.child(column).is_terminal() or not winning_columns(state.child(column))]
    choice = winning_columns(state) or safe or legal
    nearest = min(abs(column - 3) for column in choice)
    return rng.choice([column for column in choice if abs(column - 3) == nearest])


def candidates(play: Play, rng: random.Random) -> Iterator[State]:
    """Endless positions that are not over, of 8 to 30 plies."""
    while True:
        state = GAME.new_initial_state()
        for _ in range(rng.randint(MIN_PLIES, MAX_PLIES)):
            state.apply_action(play(state, rng))
            if state.is_terminal():
                break
        else:
            yield state


def key(state: State) -> str:
    """The same for a board and its mirror image."""
    rows = str(state).split()
    return min("\n".join(rows), "\n".join(row[::-1] for row in rows))


def results_of(solver: Any, state: State) -> dict[int, int]:
    """The mover's result (1, 0 or -1) after each legal move, found twice: for the board and for its mirror image."""
    from bitbully import Board

    found = []
    for mirror in (False, True):
        scores = solver.score_all_moves(Board([6 - column if mirror else column for column in state.history()]))
        results = {column: (score > 0) - (score < 0) for column, score in scores.items()}
        found.append({6 - column if mirror else column: result for column, result in results.items()})
    assert found[0] == found[1], f"the solver contradicts itself: {state.history()}"
    assert sorted(found[0]) == state.legal_actions()
    return found[0]


def main(folder: Path) -> None:
    """Write both sets."""
    from bitbully import BitBully

    solver = BitBully(opening_book="12-ply-dist")
    seen: set[str] = set()
    for name, play in (("random", random_play), ("tactical", tactical_play)):
        rng, started, rows = random.Random(SEEDS[name]), time.monotonic(), []
        for state in candidates(play, rng):
            if key(state) in seen:
                continue
            seen.add(key(state))
            results = results_of(solver, state)
            if len(set(results.values())) == 1:
                continue  # no mistake is possible
            quiet = not winning_columns(state) and not threats(state)
            position = " ".join(map(str, state.history()))
            rows.append([position, int(quiet), *(results.get(column, "") for column in COLUMNS)])
            if len(rows) == NUM_POSITIONS:
                break
            if len(rows) % 100 == 0:
                print(f"{name}: {len(rows)} positions, {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["position", "quiet", *(f"value_{column}" for column in COLUMNS)])
            writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
