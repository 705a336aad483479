from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import CountingGame, counting_game
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2
from thread_ranks import on_ranks

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
from keisei_lightning.evaluation.results import PAIR_POINTS, design_effect
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
    assert result.interval == pytest.approx((0.5101, 1.0), abs=5e-5)  # of four pairs, Wilson


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


def test_the_same_arguments_give_the_same_match() -> None:
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
    assert str(result) == "me scores 100.0% against you (95 % interval 20.7% to 100.0%; 2 wins, 0 draws, 0 losses)"


class MailboxServer(Scripted):
    """Gives the same answer, move or not, wherever it is asked."""

    def __init__(self, answer: int) -> None:
        super().__init__(by_one, "answering")
        self._answer = answer

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        super().choose(turn)
        return np.full(len(turn.indices), self._answer, dtype=np.int64)


def test_a_player_that_resigns_loses_in_either_seat() -> None:
    result = play_match(counting_game(), MailboxServer(RESIGN), Scripted(by_one), num_games=6, seed=0)
    assert (result.wins, result.draws, result.losses, result.void) == (0, 0, 6, 0)
    assert result.outcomes == {"resignation": 6}
    assert play_match(counting_game(), Scripted(by_one), MailboxServer(RESIGN), num_games=6, seed=0).wins == 6


def test_a_game_in_which_a_player_has_no_move_counts_for_neither_player() -> None:
    result = play_match(counting_game(), MailboxServer(NO_MOVE), Scripted(by_one), num_games=6, seed=0)
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
def test_a_bad_action_is_the_players_error_and_no_result(action: int, message: str, seat: int) -> None:
    """-5 was ten draws."""
    players = Scripted(by_one), MailboxServer(action)
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
def test_an_answer_of_another_shape_or_dtype_is_the_players_error(answer: Any, given: str) -> None:
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


class Deterministic(Scripted):
    """Says that it answers a position always alike, which is so."""

    deterministic = True


GOAL, LIMIT = 30, 8
"""Of the counting game whose openings are enumerated, and their plies at most."""


def opening_chances(goal: int = GOAL, limit: int = LIMIT) -> dict[str, float]:
    """How likely each opening is: 0 to ``limit`` random plies, cut short before one that would end the game."""
    chances: Counter[str] = Counter()
    going = {(0, 0): 1.0}
    for plies in range(limit + 1):
        further: Counter[tuple[int, int]] = Counter()
        for (count, mover), chance in going.items():
            chances[f"{count} {mover}"] += chance / (limit + 1)
            moves = [move for move in (1, 2, 3) if count + move <= goal]
            for move in moves:
                if count + move == goal:  # longer openings stop here
                    chances[f"{count} {mover}"] += chance / len(moves) * (limit - plies) / (limit + 1)
                else:
                    further[count + move, 1 - mover] += chance / len(moves)
        going = dict(further)
    return dict(chances)


def late(count: int, left: int) -> int:
    """Perfect play, but for the beginning of the game, which it gives up."""
    return RESIGN + 1 if count < 6 else perfect(count, left)


def pair_score(opening: str) -> float:
    """Score of :func:`late` against :func:`by_one` from one opening, mean of the seats."""

    def points(seat: int) -> int:
        count, mover = map(int, opening.split())
        while count < GOAL:
            move = (late if mover == seat else by_one)(count, GOAL - count)
            if move <= 0:
                return 0
            count, mover = count + move, 1 - mover
        return int(mover != seat)

    return (points(0) + points(1)) / 2


def moments() -> tuple[float, float]:
    """Expectation and variance of a pair's score over the openings, by enumeration."""
    chances = opening_chances()
    scores = {opening: pair_score(opening) for opening in chances}
    mean = sum(chance * scores[opening] for opening, chance in chances.items())
    return mean, sum(chance * (scores[opening] - mean) ** 2 for opening, chance in chances.items())


def scripted_match(num_games: int, seed: int, *, kind: type[Scripted] = Deterministic) -> MatchResult:
    players = kind(late, "me"), kind(by_one, "you")
    return play_match(counting_game(goal=GOAL), *players, num_games=num_games, opening_plies=LIMIT, seed=seed)


def test_the_enumeration_of_openings_is_whole() -> None:
    assert sum(opening_chances().values()) == pytest.approx(1.0)
    assert sum(opening_chances(6, 4).values()) == pytest.approx(1.0)
    assert opening_chances(6, 4)["0 0"] == pytest.approx(1 / 5)
    # Up to one ply of a game to 3: a first move of 3 would end it, so that such an opening is the start.
    assert opening_chances(3, 1) == pytest.approx({"0 0": 1 / 2 + 1 / 6, "1 1": 1 / 6, "2 1": 1 / 6})
    assert moments() == pytest.approx((0.6582, 0.2111), abs=5e-5)  # openings matter, short ones most


@pytest.mark.parametrize(("num_games", "matches"), [(20, 200), (400, 40), (10_000, 2)])
def test_the_expected_score_does_not_depend_on_the_number_of_games(num_games: int, matches: int) -> None:
    mean, variance = moments()
    scores = [scripted_match(num_games, seed).score for seed in range(matches)]
    error = math.sqrt(variance / (num_games / 2 * matches))
    assert abs(np.mean(scores) - mean) < 3.0 * error


def test_a_score_converges_to_the_exact_expectation() -> None:
    mean, variance = moments()
    low, high = scripted_match(10_000, 1).interval
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance / 5000), rel=0.02)


class Noting(RandomPlayer):
    """Notes the positions of its first turn."""

    def __init__(self, seed: int) -> None:
        super().__init__(3, seed)
        self.openings: list[str] = []

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        if not self.openings:
            self.openings = [turn.game.position(index) for index in turn.indices.tolist()]
        return super().choose(turn)


@pytest.mark.parametrize("num_games", [20, 400, 4000])
def test_each_opening_is_as_frequent_as_it_is_likely(num_games: int) -> None:
    seen: Counter[str] = Counter()
    pairs = 2000
    for seed in range(2 * pairs // num_games):
        players = Noting(seed), Noting(seed + 1)
        play_match(counting_game(goal=6), *players, num_games=num_games, opening_plies=4, seed=seed)
        seen.update(players[0].openings + players[1].openings)
    chances = opening_chances(6, 4)
    assert seen.total() == 2 * pairs
    assert set(seen) == set(chances)
    squares = sum((seen[o] / 2 - pairs * chance) ** 2 / (pairs * chance) for o, chance in chances.items())
    assert squares < chi2.ppf(0.99, len(chances) - 1)


@pytest.mark.parametrize("num_games", [20, 400])
def test_the_games_own_openings_come_again_too(num_games: int) -> None:
    at_start: list[bool] = []
    for seed in range(800 // num_games):
        players = Noting(seed), Noting(seed + 1)
        play_match(counting_game(opening_plies=1), *players, num_games=num_games, opening_plies=None, seed=seed)
        at_start += [opening == "0 0" for opening in players[0].openings + players[1].openings]
    assert np.mean(at_start) == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(400))


def test_the_interval_covers_the_exact_expectation() -> None:
    mean, _ = moments()
    intervals = [scripted_match(100, seed).interval for seed in range(150)]
    assert 0.93 <= np.mean([low <= mean <= high for low, high in intervals]) <= 0.98


def test_deterministic_players_play_an_opening_once_and_it_counts_as_often_as_it_was_drawn() -> None:
    once, anew = (scripted_match(400, 5, kind=kind) for kind in (Deterministic, Scripted))
    assert anew.played == 400
    assert 40 < once.played <= 2 * len(opening_chances())
    assert replace(once, played=400, last_record="", last_svg="", last_title="") == replace(
        anew, last_record="", last_svg="", last_title=""
    )
    assert once.num_games == sum(once.outcomes.values()) == 2 * sum(once.pairs) == 400


def test_one_deterministic_player_of_two_is_not_enough() -> None:
    result = play_match(counting_game(), Deterministic(perfect), RandomPlayer(3), num_games=40, opening_plies=0)
    assert (result.played, result.num_games) == (40, 40)


def test_a_match_without_openings_is_two_games_for_deterministic_players() -> None:
    told: list[int] = []
    result = play_match(
        counting_game(),
        Deterministic(perfect, "me"),
        Deterministic(perfect, "you"),
        num_games=400,
        opening_plies=0,
        keep_records=True,
        progress=told.append,
    )
    assert (result.played, result.repeated, result.num_games) == (2, 398, 400)
    assert (result.as_first, result.as_second) == (Tally(wins=200), Tally(losses=200))
    assert [game.times for game in result.records] == [200, 200]
    assert result.pairs == (0, 0, 200, 0, 0)
    assert told[-1] == 400


def test_a_void_game_leaves_its_twin_without_a_pair() -> None:
    result = play_match(counting_game(), AtTheEnd(perfect), RandomPlayer(3, 1), num_games=200, opening_plies=3, seed=0)
    assert 0 < 2 * sum(result.pairs) < result.num_games
    assert 0.0 < result.interval[0] < result.score < result.interval[1] <= 1.0


def test_pairs_that_end_alike_count_as_one_game_and_independent_games_as_two() -> None:
    alike = design_effect((20, 0, 0, 0, 80))
    assert alike == pytest.approx(2.0)
    many = 10**6
    assert design_effect((many, 0, 2 * many, 0, many)) == pytest.approx(1.0, abs=1e-4)
    # One seat always wins: the score is sure, but for what so few pairs may hide.
    assert design_effect((0, 0, 100, 0, 0)) == pytest.approx(2 * 3.8415 / 103.8415, abs=1e-4)
    assert design_effect((0, 0, 0, 0, 0)) == pytest.approx(2.0)
    # Games without a twin are independent.
    assert design_effect((0,) * 5, single_games=many, single_points=many / 4) == pytest.approx(1.0, abs=1e-4)


PAIRS = {
    "independent games": (0.25, 0, 0.5, 0, 0.25),
    "independent games, strong": (0.01, 0, 0.18, 0, 0.81),
    "pairs that end alike": (0.1, 0, 0, 0, 0.9),
    "pairs that end alike, even": (0.5, 0, 0, 0, 0.5),
    "one seat wins": (0.05, 0, 0.9, 0, 0.05),
    "draws": (0.05, 0.1, 0.7, 0.1, 0.05),
    "all": (0.01, 0.01, 0.05, 0.03, 0.9),
}


@pytest.mark.parametrize("chances", PAIRS.values(), ids=PAIRS)
def test_intervals_of_pairs_cover_what_they_should(chances: tuple[float, ...]) -> None:
    expected = float(np.dot(chances, PAIR_POINTS)) / 2
    for num_pairs in (20, 200):
        samples = np.random.default_rng(1).multinomial(num_pairs, chances, size=1000).tolist()
        covered = 0
        for counts in samples:
            score = float(np.dot(counts, PAIR_POINTS)) / (2 * num_pairs)
            low, high = wilson_interval(score, 2 * num_pairs / design_effect(counts))
            covered += low <= expected <= high
        assert covered / len(samples) >= 0.93
    assert covered / len(samples) <= 0.98  # with many pairs, and not because it were too wide


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


def test_a_record_can_be_played_again() -> None:
    factory = game_factory("connect_four")
    players = (RandomPlayer(7, 1), RandomPlayer(7, 2))
    result = play_match(factory, *players, num_games=6, opening_plies=3, seed=1, keep_records=True)
    board = factory(1)
    board.reset()
    for record in result.records:
        board.set_position(0, record.start)
        for action in record.actions:
            board.step(np.array([action]))
        assert (board.record(0), board.outcome(0)) == (record.record, record.outcome)
        assert len(record.actions) == record.plies


def test_progress_gets_after_each_ply_how_many_games_have_ended() -> None:
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
    with pytest.raises(ConfigError, match=f"num_games={num_games}: must be even, at least 2"):
        play_match(counting_game(), RandomPlayer(3), RandomPlayer(3), num_games=num_games)


@pytest.mark.parametrize("number", [2, 3, 7])
@pytest.mark.parametrize("deterministic", [False, True])
def test_partners_that_share_a_match_get_the_result_of_one_who_plays_it_alone(number: int, deterministic: bool) -> None:
    def match(partners: Any = None) -> MatchResult:
        players = [Scripted(rule, name) for rule, name in ((perfect, "perfect"), (by_one, "by_one"))]
        for player in players:
            player.deterministic = deterministic  # then a repeated opening is played once
        return play_match(
            counting_game(),
            players[0],
            players[1],
            num_games=12,
            opening_plies=1,
            seed=4,
            keep_records=True,
            partners=partners,
        )

    alone = match()
    assert on_ranks(number, match) == number * [alone]
    assert alone.num_games == 12
    assert (alone.played < 12) is deterministic
