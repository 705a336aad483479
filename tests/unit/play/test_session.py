"""The course of a game: moves by name, taken back, saved, continued; and what a policy thinks of it."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import uniform

from keisei_lightning.errors import GameError
from keisei_lightning.games import game_factory
from keisei_lightning.play import Analyst, GameSession, choose_move
from keisei_lightning.search import SearchOptions

TIC_TAC_TOE = game_factory("tic_tac_toe")
SHOGI = game_factory("shogi")


def played_out(session: GameSession, seed: int, plies: int | None = None) -> GameSession:
    random = np.random.default_rng(seed)
    for ply in count():
        if session.is_over or ply == plies:
            return session
        session.play(int(random.choice(list(session.legal_moves().values()))))
    raise AssertionError


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "hex", "othello", "breakthrough", "shogi"])
def test_moves_that_are_taken_back_leave_the_board_as_it_was(name: str) -> None:
    session = GameSession(game_factory(name))
    seen = []
    for _ in range(5):
        seen.append((session.game.position(0), session.mover, session.observation.copy(), session.legal.copy()))
        session.play(list(session.legal_moves().values())[-1])
    for expected in reversed(seen):
        session.undo()
        assert (session.game.position(0), session.mover) == expected[:2]
        np.testing.assert_array_equal(session.observation, expected[2])
        np.testing.assert_array_equal(session.legal, expected[3])
    assert session.moves == []


@pytest.mark.parametrize("name", ["connect_four", "hex", "shogi"])
def test_a_saved_game_continues_where_it_was(name: str) -> None:
    factory = game_factory(name)
    for plies in (0, 7, None):
        session = played_out(GameSession(factory), 3, plies)
        again = GameSession.from_json(factory, session.to_json(black="a"))
        assert again.moves == session.moves
        assert (again.game.position(0), again.result, again.outcome) == (
            session.game.position(0),
            session.result,
            session.outcome,
        )


def test_a_game_may_begin_in_any_position() -> None:
    start = "4k4/9/9/9/9/9/9/9/4K4 b G 1"
    session = GameSession(SHOGI, start=start)
    session.play_name("G*5b")
    assert GameSession.from_json(SHOGI, session.to_json()).game.position(0) == session.game.position(0)
    session.undo()
    assert session.game.position(0).split()[:3] == start.split()[:3]


def test_a_result_is_that_of_the_first_player_whoever_moves_last() -> None:
    first, second = GameSession(TIC_TAC_TOE), GameSession(TIC_TAC_TOE)
    for action in (0, 3, 1, 4, 2):
        first.play(action)
    for action in (0, 3, 1, 4, 8, 5):
        second.play(action)
    assert (first.result, second.result) == (1.0, 0.0)
    assert first.is_over
    assert first.legal_moves() == {}


def test_who_is_to_move_gives_up() -> None:
    session = GameSession(TIC_TAC_TOE)
    session.play(4)
    session.resign()
    assert (session.result, session.outcome, session.is_over) == (1.0, "resignation", True)
    again = GameSession.from_json(TIC_TAC_TOE, session.to_json())
    assert (again.result, again.outcome) == (1.0, "resignation")
    session.undo(0)
    assert not session.is_over


def test_what_cannot_be_played_is_said_and_changes_nothing() -> None:
    session = GameSession(TIC_TAC_TOE)
    session.play(4)
    for action in (4, -1, 9, 1000):
        with pytest.raises(GameError, match="is not legal here"):
            session.play(action)
    with pytest.raises(GameError, match="nonsense: is not a legal move here; must be one of"):
        session.play_name("nonsense")
    with pytest.raises(GameError, match="undo 2: must be 0 to 1"):
        session.undo(2)
    assert len(session.moves) == 1
    session.resign()
    for wrong in (session.resign, lambda: session.play(0), lambda: session.play_name("x")):
        with pytest.raises(GameError, match="the game is over \\(resignation\\)"):
            wrong()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version=2; must be 1"),
        ({"game": "chess"}, "game='chess'; must be tic_tac_toe"),
        ({"moves": "x"}, "moves='x'; must be list"),
        ({"moves": [1]}, "moves must be names"),
        ({"moves": ["nonsense"]}, "move 1: nonsense: is not a legal move"),
        ({"resigned": 3}, "resigned=3; must be bool"),
        ({"start": 3}, "start=3; must be str or null"),
        ({"start": "nonsense"}, "nonsense"),
    ],
)
def test_a_saved_game_that_is_wrong_is_refused_by_its_fault(change: dict[str, object], message: str) -> None:
    saved = json.loads(GameSession(TIC_TAC_TOE).to_json())
    with pytest.raises(GameError, match=message.replace("(", "\\(")):
        GameSession.from_json(TIC_TAC_TOE, json.dumps(saved | change))


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_text_is_a_game_or_an_error_of_one_line(text: str) -> None:
    with pytest.raises(GameError) as caught:
        GameSession.from_json(TIC_TAC_TOE, text)
    assert "\n" not in str(caught.value)


def test_an_analysis_ranks_all_legal_moves_and_names_the_line_it_expects() -> None:
    session = GameSession(TIC_TAC_TOE)
    for action in (0, 3, 1, 4):
        session.play(action)
    analysis = Analyst(uniform, TIC_TAC_TOE, SearchOptions(simulations=50)).analyse(session)
    assert {move.action for move in analysis.moves} == set(session.legal_moves().values())
    assert analysis.action == analysis.moves[0].action == 2  # three in a row
    assert (analysis.result, analysis.value, analysis.expected_score) == (1, 1.0, 1.0)
    assert analysis.variation == (analysis.moves[0].name,)
    assert sum(move.prior for move in analysis.moves) == pytest.approx(1)
    assert len(session.moves) == 4


def test_without_a_search_an_analysis_is_the_policy() -> None:
    session = GameSession(TIC_TAC_TOE)
    analysis = Analyst(uniform, TIC_TAC_TOE, SearchOptions(simulations=0)).analyse(session)
    assert [move.visits for move in analysis.moves] == [0] * 9
    assert [move.prior for move in analysis.moves] == pytest.approx([1 / 9] * 9)
    assert analysis.variation == (analysis.moves[0].name,)


def test_a_search_that_is_watched_shows_more_and_more_and_stops_when_told() -> None:
    session, seen = GameSession(SHOGI), list[int]()
    analyst = Analyst(uniform, SHOGI, SearchOptions(simulations=1000, leaves=4, mate_nodes=0))

    def watch(analysis: object) -> bool:
        seen.append(analysis.visits)  # type: ignore[attr-defined]
        return len(seen) < 5

    analysis = analyst.analyse(session, watch=watch, watch_every_s=0)
    assert seen == [4, 8, 12, 16, 20]
    assert analysis.visits == 20
    assert analyst.analyse(session, simulations=8).visits == 8


def test_nothing_is_analysed_behind_the_end() -> None:
    session = GameSession(TIC_TAC_TOE)
    session.resign()
    with pytest.raises(GameError, match="the game is over"):
        Analyst(uniform, TIC_TAC_TOE).analyse(session)


def test_a_sample_of_a_policy_is_as_frequent_as_it_is_likely() -> None:
    session, random = GameSession(TIC_TAC_TOE), np.random.default_rng(1)
    analysis = Analyst(uniform, TIC_TAC_TOE, SearchOptions(simulations=0)).analyse(session)
    counts = np.bincount([choose_move(analysis, temperature=1.0, random=random).action for _ in range(9000)])
    assert np.abs(counts - 1000).max() < 150  # five standard deviations
    assert {choose_move(analysis, temperature=0.0, random=random).action for _ in range(5)} == {analysis.action}
