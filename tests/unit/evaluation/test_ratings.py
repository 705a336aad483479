from __future__ import annotations

import itertools
import json
import math
from importlib.resources import files

import numpy as np
import pytest
from fakes import counting_game
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, xlogy

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import Ladder, MatchResult, RandomPlayer, Tally, load_ladder
from keisei_lightning.evaluation.ratings import (
    Rating,
    expected_score,
    play_round_robin,
    rate_against,
    rate_players,
)

ELO = 400.0 / math.log(10.0)
counts = st.builds(Tally, wins=st.integers(0, 60), draws=st.integers(0, 60), losses=st.integers(0, 60))
# A player's games against the four of LADDER.
own_games = st.lists(counts, min_size=4, max_size=4).filter(lambda tallies: any(tally.games for tally in tallies))
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


def alone(wins: int, draws: int, losses: int) -> Rating:
    """The rating of one who only met the anchor."""
    return rate_players([match("me", "random", wins, draws, losses)])["me"]


RUNGS = ("random", "a", "b", "c")
LADDER = Ladder(
    game="counting",
    matches=tuple(
        (one, other, Tally(wins=wins, losses=20 - wins))
        for (one, other), wins in zip(itertools.combinations(RUNGS, 2), (7, 2, 1, 5, 3, 9), strict=True)
    ),
)


def tallies_of(tallies: list[Tally]) -> dict[str, Tally]:
    return dict(zip(RUNGS, tallies, strict=True))


def in_closed_form(wins: float, losses: float) -> tuple[float, float, float]:
    """Two players: Gart and Zweifel's logit, and the ends of the binomial likelihood-ratio interval."""
    games = wins + losses
    value = ELO * math.log((wins + 0.5) / (losses + 0.5))
    likeliest = wins / games

    def excess(strength: float) -> float:
        score = expit(strength)
        gap = xlogy(wins, likeliest) + xlogy(losses, 1 - likeliest) - xlogy(wins, score) - xlogy(losses, 1 - score)
        return float(2.0 * gap) - 1.959963984540054**2

    middle = math.log(wins / losses)
    return value, ELO * brentq(excess, middle - 40, middle), ELO * brentq(excess, middle, middle + 40)


def assert_close(one: Rating, other: Rating, *, tolerance: float = 1e-2) -> None:
    assert one.mark == other.mark
    ends = [(rating.value, rating.low, rating.high) for rating in (one, other)]
    assert ends[0] == pytest.approx(ends[1], abs=tolerance)


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
        assert_close(alone(75, 0, 25), Rating(value=188.56, low=114.83, high=272.82))
        assert_close(alone(39, 0, 1), Rating(value=568.20, low=371.34, high=1135.98, mark="1 point lost"))

    @pytest.mark.parametrize(("games", "low"), [(40, 443.68), (400, 849.57)])
    def test_a_player_that_won_everything_has_no_upper_end(self, games: int, low: float) -> None:
        won, lost = alone(games, 0, 0), alone(0, 0, games)
        assert (won.high, won.mark) == (math.inf, "no loss")
        assert won.value == pytest.approx(ELO * math.log((games + 0.5) / 0.5), abs=1e-3)
        # Clopper and Pearson, one-sided: winning all has a probability of 5 % there.
        assert won.low == pytest.approx(low, abs=1e-2)
        assert expected_score(won.low) ** games == pytest.approx(0.05, abs=1e-5)
        assert_close(lost, Rating(value=-won.value, low=-math.inf, high=-won.low, mark="no win"))

    def test_one_drawn_game_is_an_end(self) -> None:
        rated = alone(39, 1, 0)
        assert rated.mark == "0.5 points lost"
        assert rated.low < rated.value < rated.high < math.inf

    @settings(deadline=None, max_examples=30)
    @given(tally=counts)
    def test_the_closed_form_is_met(self, tally: Tally) -> None:
        wins, losses = tally.wins + 0.5 * tally.draws, tally.losses + 0.5 * tally.draws
        assume(wins and losses)
        rated = alone(tally.wins, tally.draws, tally.losses)
        assert (rated.value, rated.low, rated.high) == pytest.approx(in_closed_form(wins, losses), abs=1e-2)
        assert rated.low < rated.value < rated.high

    def test_a_draw_is_half_a_win_and_half_a_loss(self) -> None:
        drawn, halved = alone(0, 10, 0), alone(5, 0, 5)
        assert_close(drawn, halved)
        assert drawn.value == pytest.approx(0.0, abs=1e-6)


def test_a_match_counts_as_its_effective_games() -> None:
    # Both games of every pair ended alike: 40 games tell what 20 independent ones would.
    pairs = MatchResult(
        game="counting",
        player="me",
        opponent="random",
        as_first=Tally(wins=15, losses=5),
        as_second=Tally(wins=15, losses=5),
        pairs=(5, 0, 0, 0, 15),
    )
    assert pairs.effective_games == pytest.approx(20.0)
    assert_close(rate_players([pairs])["me"], alone(15, 0, 5))
    assert_close(rate_players([pairs, match("me", "other", 0, 0, 0)])["me"], alone(15, 0, 5))


class TestAgainstALadder:
    @settings(deadline=None, max_examples=15)
    @given(tallies=own_games)
    def test_it_is_the_rating_of_a_player_in_the_same_tournament(self, tallies: list[Tally]) -> None:
        results = [match(one, other, t.wins, t.draws, t.losses) for one, other, t in LADDER.matches]
        own = [match("me", name, t.wins, t.draws, t.losses) for name, t in tallies_of(tallies).items()]
        rated = rate_against(LADDER, tallies_of(tallies))
        assert rated is not None
        assert_close(rated, rate_players([*results, *own])["me"])

    @settings(deadline=None, max_examples=15)
    @given(tallies=own_games)
    def test_wins_for_losses_and_a_ladder_upside_down_negate_the_rating(self, tallies: list[Tally]) -> None:
        def turned(tally: Tally) -> Tally:
            return Tally(wins=tally.losses, draws=tally.draws, losses=tally.wins)

        upside_down = Ladder(game="counting", matches=tuple((a, b, turned(tally)) for a, b, tally in LADDER.matches))
        there = rate_against(upside_down, tallies_of([turned(tally) for tally in tallies]))
        here = rate_against(LADDER, tallies_of(tallies))
        assert here is not None
        assert there is not None
        ends = (-there.value, -there.high, -there.low)
        assert (here.value, here.low, here.high) == pytest.approx(ends, abs=1e-2)

    @settings(deadline=None, max_examples=15)
    @given(tallies=own_games, which=st.integers(0, 3))
    def test_one_more_win_never_lowers_the_rating(self, tallies: list[Tally], which: int) -> None:
        tally = tallies[which]
        assume(tally.games)
        better = [*tallies]
        better[which] = Tally(wins=tally.wins + 1, draws=tally.draws, losses=tally.losses)
        before, after = (rate_against(LADDER, tallies_of(some)) for some in (tallies, better))
        assert before is not None
        assert after is not None
        assert after.value >= before.value - 1e-2
        assert after.low >= before.low - 1e-2

    def test_an_opponent_without_games_changes_nothing(self) -> None:
        tally = Tally(wins=3, losses=5)
        assert rate_against(LADDER, {"a": tally, "c": Tally()}) == rate_against(LADDER, {"a": tally})

    def test_the_uncertainty_of_the_ladder_is_part_of_the_rating(self) -> None:
        tallies = {"c": Tally(wins=2000, losses=2000)}
        rated = rate_against(LADDER, tallies)
        results = [match(one, other, t.wins, t.draws, t.losses) for one, other, t in LADDER.matches]
        rung = rate_players(results)["c"]
        assert rated is not None
        # As strong as a rung, and so no better known than that, however many games were played.
        assert rated.value == pytest.approx(rung.value, abs=10.0)
        assert rated.high - rated.low == pytest.approx(rung.high - rung.low, rel=0.02)

    def test_where_a_rung_lost_to_nobody_below_nothing_can_be_known_of_its_loser(self) -> None:
        ladder = Ladder(game="counting", matches=(("top", "random", Tally(wins=40)),))
        assert rate_against(ladder, {"top": Tally(losses=40)}) is None
        above = rate_against(ladder, {"top": Tally(wins=20, losses=20)})
        assert above is not None
        assert (above.mark, above.high) == ("no loss", math.inf)

    def test_what_cannot_be_rated_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^opponent d: is not on the ladder; must be one of a, b, c, random$"):
            rate_against(LADDER, {"d": Tally(wins=1)})
        with pytest.raises(ConfigError, match="must hold one game or more"):
            rate_against(LADDER, {"a": Tally()})


def played(rng: np.random.Generator, difference: float, games: int) -> Tally:
    """Games between two whose difference is known."""
    wins = int(rng.binomial(games, expected_score(difference)))
    return Tally(wins=wins, losses=games - wins)


class TestSimulated:
    """Games that are drawn with known differences, from fixed seeds."""

    @pytest.mark.slow
    def test_a_large_gap_is_rated_without_bias_and_covered(self) -> None:
        # 1370 points in three steps, 40 games a pair, 400 of the rated player. With the ladder's ratings taken to be
        # exact, and a normal interval, 33 % were covered.
        rng, true, rounds = np.random.default_rng(0), (0.0, 457.0, 913.0), 100
        values, covered = [], 0
        for _ in range(rounds):
            matches = tuple(
                (RUNGS[i], RUNGS[j], played(rng, true[i] - true[j], 40)) for i, j in itertools.combinations(range(3), 2)
            )
            tallies = {RUNGS[i]: played(rng, 1370.0 - true[i], 400) for i in range(3)}
            rated = rate_against(Ladder(game="counting", matches=matches), tallies)
            assert rated is not None
            values.append(rated.value)
            covered += rated.low <= 1370.0 <= rated.high
        assert covered / rounds >= 0.92
        assert abs(np.mean(values) - 1370.0) < 40.0  # its standard error is 13

    def test_a_gap_without_a_step_between_is_covered_and_marked(self) -> None:
        # What 40 games cannot show they do not claim: nearly all of these are won. 0 % were covered before.
        rng, rounds = np.random.default_rng(0), 100
        rated = []
        for _ in range(rounds):
            tally = played(rng, 1370.0, 40)
            rated.append(alone(tally.wins, tally.draws, tally.losses))
        assert sum(rating.low <= 1370.0 <= rating.high for rating in rated) >= 95
        assert sum(rating.mark == "no loss" for rating in rated) >= 95
        assert max(rating.low for rating in rated) < 500.0


class TestManyPlayers:
    names = ("random", "a", "b", "c")
    pairs = tuple(itertools.combinations(names, 2))

    def rate(self, results: list[tuple[int, int, int]], anchor: str = "random") -> dict[str, Rating]:
        return rate_players(
            [match(*pair, *result) for pair, result in zip(self.pairs, results, strict=True)], anchor=anchor
        )

    @settings(deadline=None, max_examples=10)
    @given(results=six_results)
    def test_another_anchor_shifts_all_ratings_alike(self, results: list[tuple[int, int, int]]) -> None:
        by_random, by_a = self.rate(results), self.rate(results, "a")
        assert by_a["a"] == Rating(value=0.0, low=0.0, high=0.0)
        for name in set(by_random) & set(by_a) if "a" in by_random else ():
            assert by_a[name].value == pytest.approx(by_random[name].value - by_random["a"].value, abs=1e-2)

    @settings(deadline=None, max_examples=10)
    @given(results=six_results)
    def test_the_order_of_the_names_in_a_match_does_not_matter(self, results: list[tuple[int, int, int]]) -> None:
        turned = rate_players(
            [
                match(other, one, losses, draws, wins)
                for (one, other), (wins, draws, losses) in zip(self.pairs, results, strict=True)
            ]
        )
        for name, rating in self.rate(results).items():
            assert_close(turned[name], rating, tolerance=1e-2)

    @settings(deadline=None, max_examples=10)
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

    def test_a_chain_of_all_wins_has_no_upper_ends(self) -> None:
        rated = self.rate([(0, 0, 400)] * 6)
        assert list(rated) == ["c", "b", "a", "random"]
        assert [rated[name].mark for name in "abc"] == ["no loss"] * 3
        assert 849 < rated["a"].low < rated["b"].low < rated["c"].low < rated["c"].high == math.inf
        # The results look the same from the other end.
        assert rated["c"].value - rated["b"].value == pytest.approx(rated["a"].value, abs=1e-2)
        assert self.rate([(0, 0, 400)] * 6, "c")["random"].mark == "no win"

    def test_a_group_that_never_lost_to_those_below_is_marked_whole(self) -> None:
        # b and c are equals, and so are random and a: how far the ones are above the others nobody can tell.
        level, lost = (20, 0, 20), (0, 0, 40)
        rated = self.rate([level, lost, lost, lost, lost, level])
        assert [rated[name].mark for name in "abc"] == ["", "no loss", "no loss"]
        assert (rated["b"].high, rated["c"].high) == (math.inf, math.inf)
        assert rated["b"].low == pytest.approx(rated["c"].low, abs=1e-2)
        assert rated["a"].value == pytest.approx(0.0, abs=1e-2)

    def test_a_rating_that_rests_on_a_single_game_is_marked(self) -> None:
        level, lost = (20, 0, 20), (0, 0, 40)
        rated = self.rate([level, lost, lost, lost, (1, 0, 39), level])
        assert [rated[name].mark for name in "abc"] == ["", "1 point lost", "1 point lost"]
        assert rated["c"].high < math.inf

    def test_a_player_without_a_path_of_games_to_the_anchor_has_no_rating(self) -> None:
        results = [("a", "random", 3, 0, 1), ("b", "a", 1, 0, 1), ("c", "d", 2, 0, 2), ("e", "a", 0, 0, 0)]
        rated = rate_players([match(*result) for result in results])
        assert set(rated) == {"random", "a", "b"}
        assert rated["b"].high - rated["b"].low > rated["a"].high - rated["a"].low

    def test_an_anchor_that_has_not_played_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="anchor=random: has not played; must be one of a, b"):
            rate_players([match("a", "b", 1, 0, 1)])


class TestRoundRobin:
    def test_each_pair_plays_and_each_player_is_rated(self) -> None:
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

    def test_players_must_have_different_names(self) -> None:
        twins = [RandomPlayer(3, seed) for seed in range(2)]
        with pytest.raises(ConfigError, match=r"must have a name each \(random is there more than once\)"):
            next(play_round_robin(counting_game(), twins, num_games=2))
        with pytest.raises(ConfigError, match="must be two or more"):
            next(play_round_robin(counting_game(), twins[:1], num_games=2))


class TestShown:
    def test_a_rating_is_one_line(self) -> None:
        assert str(Rating(value=189.18, low=-3.4, high=267.2)) == "+189 Elo (95 % interval -3 to +267)"
        above, below = alone(400, 0, 0), alone(0, 0, 40)
        assert str(above) == "+1161 Elo (95 % interval above +850; no loss)"
        assert str(below) == "-763 Elo (95 % interval below -444; no win)"

    def test_in_json_an_end_that_is_not_there_is_null(self) -> None:
        assert Rating(value=1.5, low=-3.0, high=2.0).as_json() == {"value": 1.5, "low": -3.0, "high": 2.0}
        rated = alone(400, 0, 0)
        assert rated.as_json() == {"value": rated.value, "low": rated.low, "high": None, "mark": "no loss"}


def test_the_ladder_of_shogi_has_no_gap() -> None:
    ladder = load_ladder("shogi")
    results = [match(one, other, t.wins, t.draws, t.losses) for one, other, t in ladder.matches]
    rated = rate_players(results)
    order = list(rated)
    assert sorted(order) == ladder.names
    assert all(math.isfinite(rating.low) and math.isfinite(rating.high) for rating in rated.values())
    scores = {(one, other): tally.score for one, other, tally in ladder.matches}
    scores |= {(other, one): 1.0 - score for (one, other), score in scores.items()}
    # Across every line through the ladder some player below scores against one above: from mate_in_one on by 10 % and
    # more, and random play, which is the lowest, by 7.5 %.
    for line in range(1, len(order)):
        best = max(scores[below, above] for above in order[:line] for below in order[line:])
        assert best >= (0.1 if order[line] != "random" else 0.07), order[line]
    assert order.index("mate_in_one") > order.index("fairy_stockfish(skill=-4,nodes=500)")
    # A rung that closes the gap that was there, between 832 and 1561 points.
    assert sum(900 < rating.value < 1450 for rating in rated.values()) >= 3


def test_the_ratings_in_the_ladders_file_are_those_of_its_games() -> None:
    file = files("keisei_lightning.evaluation") / "ladders" / "shogi.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    results = [
        MatchResult(
            game="shogi",
            player=row["player"],
            opponent=row["opponent"],
            as_first=Tally(**{key: row[f"{key}_as_first"] for key in ("wins", "draws", "losses")}),
            as_second=Tally(**{key: row[f"{key}_as_second"] for key in ("wins", "draws", "losses")}),
            pairs=tuple(row[f"pairs_with_{points:g}"] for points in (0, 0.5, 1, 1.5, 2)),
        )
        for row in whole["matches"]
    ]
    written, rated = whole["ratings"], rate_players(results)
    assert list(written) == list(rated)
    ladder = load_ladder("shogi")
    assert [tally.design_effect for _, _, tally in ladder.matches] == pytest.approx(
        [result.total.design_effect for result in results]
    )
    for name, rating in rated.items():
        entry = rating.as_json()
        assert written[name].get("mark") == entry.get("mark")
        for key in ("value", "low", "high"):
            assert written[name][key] == pytest.approx(entry[key], abs=0.1)
