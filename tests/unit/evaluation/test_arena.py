from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from fakes import CountingGame, counting_game
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation import (
    RESIGN,
    MatchResult,
    RandomPlayer,
    Tally,
    Turn,
    play_match,
    wilson_interval,
)
from keisei_lightning.games import NO_MOVE, OpeningGame, StepResult, game_factory


class Scripted:
    """Plays by a rule from the count and what is left; notes what it was asked."""

    def __init__(self, rule: Any, name: str = "scripted") -> None:
        self.name = name
        self._rule = rule
        self.asked: list[int] = []
        self.seen: list[list[int]] = []

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        observation = turn.observation
        self.asked.append(len(observation))
        self.seen.append(observation[:, 0, 0, 0].tolist())
        counts = observation.reshape(len(observation), 2)
        return np.array([self._rule(int(count), int(left)) - 1 for count, left in counts], dtype=np.int64)


def perfect(count: int, left: int) -> int:
    """Leave a multiple of four."""
    return left % 4 or 1


def by_one(count: int, left: int) -> int:
    return 1


def test_wilson_intervals_have_these_ends() -> None:
    # Wilson 1927; the same numbers as statsmodels.stats.proportion.proportion_confint(method="wilson").
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=5e-5)
    assert wilson_interval(1.0, 100) == pytest.approx((0.9630, 1.0), abs=5e-5)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson_interval(0.95, 200) == pytest.approx((0.9104, 0.9726), abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(wins=st.integers(0, 50), draws=st.integers(0, 50), losses=st.integers(0, 50))
def test_a_score_lies_in_its_interval_which_turns_around_with_the_players(wins: int, draws: int, losses: int) -> None:
    tally = Tally(wins=wins, draws=draws, losses=losses)
    if not tally.games:
        assert math.isnan(tally.score)
        return
    low, high = tally.interval
    assert 0.0 <= low <= tally.score <= high <= 1.0
    turned = Tally(wins=losses, draws=draws, losses=wins).interval
    assert turned == pytest.approx((1.0 - high, 1.0 - low))


def test_each_game_is_played_once_and_each_seat_half_of_the_time() -> None:
    result = play_match(counting_game(), RandomPlayer(3, 1), RandomPlayer(3, 2), num_games=30, seed=4)
    assert result.as_first.games == result.as_second.games == 15
    assert result.num_games == result.wins + result.draws + result.losses == 30
    assert result.outcomes == {"goal": 30}


def test_a_perfect_player_wins_from_both_seats_where_it_can() -> None:
    # From 0 of 10 the first player wins (leave 8); by_one never defends.
    result = play_match(counting_game(), Scripted(perfect), Scripted(by_one), num_games=8, seed=0)
    assert (result.wins, result.draws, result.losses) == (8, 0, 0)
    assert result.score == 1.0
    assert result.interval == pytest.approx((0.6756, 1.0), abs=5e-5)


def test_seats_are_counted_apart() -> None:
    # Both play perfectly: whoever is first from 0 of 10 wins.
    result = play_match(counting_game(), Scripted(perfect), Scripted(perfect), num_games=6, seed=0)
    assert result.as_first == Tally(wins=3)
    assert result.as_second == Tally(losses=3)
    assert result.score == 0.5


def test_both_seats_get_the_same_openings_and_these_vary() -> None:
    player, opponent = Scripted(by_one), Scripted(by_one)
    play_match(counting_game(), player, opponent, num_games=40, opening_plies=3, seed=7)
    # In a pair of games the same position comes to the player in one and to the opponent in the other.
    assert sorted(player.seen[0]) == sorted(opponent.seen[0])
    assert len(set(player.seen[0])) > 2


def test_the_games_own_openings_count_only_where_none_are_asked_for() -> None:
    def deepest(opening_plies: int | None) -> int:
        player = Scripted(by_one)
        play_match(
            counting_game(goal=30, opening_plies=9),
            player,
            Scripted(by_one),
            num_games=40,
            opening_plies=opening_plies,
            seed=7,
        )
        return max(player.seen[0])

    assert 6 <= deepest(None) <= 9
    assert deepest(0) == 0
    assert deepest(1) <= 3  # one random ply adds 1 to 3


@pytest.mark.parametrize(("name", "start"), [("shogi", " 1"), ("connect_four", "-")])
def test_openings_of_a_match_replace_those_of_the_training(name: str, start: str) -> None:
    game = game_factory(name, opening_plies=30)(10)
    assert isinstance(game, OpeningGame)
    assert game.opening_plies == 30
    seen: list[str] = []

    class Watching(RandomPlayer):
        def choose(self, turn: Turn) -> NDArray[np.int64]:
            seen.extend(turn.game.position(index) for index in turn.indices.tolist())
            return super().choose(turn)

    num_actions = game.spec.num_actions
    play_match(
        game_factory(name, opening_plies=30),
        Watching(num_actions, 1),
        RandomPlayer(num_actions, 2),
        num_games=2,
        opening_plies=0,
    )
    assert seen[0].endswith(start)


def test_an_opening_never_ends_a_game() -> None:
    result = play_match(counting_game(goal=3), Scripted(by_one), Scripted(by_one), num_games=60, opening_plies=9)
    assert result.outcomes == {"goal": 60}
    assert 1.0 <= result.mean_length <= 3.0


def test_one_choice_for_all_boards_at_each_ply_and_none_for_finished_ones() -> None:
    player, opponent = Scripted(by_one), Scripted(perfect)
    result = play_match(counting_game(goal=6), player, opponent, num_games=10, seed=0)
    # 5 games: 1, (2+) ... each player is asked once a ply, about its own boards that are going on.
    assert player.asked[0] == 5
    assert opponent.asked[0] == 5
    assert len(player.asked) <= 6
    assert sum(player.asked) + sum(opponent.asked) == round(result.mean_length * 10)


def test_a_match_repeats_itself() -> None:
    def match() -> MatchResult:
        return play_match(
            counting_game(), RandomPlayer(3, 1), RandomPlayer(3, 2), num_games=20, opening_plies=2, seed=9
        )

    assert match() == match()


def test_a_game_that_is_cut_short_counts_as_half() -> None:
    result = play_match(counting_game(truncate_after=2), Scripted(by_one), Scripted(by_one), num_games=4, seed=0)
    assert (result.wins, result.draws, result.losses) == (0, 4, 0)
    assert result.outcomes == {"cut short": 4}
    assert result.score == 0.5


def test_the_game_that_is_shown_is_a_whole_one_with_its_players() -> None:
    result = play_match(counting_game(), Scripted(perfect, "me"), Scripted(by_one, "you"), num_games=2, seed=0)
    assert result.last_title in ("me (first) against you (second): goal", "you (first) against me (second): goal")
    assert sum(int(move) for move in result.last_record.split()) == 10
    assert result.last_svg.startswith("<svg")
    assert str(result) == "me scores 100.0% against you (95 % interval 34.2% to 100.0%; 2 wins, 0 draws, 0 losses)"


class Answering(Scripted):
    """Gives the same answer, move or not, wherever it is asked."""

    def __init__(self, answer: int) -> None:
        super().__init__(by_one, "answering")
        self._answer = answer

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        super().choose(turn)
        return np.full(len(turn.indices), self._answer, dtype=np.int64)


def test_who_resigns_loses_in_either_seat() -> None:
    result = play_match(counting_game(), Answering(RESIGN), Scripted(by_one), num_games=6, seed=0)
    assert (result.wins, result.draws, result.losses, result.void) == (0, 0, 6, 0)
    assert result.outcomes == {"resignation": 6}
    assert play_match(counting_game(), Scripted(by_one), Answering(RESIGN), num_games=6, seed=0).wins == 6


def test_a_game_in_which_a_player_has_no_answer_counts_for_nobody() -> None:
    result = play_match(counting_game(), Answering(NO_MOVE), Scripted(by_one), num_games=6, seed=0)
    assert (result.num_games, result.void) == (0, 6)
    assert math.isnan(result.score)
    assert result.outcomes == {"void": 6}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (-5, r"player answering: action -5 is out of range in position \d+ [01]; must be from 0 to 2, or -2 to resign"),
        (3, r"player answering: action 3 is out of range in position"),
        (2, r"player answering: action 2 is illegal in position [89] [01]"),
    ],
)
@pytest.mark.parametrize("seat", [0, 1])
def test_a_bad_action_is_the_players_fault_and_no_result(action: int, message: str, seat: int) -> None:
    """-5 was ten draws."""
    players = Scripted(by_one), Answering(action)
    with pytest.raises(GameError, match=message):
        play_match(counting_game(), players[seat], players[1 - seat], num_games=10, seed=0)


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        (np.zeros(4, np.float32), r"float32 \[4\]"),
        (np.full(4, np.nan), r"float64 \[4\]"),
        (np.ones(4, np.bool_), r"bool \[4\]"),
        (np.zeros((4, 1), np.int64), r"int64 \[4, 1\]"),
        (np.zeros(3, np.int64), r"int64 \[3\]"),
        (np.int64(0), r"int64 \[\]"),
        (None, r"object \[\]"),
    ],
)
def test_an_answer_of_another_shape_or_dtype_is_the_players_fault(answer: Any, given: str) -> None:
    class Giving(Scripted):
        def choose(self, turn: Turn) -> NDArray[np.int64]:
            return answer  # type: ignore[no-any-return]

    with pytest.raises(GameError, match=rf"player scripted: gives actions {given}; must be integers \[4\], one for"):
        play_match(counting_game(), Giving(by_one), Giving(by_one), num_games=8, seed=0)


def test_actions_may_be_integers_of_any_size_or_a_list() -> None:
    class Narrow(Scripted):
        def choose(self, turn: Turn) -> Any:
            actions = super().choose(turn)
            return actions.astype(np.uint8) if len(self.asked) % 2 else actions.tolist()

    wide, narrow = (
        play_match(counting_game(), player(perfect), Scripted(by_one), num_games=8, seed=0)
        for player in (Scripted, Narrow)
    )
    assert (narrow.wins, narrow.losses) == (wide.wins, wide.losses)


class AtTheEnd(Scripted):
    """Plays well, and has no answer where two are left."""

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        return np.where(turn.observation[:, 1, 0, 0] == 2, NO_MOVE, super().choose(turn))


def test_a_void_game_leaves_the_others_as_they_are() -> None:
    result = play_match(counting_game(), AtTheEnd(perfect), RandomPlayer(3, 1), num_games=200, opening_plies=3, seed=0)
    assert 0 < result.void < 200
    assert result.num_games + result.void == sum(result.outcomes.values()) == 200
    assert "void)" in str(result)


def test_no_two_pairs_begin_alike_while_there_are_enough_openings() -> None:
    player = Scripted(by_one)
    result = play_match(counting_game(goal=30), player, RandomPlayer(3, 0), num_games=24, opening_plies=3, seed=3)
    assert result.repeated == 0
    assert max(Counter(player.seen[0]).values()) <= 2  # one count may be of either mover
    crowded = play_match(counting_game(), Scripted(by_one), Scripted(by_one), num_games=40, opening_plies=1, seed=3)
    assert crowded.repeated == 40 - 2 * 4  # the start and three first moves, each from both seats


def test_games_that_go_alike_are_counted_as_repeated() -> None:
    one = play_match(counting_game(), Scripted(by_one), Scripted(by_one), num_games=8, opening_plies=0, seed=0)
    assert one.repeated == 6
    random = play_match(counting_game(goal=40), RandomPlayer(3, 1), RandomPlayer(3, 2), num_games=8, seed=0)
    assert random.repeated == 0


def test_every_game_can_be_kept_as_a_record() -> None:
    result = play_match(
        counting_game(), Scripted(perfect, "me"), Scripted(by_one, "you"), num_games=4, seed=0, keep_records=True
    )
    assert [(game.first, game.second) for game in result.records] == [("me", "you"), ("you", "me")] * 2
    assert sum(game.points for game in result.records) == result.wins - result.losses
    assert sum(game.plies for game in result.records) == round(result.mean_length * 4)
    assert [sum(map(int, game.record.split())) for game in result.records] == [10] * 4
    assert play_match(counting_game(), RandomPlayer(3), RandomPlayer(3), num_games=2).records == ()


def test_progress_tells_after_each_ply_how_many_games_have_ended() -> None:
    told: list[int] = []
    play_match(counting_game(), RandomPlayer(3, 1), RandomPlayer(3, 2), num_games=20, seed=4, progress=told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 20)


def test_a_game_without_end_is_an_error() -> None:
    class Endless(CountingGame):
        def step(self, actions: NDArray[np.int64]) -> StepResult:
            nothing = np.zeros(self.num_games, np.bool_)
            return StepResult(nothing.astype(np.float32), nothing, nothing)

    with pytest.raises(GameError, match="beyond max_plies=10"):
        play_match(Endless, Scripted(by_one), Scripted(by_one), num_games=2, seed=0)


@pytest.mark.parametrize("num_games", [0, -2, 7])
def test_a_number_of_games_that_is_not_even_is_refused(num_games: int) -> None:
    with pytest.raises(ConfigError, match=f"num_games={num_games}: must be an even number from 2 on"):
        play_match(counting_game(), RandomPlayer(3), RandomPlayer(3), num_games=num_games)
