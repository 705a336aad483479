"""What is said of a policy: openings, mistakes, each beside numbers that are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keisei_lightning.analysis.mistakes import find_mistakes, grader_of
from keisei_lightning.analysis.openings import opening_tree
from keisei_lightning.analysis.self_play import play_self
from keisei_lightning.errors import UnsupportedGameError
from keisei_lightning.evaluation.connect_four_solver import ConnectFourSolver
from keisei_lightning.evaluation.solvers import SmallGame
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic

DATA = Path(__file__).parents[2] / "data" / "connect_four"


class FixedNetwork(nn.Module):
    """The same logits and value in every position."""

    def __init__(self, logits: list[float], value: float = 0.25) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.value = value

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        count = len(observation)
        return self.logits.expand(count, -1), torch.full((count, 1), self.value)


def test_a_game_against_oneself_is_recorded_with_its_result_for_each_mover() -> None:
    """With these logits squares are taken from 0 on: the first player has 0, 2, 4, 6 and wins by the diagonal."""
    policy = ActorCritic(FixedNetwork([900.0 - 100.0 * square for square in range(9)]))
    played = play_self(policy, game_factory("tic_tac_toe"), 3, seed=1)
    assert played.num_games == 3
    first = played.game == 0
    assert played.action[first].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert played.result[first].tolist() == [1, -1, 1, -1, 1, -1, 1]
    assert played.ply[first].tolist() == list(range(7))
    assert (played.value == 0.25).all()
    assert [word for word, is_first in zip(played.position, first, strict=True) if is_first][:3] == ["-", "0", "0 1"]


def test_games_of_one_seed_are_the_same_and_draw_their_moves() -> None:
    policy = ActorCritic(FixedNetwork([0.0] * 9))
    one, two, other = (play_self(policy, game_factory("tic_tac_toe"), 20, seed=seed) for seed in (1, 1, 2))
    assert one.position == two.position
    assert one.position != other.position
    assert len({tuple(one.action[one.game == game].tolist()) for game in range(20)}) > 10


def test_openings_are_the_likeliest_moves_with_their_probabilities() -> None:
    logits = np.log([0.5, 0.25, 0.125, 0.03125, 0.03125, 0.03125, 0.03125])
    root = opening_tree(ActorCritic(FixedNetwork(logits.tolist())), game_factory("connect_four"), plies=2, width=2)
    assert [(reply.share, reply.reach) for reply in root.replies] == [
        (pytest.approx(0.5), pytest.approx(0.5)),
        (pytest.approx(0.25), pytest.approx(0.25)),
    ]
    assert root.others == 5
    assert [reply.reach for reply in root.replies[1].replies] == [pytest.approx(0.125), pytest.approx(0.0625)]
    assert root.replies[0].replies[0].replies == []
    rarely = opening_tree(ActorCritic(FixedNetwork(logits.tolist())), game_factory("connect_four"), least_reach=0.3)
    assert [reply.share for reply in rarely.replies] == [pytest.approx(0.5)]


def test_openings_begin_at_the_start_of_the_game_whatever_it_was_trained_from() -> None:
    game = game_factory("connect_four", opening_plies=20)
    root = opening_tree(ActorCritic(FixedNetwork([0.0] * 7)), game, plies=1, width=7)
    assert [reply.move for reply in root.replies] == [f"x{column}" for column in range(7)]


def test_mistakes_in_tic_tac_toe_are_those_that_change_the_result() -> None:
    """After 0 and 1 the first player wins by 3 or 4 or 6; 2 throws it away, and the reply 3 is one of the draws."""
    policy = ActorCritic(FixedNetwork([900.0 - 100.0 * square for square in range(9)]))
    played = play_self(policy, game_factory("tic_tac_toe"), 1)
    found = find_mistakes(played, grader_of("tic_tac_toe"))
    assert found.graded.total() == 7
    assert found.unknown.total() == 0
    by_ply = {kind: dict(counts) for kind, counts in found.by_kind.items()}
    assert found.total == sum(sum(counts.values()) for counts in by_ply.values()) > 0
    assert 1 in by_ply["draw to loss"]  # the reply to a corner must be the centre


def test_every_move_of_a_small_game_has_the_result_of_the_position_that_it_leads_to() -> None:
    game = SmallGame("tic_tac_toe")
    values = game.move_values()
    mask = np.unpackbits(game.legal, axis=1, count=9).astype(bool)
    assert (values[~mask] == -2).all()
    assert (values[mask] >= -1).all()
    assert (values.max(axis=1) == game.values()).all()


def test_a_game_without_a_solver_is_refused() -> None:
    for game in ("shogi", "nosuch"):
        with pytest.raises(UnsupportedGameError, match=f"no exact solver knows {game}"):
            grader_of(game)


# ---- connect four


def labelled(least_plies: int, most: int) -> list[tuple[list[int], list[int | None]]]:
    rows = []
    for name in ("random", "tactical"):
        with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                columns = [int(word) for word in row["position"].split() if word != "-"]
                cells = [row[f"value_{column}"] for column in range(7)]
                if len(columns) >= least_plies:
                    rows.append((columns, [int(cell) if cell else None for cell in cells]))
    return rows[:most]


@pytest.mark.slow
def test_the_solver_agrees_with_a_perfect_one_on_positions_that_were_labelled_by_it() -> None:
    solver = ConnectFourSolver(max_positions=3_000)
    known = 0
    for columns, results in labelled(22, 60):
        found = solver.move_results(columns)
        for mine, theirs in zip(found, results, strict=True):
            if mine is not None:
                assert mine == theirs, columns
                known += 1
    assert known > 250


def test_a_win_on_the_spot_is_seen_at_once_and_so_is_a_move_that_throws_it_away() -> None:
    solver = ConnectFourSolver()
    three_in_a_row = [0, 6, 1, 6, 2, 5]
    assert solver.grade(three_in_a_row, 3) == (1, 1)
    late = next(columns for columns, results in labelled(26, 100) if {1, -1} <= set(results))
    results = solver.move_results(late)
    assert solver.grade(late, results.index(-1)) == (1, -1)


def test_without_positions_to_look_at_nothing_is_known() -> None:
    assert ConnectFourSolver(max_positions=0).move_results([3]) == [None] * 7
    assert ConnectFourSolver(max_positions=0).grade([3], 3) is None


def test_what_is_no_position_is_refused() -> None:
    solver = ConnectFourSolver()
    with pytest.raises(ValueError, match="7 is no legal move"):
        solver.move_results([7])
    with pytest.raises(ValueError, match="0 is no legal move"):
        solver.grade([0] * 6, 0)
    with pytest.raises(ValueError, match="the game is over"):
        solver.move_results([0, 1, 0, 1, 0, 1, 0])


def test_early_moves_of_connect_four_are_not_graded() -> None:
    grade = grader_of("connect_four")
    assert grade("3 3 3", b"", 3) is None
    columns, results = labelled(26, 1)[0]
    action = next(place for place, result in enumerate(results) if result is not None)
    best = max(result for result in results if result is not None)
    assert grade(" ".join(map(str, columns)), b"", action) == (best, results[action])
