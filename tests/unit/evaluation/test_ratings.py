from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from fakes import counting_game
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import MatchResult, RandomPlayer, Tally
from keisei_lightning.evaluation.ratings import (
    Rating,
    expected_score,
    play_round_robin,
    rate_against,
    rate_players,
)

counts = st.builds(Tally, wins=st.integers(0, 60), draws=st.integers(0, 60), losses=st.integers(0, 60))
rungs_met = st.lists(st.tuples(st.floats(-2000.0, 3000.0), counts), min_size=1, max_size=6).filter(
    lambda rungs: any(tally.games for _, tally in rungs)
)
six_results = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 10), st.integers(0, 40)).filter(any), min_size=6, max_size=6
)


def match(player: str, opponent: str, wins: int, draws: int, losses: int) -> MatchResult:
    # How the games are shared between the seats plays no part.
    return MatchResult(
        game="counting",
        player=player,
        opponent=opponent,
        as_first=Tally(wins=wins, draws=draws),
        as_second=Tally(losses=losses),
    )


def ladder_of(rungs: list[tuple[float, Tally]]) -> tuple[dict[str, float], dict[str, Tally]]:
    return (
        {str(number): rating for number, (rating, _) in enumerate(rungs)},
        {str(number): tally for number, (_, tally) in enumerate(rungs)},
    )


def in_closed_form(tally: Tally) -> Rating:
    """Two players: Gart and Zweifel's logit and its standard error."""
    won = tally.wins + 0.5 * tally.draws + 0.5
    lost = tally.losses + 0.5 * tally.draws + 0.5
    value = 400.0 * math.log10(won / lost)
    spread = 1.959963984540054 * 400.0 / math.log(10.0) * math.sqrt(1.0 / won + 1.0 / lost)
    return Rating(value=value, low=value - spread, high=value + spread)


def assert_close(one: Rating, other: Rating, *, tolerance: float = 1e-3) -> None:
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=tolerance)


class TestExpectedScore:
    def test_it_is_elos(self) -> None:
        assert expected_score(0.0) == 0.5
        assert expected_score(200.0) == pytest.approx(0.759747)
        assert expected_score(400.0) == pytest.approx(10 / 11)
        assert expected_score(1e6) == 1.0

    @given(difference=st.floats(-5000, 5000))
    def test_both_scores_make_one_point(self, difference: float) -> None:
        assert expected_score(difference) + expected_score(-difference) == pytest.approx(1.0)


class TestTwoPlayers:
    def test_these_results_have_these_ratings(self) -> None:
        rated = rate_players([match("me", "random", 75, 0, 25)])
        assert_close(rated["me"], Rating(value=188.56, low=110.58, high=266.55), tolerance=0.01)
        assert rated["random"] == Rating(value=0.0, low=0.0, high=0.0)
        # All games won: finite, and sure to be far above.
        assert_close(
            rate_players([match("me", "random", 400, 0, 0)])["me"],
            Rating(value=1161.45, low=679.64, high=1643.27),
            tolerance=0.01,
        )

    @settings(deadline=None, max_examples=60)
    @given(tally=counts)
    def test_the_closed_form_is_met(self, tally: Tally) -> None:
        assume(tally.games)
        expected = in_closed_form(tally)
        rated = rate_players([match("me", "random", tally.wins, tally.draws, tally.losses)])
        assert_close(rated["me"], expected)
        assert_close(rate_against({"random": 0.0}, {"random": tally}), expected)

    def test_a_draw_is_half_a_win_and_half_a_loss(self) -> None:
        drawn, halved = (rate_players([match("me", "random", *result)])["me"] for result in ((0, 10, 0), (5, 0, 5)))
        assert_close(drawn, halved)
        assert drawn.value == pytest.approx(0.0, abs=1e-6)


class TestAgainstALadder:
    @given(rungs=rungs_met, shift=st.floats(-3000, 3000))
    def test_shifting_the_ladder_shifts_the_rating(self, rungs: list[tuple[float, Tally]], shift: float) -> None:
        ladder, tallies = ladder_of(rungs)
        there = rate_against({name: rating + shift for name, rating in ladder.items()}, tallies)
        here = rate_against(ladder, tallies)
        assert_close(there, Rating(value=here.value + shift, low=here.low + shift, high=here.high + shift))

    @given(rungs=rungs_met)
    def test_wins_for_losses_and_a_ladder_upside_down_negate_the_rating(self, rungs: list[tuple[float, Tally]]) -> None:
        ladder, tallies = ladder_of(rungs)
        turned = rate_against(
            {name: -rating for name, rating in ladder.items()},
            {name: Tally(wins=t.losses, draws=t.draws, losses=t.wins) for name, t in tallies.items()},
        )
        rated = rate_against(ladder, tallies)
        assert_close(turned, Rating(value=-rated.value, low=-rated.high, high=-rated.low))

    @given(rungs=rungs_met, which=st.integers(0, 5))
    def test_one_more_win_never_lowers_the_rating(self, rungs: list[tuple[float, Tally]], which: int) -> None:
        ladder, tallies = ladder_of(rungs)
        name = str(which % len(rungs))
        tally = tallies[name]
        assume(tally.games)
        better = Tally(wins=tally.wins + 1, draws=tally.draws, losses=tally.losses)
        before = rate_against(ladder, tallies).value
        assert rate_against(ladder, {**tallies, name: better}).value >= before - 1e-6

    @given(rungs=rungs_met)
    def test_the_rating_explains_the_points_and_lies_in_its_interval(self, rungs: list[tuple[float, Tally]]) -> None:
        ladder, tallies = ladder_of(rungs)
        rated = rate_against(ladder, tallies)
        assert rated.low < rated.value < rated.high
        met = {name: tally for name, tally in tallies.items() if tally.games}
        points = sum(tally.wins + 0.5 * tally.draws for tally in met.values()) + 0.5
        explained = sum(
            (tally.games + 1 / len(met)) * expected_score(rated.value - ladder[name]) for name, tally in met.items()
        )
        assert explained == pytest.approx(points, abs=1e-6)

    def test_an_opponent_without_games_changes_nothing(self) -> None:
        tally = Tally(wins=3, losses=5)
        alone = rate_against({"a": 100.0}, {"a": tally})
        assert rate_against({"a": 100.0, "b": 900.0}, {"a": tally, "b": Tally()}) == alone

    def test_simulated_games_give_the_rating_they_were_played_with(self) -> None:
        rng = np.random.default_rng(1)
        ladder, strength, games = {"a": 0.0, "b": 400.0, "c": 800.0}, 500.0, 400
        inside = 0
        for _ in range(200):
            tallies = {}
            for name, rating in ladder.items():
                wins = int(rng.binomial(games, expected_score(strength - rating)))
                tallies[name] = Tally(wins=wins, losses=games - wins)
            rated = rate_against(ladder, tallies)
            inside += rated.low <= strength <= rated.high
        assert 0.90 <= inside / 200 <= 0.99

    def test_what_cannot_be_rated_is_told(self) -> None:
        with pytest.raises(ConfigError, match=r"^opponent b: has no rating; must be one of a$"):
            rate_against({"a": 0.0}, {"b": Tally(wins=1)})
        with pytest.raises(ConfigError, match="must hold one game or more"):
            rate_against({"a": 0.0}, {"a": Tally()})
        with pytest.raises(ConfigError, match="opponent a: its rating is nan; must be a finite number"):
            rate_against({"a": math.nan}, {"a": Tally(wins=1)})


class TestManyPlayers:
    names = ("random", "a", "b", "c")
    pairs = tuple(itertools.combinations(names, 2))

    def rate(self, results: list[tuple[int, int, int]], anchor: str = "random") -> dict[str, Rating]:
        return rate_players(
            [match(*pair, *result) for pair, result in zip(self.pairs, results, strict=True)], anchor=anchor
        )

    @settings(deadline=None, max_examples=60)
    @given(results=six_results)
    def test_another_anchor_shifts_all_ratings_alike(self, results: list[tuple[int, int, int]]) -> None:
        by_random, by_a = self.rate(results), self.rate(results, "a")
        assert by_a["a"] == Rating(value=0.0, low=0.0, high=0.0)
        for name in self.names:
            assert by_a[name].value == pytest.approx(by_random[name].value - by_random["a"].value, abs=1e-2)

    @settings(deadline=None, max_examples=60)
    @given(results=six_results)
    def test_who_is_named_first_in_a_match_plays_no_part(self, results: list[tuple[int, int, int]]) -> None:
        turned = rate_players(
            [
                match(other, one, losses, draws, wins)
                for (one, other), (wins, draws, losses) in zip(self.pairs, results, strict=True)
            ]
        )
        for name, rating in self.rate(results).items():
            assert_close(turned[name], rating, tolerance=1e-2)

    @settings(deadline=None, max_examples=60)
    @given(results=six_results, turned=st.integers(0, 5))
    def test_a_loss_turned_into_a_win_never_lowers_a_rating(
        self, results: list[tuple[int, int, int]], turned: int
    ) -> None:
        wins, draws, losses = results[turned]
        assume(losses)
        better = [*results]
        better[turned] = (wins + 1, draws, losses - 1)
        winner, loser = self.pairs[turned]
        before, after = self.rate(results), self.rate(better)
        assert after[winner].value >= before[winner].value - 1e-2
        assert after[loser].value <= before[loser].value + 1e-2

    @settings(deadline=None, max_examples=60)
    @given(results=six_results)
    def test_the_ratings_explain_every_players_points(self, results: list[tuple[int, int, int]]) -> None:
        rated = self.rate(results)
        assert list(rated) == sorted(rated, key=lambda name: -rated[name].value)
        for name in self.names:
            points = explained = 0.0
            for pair, (wins, draws, losses) in zip(self.pairs, results, strict=True):
                if name not in pair:
                    continue
                won, other = (wins, pair[1]) if name == pair[0] else (losses, pair[0])
                points += won + 0.5 * draws + 1 / 6  # of one drawn game, shared out among three opponents
                difference = rated[name].value - rated[other].value
                explained += (wins + draws + losses + 1 / 3) * expected_score(difference)
            assert explained == pytest.approx(points, abs=1e-3)

    def test_a_chain_of_all_wins_stays_finite(self) -> None:
        rated = self.rate([(0, 0, 400)] * 6)
        assert list(rated) == ["c", "b", "a", "random"]
        assert 700 < rated["a"].value < rated["b"].value - 300
        assert rated["b"].value < rated["c"].value - 300
        # The results look the same from the other end.
        assert rated["c"].value - rated["b"].value == pytest.approx(rated["a"].value, abs=1e-2)
        assert rated["c"].high < 4500

    def test_who_never_met_the_anchors_circle_has_no_rating(self) -> None:
        results = [("a", "random", 3, 0, 1), ("b", "a", 1, 0, 1), ("c", "d", 2, 0, 2), ("e", "a", 0, 0, 0)]
        rated = rate_players([match(*result) for result in results])
        assert set(rated) == {"random", "a", "b"}
        assert rated["b"].high - rated["b"].low > rated["a"].high - rated["a"].low

    def test_an_anchor_that_has_not_played_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="anchor=random: has not played; must be one of a, b"):
            rate_players([match("a", "b", 1, 0, 1)])


class TestRoundRobin:
    def test_everybody_plays_everybody_and_is_rated(self) -> None:
        players = [RandomPlayer(3, seed, name=name) for seed, name in enumerate(("random", "other", "third"))]
        results = list(play_round_robin(counting_game(), players, num_games=100, seed=5))
        assert [(result.player, result.opponent) for result in results] == [
            ("random", "other"),
            ("random", "third"),
            ("other", "third"),
        ]
        assert all(result.num_games == 100 for result in results)
        for rating in rate_players(results).values():
            assert rating.low <= 0.0 <= rating.high  # they are equally strong

    def test_matches_come_one_by_one(self) -> None:
        players = [RandomPlayer(3, 0, name=name) for name in "abc"]
        finished: list[int] = []
        matches = play_round_robin(counting_game(), players, num_games=2, keep_records=True, progress=finished.append)
        assert finished == []
        assert len(next(matches).records) == 2
        assert finished[-1] == 2

    def test_players_must_be_told_apart(self) -> None:
        twins = [RandomPlayer(3, seed) for seed in range(2)]
        with pytest.raises(ConfigError, match=r"must have a name each \(random is there more than once\)"):
            next(play_round_robin(counting_game(), twins, num_games=2))
        with pytest.raises(ConfigError, match="must be two or more"):
            next(play_round_robin(counting_game(), twins[:1], num_games=2))


def test_a_rating_is_shown_in_one_line() -> None:
    assert str(Rating(value=189.18, low=-3.4, high=267.2)) == "+189 Elo (95 % interval -3 to +267)"
