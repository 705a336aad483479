from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from fakes import counting_game, turn_of
from numpy.typing import NDArray

from keisei_lightning.errors import GameError, UnsupportedGameError
from keisei_lightning.evaluation import Player, RandomPlayer, Turn, play_match
from keisei_lightning.evaluation.shogi_players import (
    PIECE_VALUES,
    GreedyCapturePlayer,
    MateInOnePlayer,
    make_greedy_capture,
    make_mate_in_one,
)
from keisei_lightning.games import game_factory
from keisei_lightning.games.shogi.codec import NUM_ACTIONS, PIECE_NAMES, mirror_sfen
from keisei_lightning.games.shogi.game import Shogi

SHOGI = game_factory("shogi", max_plies=256)


def choices(player: Player, sfen: str, times: int = 200) -> Counter[str]:
    """How often a player plays which move in a position."""
    game = Shogi(times)
    for index in range(times):
        game.set_position(index, sfen)
    return Counter(
        game.action_name(index, int(action)) for index, action in enumerate(player.choose(turn_of(game)).tolist())
    )


def test_promoted_pieces_are_worth_more_than_plain_ones_and_the_great_pieces_most() -> None:
    value = dict(zip(PIECE_NAMES, PIECE_VALUES, strict=True))
    assert all(value[f"+{piece}"] > value[piece] for piece in "PLNSBR")
    assert sorted(value, key=lambda name: value[name])[-4:] == ["B", "+B", "R", "+R"]


@pytest.mark.parametrize("turned", [False, True])
def test_the_most_valuable_piece_is_captured_with_and_without_promotion_by_whatever_can(turned: bool) -> None:
    # The rook on 5e can take a pawn (5g), a silver (2e), a gold (8e); the pawn on 5d can take a promoted pawn on 5c.
    sfen = "4k4/9/4+p4/4P4/1g2R2s1/9/4p4/9/4K4 b - 1"
    taken = {"5e8e", "5d5c", "5d5c+"}  # gold and promoted pawn are worth the same
    if turned:
        sfen = "4k4/9/4P4/9/1S2r2G1/4p4/4+P4/9/4K4 w - 1"
        taken = {"5e2e", "5f5g", "5f5g+"}
    counts = choices(GreedyCapturePlayer(seed=3), sfen, times=600)
    assert set(counts) == taken
    assert all(abs(count - 200) < 60 for count in counts.values())  # 5 standard deviations


def test_without_a_capture_every_legal_move_is_as_likely() -> None:
    counts = choices(GreedyCapturePlayer(seed=1), "startpos", times=3000)
    assert len(counts) == 30
    assert all(abs(count - 100) < 50 for count in counts.values())  # 5 standard deviations


def test_pieces_in_hand_are_no_prey_and_own_pieces_neither() -> None:
    assert set(choices(GreedyCapturePlayer(), "4k4/9/9/9/9/9/4p4/4K4/9 b R2G 1")) == {"5h5g"}


def test_a_mate_is_played_wherever_there_is_one_and_a_capture_elsewhere() -> None:
    mate, capture = "8k/9/8P/9/9/9/9/3r5/4K4 b G 1", "4k4/9/9/9/9/9/4p4/4K4/9 b - 1"
    assert set(choices(MateInOnePlayer(), mate, times=20)) == {"G*1b"}
    assert set(choices(MateInOnePlayer(), mirror_sfen(mate), times=20)) == {"G*9b"}
    assert set(choices(MateInOnePlayer(), capture, times=20)) == {"5h5g"}
    shut_in = "7lk/7p1/7S1/9/9/9/9/9/4K4 b {} 1"
    assert set(choices(MateInOnePlayer(), shut_in.format("PL"), times=20)) == {"L*1b"}
    assert set(choices(MateInOnePlayer(), shut_in.format("P"), times=20)) == {"2c2b", "2c2b+"}  # not P*1b: illegal


def test_scripts_choose_nothing_on_finished_boards() -> None:
    game = Shogi(2)
    game.set_position(0, "8k/9/8P/9/9/9/9/9/4K4 b G 1")
    game.step(np.array([game.action_of(0, "G*1b"), -1]))
    for player in (GreedyCapturePlayer(), MateInOnePlayer()):
        actions = player.choose(turn_of(game))
        assert actions[0] == -1
        assert actions[1] >= 0


def test_scripts_of_one_seed_play_the_same_games() -> None:
    def games(player: Player) -> list[list[int]]:
        game = Shogi(4)
        played: list[NDArray[np.int64]] = []
        for _ in range(12):
            played.append(player.choose(turn_of(game)))
            game.step(played[-1])
        return [actions.tolist() for actions in played]

    spec = SHOGI(1).spec
    for make in (make_greedy_capture, make_mate_in_one):
        assert games(make(spec, seed=5, name="one")) == games(make(spec, seed=5, name="other"))
        assert games(make(spec, seed=5, name="one")) != games(make(spec, seed=6, name="other"))


def test_a_ladder_of_scripts_is_a_ladder() -> None:
    chance, greedy, mating = RandomPlayer(NUM_ACTIONS, 1), GreedyCapturePlayer(2), MateInOnePlayer(3)
    easy = play_match(SHOGI, greedy, chance, num_games=60, opening_plies=4, seed=0)
    hard = play_match(SHOGI, mating, greedy, num_games=60, opening_plies=4, seed=0)
    assert easy.interval[0] > 0.5
    assert hard.interval[0] > 0.5
    assert easy.void == hard.void == 0


@pytest.mark.parametrize("make", [make_greedy_capture, make_mate_in_one])
def test_other_games_are_refused(make: type) -> None:
    with pytest.raises(UnsupportedGameError, match=r"^player me: game=counting: must be shogi$"):
        make(counting_game()(1).spec, seed=0, name="me")


def test_a_mate_is_not_looked_for_on_other_boards_nor_from_another_thread() -> None:
    other = Turn(
        game=counting_game()(1),
        indices=np.arange(1),
        observation=np.zeros((1, 98), np.uint8),
        legal=np.zeros((1, 274), np.uint8),
    )
    with pytest.raises(GameError, match=r"player mate_in_one: plays on boards of Shogi only, not of CountingGame"):
        MateInOnePlayer().choose(other)
    turn = turn_of(Shogi(1))
    caught: list[str] = []

    def ask() -> None:
        try:
            MateInOnePlayer().choose(turn)
        except GameError as error:
            caught.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert caught == ["shogi: a game belongs to the thread that used it first; make one in each thread"]
