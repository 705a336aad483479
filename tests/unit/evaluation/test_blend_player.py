from __future__ import annotations

import numpy as np
import pytest
from fakes import counting_game, turn_of
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation import Turn, make_player, play_match, start_player
from keisei_lightning.evaluation.blend_player import BlendPlayer
from keisei_lightning.games import game_factory

CONNECT_FOUR = game_factory("connect_four")
SPEC = CONNECT_FOUR(1).spec


class Middle:
    """Plays the middle column, and notes the boards that it is asked about."""

    name = "middle"

    def __init__(self, answer: int = 3) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self.started = self.closed = 0

    def start(self) -> None:
        self.started += 1

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        self.asked += turn.indices.tolist()
        assert len(turn.observation) == len(turn.legal) == len(turn.indices)
        return np.full(len(turn.indices), self.answer)

    def close(self) -> None:
        self.closed += 1


def blend(player: Middle, share: float, seed: int = 1) -> BlendPlayer:
    return BlendPlayer(player, share, num_actions=SPEC.num_actions, seed=seed)


def test_its_share_of_the_moves_is_the_players_and_the_others_are_chance() -> None:
    middle = Middle()
    chosen = blend(middle, 0.3).choose(turn_of(CONNECT_FOUR(14_000)))
    assert abs(len(middle.asked) - 4200) < 250  # 4.6 standard deviations
    asked = np.isin(np.arange(14_000), middle.asked)
    assert (chosen[asked] == 3).all()
    counts = np.bincount(chosen[~asked], minlength=7)
    assert (abs(counts - 1400) < 170).all()  # 5 standard deviations: every column, the middle one too


@pytest.mark.parametrize(("share", "asked"), [(0.0, 0), (1.0, 50)])
def test_of_no_share_it_is_chance_and_of_the_whole_it_is_the_player(share: float, asked: int) -> None:
    middle = Middle()
    chosen = blend(middle, share).choose(turn_of(CONNECT_FOUR(50)))
    assert len(middle.asked) == asked
    assert (chosen == 3).all() == (share == 1.0)


def test_the_player_is_asked_about_the_boards_of_the_game_that_wait() -> None:
    middle = Middle()
    blend(middle, 1.0).choose(turn_of(CONNECT_FOUR(9), [2, 5, 8]))
    assert middle.asked == [2, 5, 8]


def test_two_with_the_same_seed_choose_the_same_and_another_seed_something_else() -> None:
    turn = turn_of(CONNECT_FOUR(200))
    first, again, other = (blend(Middle(), 0.5, seed).choose(turn).tolist() for seed in (7, 7, 8))
    assert first == again != other


def test_it_starts_and_closes_the_player() -> None:
    middle = Middle()
    player = blend(middle, 0.5)
    start_player(player)
    player.close()
    assert (middle.started, middle.closed) == (1, 1)


def test_an_answer_of_the_player_that_is_no_move_names_it() -> None:
    with pytest.raises(GameError, match="player middle: action 9 is out of range"):
        blend(Middle(answer=9), 1.0).choose(turn_of(CONNECT_FOUR(3)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "blend(player=tactics,share=1.5)",
            r"blend\(player=tactics,share=1.5\): share=1.5: must be from 0 to 1",
        ),
        ("blend(player=tactics,share=nan)", "share=nan: must be from 0 to 1"),
        ("blend(player=tactics,share=half)", "share=half: must be a number"),
        ("blend(player=tactics)", "share is missing"),
        ("blend(share=0.5)", "player is missing"),
        ("blend(player=tactic,share=0.5)", "tactics"),
        ("blend(player='alpha_beta(depth=0)',share=0.5)", "depth"),
        ("blend(player=mate_in_one,share=0.5)", "must be shogi"),
    ],
)
def test_a_name_with_a_fault_is_one_line_that_tells_it(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_player(name, SPEC)


def test_a_blend_of_a_player_with_options_is_between_it_and_chance() -> None:
    names = ["random", "blend(player='alpha_beta(depth=2)',share=0.5)", "alpha_beta(depth=2)"]
    weak, blended, strong = (make_player(name, SPEC, seed=seed) for seed, name in enumerate(names))
    assert blended.name == names[1]
    against_chance = play_match(CONNECT_FOUR, blended, weak, num_games=100, opening_plies=4, seed=1)
    against_strong = play_match(CONNECT_FOUR, blended, strong, num_games=100, opening_plies=4, seed=1)
    assert against_chance.score > 0.65
    assert against_strong.score < 0.35


def test_games_that_are_not_of_open_spiel_have_blends_too() -> None:
    game = counting_game()(4)
    player = make_player("blend(player=random,share=0.5)", game.spec)
    legal = np.unpackbits(turn_of(game).legal, axis=1)
    chosen = player.choose(turn_of(game))
    assert legal[np.arange(4), chosen].all()
