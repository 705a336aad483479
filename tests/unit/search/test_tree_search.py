"""Trees that grow over real games: exact play, the mover's view, memory between moves, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyspiel
import pytest
from fakes import counting_game
from numpy.typing import NDArray
from searches import roots_of, uneven, uniform

from keisei_lightning.games import Game, GameFactory, game_factory
from keisei_lightning.search import Found, SearchOptions, TreeSearch


def boards_at(factory: GameFactory, positions: list[str]) -> Game:
    game = factory(len(positions))
    game.reset()
    for index, position in enumerate(positions):
        game.set_position(index, position)
    return game


def state_of(name: str, history: tuple[int, ...]) -> Any:
    state = pyspiel.load_game(name).new_initial_state()
    for action in history:
        state.apply_action(action)
    return state


_KNOWN: dict[str, int] = {}


def minimax(state: Any) -> int:
    """The exact value of a position, in the view of the player to move."""
    key = f"{state.get_game()} {state.current_player()} {state}"
    if key not in _KNOWN:
        mover, values = state.current_player(), []
        for action in state.legal_actions():
            child = state.child(action)
            if child.is_terminal():
                values.append(int(child.returns()[mover]))
            else:
                values.append(minimax(child) if child.current_player() == mover else -minimax(child))
        _KNOWN[key] = max(values)
    return _KNOWN[key]


def all_positions(name: str) -> Iterator[tuple[int, ...]]:
    """One history of each position that is not over."""
    seen, level = set[str](), [()]
    while level:
        following: list[tuple[int, ...]] = []
        for history in level:
            state = state_of(name, history)
            if state.is_terminal() or str(state) in seen:
                continue
            seen.add(str(state))
            yield history
            following += [(*history, action) for action in state.legal_actions()]
        level = following


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gumbel", "puct"])
@pytest.mark.parametrize("name", ["tic_tac_toe", "hex(board_size=3)"])
def test_small_games_are_played_perfectly_from_every_position(name: str, method: str) -> None:
    """With enough tries every position is proven, and no move that is played throws its value away."""
    histories = list(all_positions(name))[:: 1 if name == "tic_tac_toe" else 5]
    game = boards_at(game_factory(name), [" ".join(map(str, history)) or "-" for history in histories])
    options = SearchOptions(simulations=20_000, method=method)  # type: ignore[arg-type]
    found = TreeSearch(uniform, game_factory(name), options).run(roots_of(game))
    exact = [minimax(state_of(name, history)) for history in histories]
    assert [each.result for each in found] == exact
    assert [each.value for each in found] == exact
    for row, (history, each) in enumerate(zip(histories, found, strict=True)):
        state = state_of(name, history)
        mover = state.current_player()
        state.apply_action(state.string_to_action(game.action_name(row, each.action)))
        value = int(state.returns()[mover]) if state.is_terminal() else -minimax(state)
        assert value == exact[row]


@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_a_player_who_moves_again_is_no_opponent(method: str) -> None:
    """In dots and boxes a closed box gives another turn: the search knows whose turn it is."""
    name = "dots_and_boxes(num_rows=1,num_cols=2)"
    histories = list(all_positions(name))
    game = boards_at(game_factory(name), [" ".join(map(str, history)) or "-" for history in histories])
    options = SearchOptions(simulations=20_000, method=method)  # type: ignore[arg-type]
    found = TreeSearch(uniform, game_factory(name), options).run(roots_of(game))
    assert [each.result for each in found] == [minimax(state_of(name, history)) for history in histories]
    assert len(found) > 100


@pytest.mark.parametrize("method", ["gumbel", "puct"])
@pytest.mark.parametrize("name", ["connect_four", "othello"])
def test_positions_that_are_searched_together_find_what_each_finds_alone(name: str, method: str) -> None:
    options = SearchOptions(simulations=40, method=method, leaves=1)  # type: ignore[arg-type]
    game = game_factory(name, opening_plies=12)(6)
    game.seed(5)
    game.reset()
    together = TreeSearch(uneven, game_factory(name), options).run(roots_of(game))
    for row in range(6):
        (alone,) = TreeSearch(uneven, game_factory(name), options).run(roots_of(game, [row]))
        assert alone.action == together[row].action
        assert alone.variation == together[row].variation
        assert alone.visits.tolist() == together[row].visits.tolist()
        assert alone.values == pytest.approx(together[row].values, abs=1e-12)
        assert alone.policy == pytest.approx(together[row].policy, abs=1e-12)


def test_leaves_of_one_tree_that_are_looked_at_at_once_are_different_ones() -> None:
    asked: list[int] = []

    def counting(observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        asked.append(len({row.tobytes() for row in observation}))
        return uneven(observation, legal)

    game = game_factory("othello")(1)
    game.reset()
    search = TreeSearch(counting, game_factory("othello"), SearchOptions(simulations=64, leaves=16))
    (found,) = search.run(roots_of(game))
    assert found.visits.sum() == 64
    assert max(asked) > 8
    assert len(asked) < 20


def play(game: Game, found: list[Found]) -> None:
    game.step(np.array([each.action for each in found]))


def test_what_is_known_of_a_position_stays_when_its_game_goes_on() -> None:
    game = game_factory("connect_four")(2)
    game.reset()
    options = SearchOptions(simulations=200, method="puct")
    search = TreeSearch(uneven, game_factory("connect_four"), options)
    first = search.run(roots_of(game))
    play(game, first)
    reply = [each.variation[1] for each in first]
    game.step(np.array([reply[0], (reply[1] + 1) % 7]))
    second = search.run(roots_of(game))
    fresh = TreeSearch(uneven, game_factory("connect_four"), options).run(roots_of(game))
    assert [each.visits.sum() for each in fresh] == [200, 200]
    assert second[0].visits.sum() > 200
    assert second[1].visits.sum() >= 200  # the other player did what was not expected
    game.reset()
    assert [each.visits.tolist() for each in search.run(roots_of(game))] == [each.visits.tolist() for each in first]


def test_a_board_that_does_not_wait_now_keeps_its_tree() -> None:
    game = game_factory("connect_four")(2)
    game.reset()
    search = TreeSearch(uneven, game_factory("connect_four"), SearchOptions(simulations=200, method="puct"))
    first = search.run(roots_of(game))
    search.run(roots_of(game, [0]))
    game.step(np.array([each.action for each in first]))
    game.step(np.array([each.variation[1] for each in first]))
    assert search.run(roots_of(game))[1].visits.sum() > 200


def test_a_tree_holds_no_more_positions_than_it_may() -> None:
    game = game_factory("connect_four")(1)
    game.reset()
    options = SearchOptions(simulations=150, max_nodes=100, method="puct")
    search = TreeSearch(uneven, game_factory("connect_four"), options)
    for _ in range(6):
        found = search.run(roots_of(game))
        assert found[0].visits.sum() <= 100
        play(game, found)


def test_a_search_ends_when_its_time_is_over() -> None:
    times = iter(range(1000))
    game = game_factory("connect_four")(1)
    game.reset()
    options = SearchOptions(simulations=500, seconds=9.5, leaves=1)
    search = TreeSearch(uneven, game_factory("connect_four"), options, clock=lambda: float(next(times)))
    (found,) = search.run(roots_of(game))
    assert found.visits.sum() == 9  # a second each


@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_without_a_try_the_likeliest_move_is_played(method: str) -> None:
    game = game_factory("connect_four", opening_plies=10)(8)
    game.reset()
    options = SearchOptions(simulations=0, method=method)  # type: ignore[arg-type]
    roots = roots_of(game)
    found = TreeSearch(uneven, game_factory("connect_four"), options).run(roots)
    log_priors, values = uneven(roots.observation, roots.legal)
    for each, value in zip(found, values, strict=True):
        priors, log_priors = log_priors[: len(each.actions)], log_priors[len(each.actions) :]
        assert each.action == each.actions[priors.argmax()]
        assert each.policy == pytest.approx(np.exp(priors))
        assert each.value == pytest.approx(value)


def test_a_game_without_copies_is_searched_by_its_positions() -> None:
    """From 9 of 10 whoever adds 1 wins; from 6 every move loses to the right answer (10 - 4)."""
    game = counting_game()(1)
    game.reset()
    game.step(np.array([2]))  # 3 of 10: to 6 is the winning move
    (found,) = TreeSearch(uniform, counting_game(), SearchOptions(simulations=300)).run(roots_of(game))
    assert found.action == 2
    assert found.result == 1


def test_noise_at_the_root_is_repeatable_and_changes_what_is_played() -> None:
    def actions(seed: int) -> list[int]:
        game = game_factory("connect_four")(16)
        game.reset()
        search = TreeSearch(
            uniform, game_factory("connect_four"), SearchOptions(simulations=8), noise=np.random.default_rng(seed)
        )
        return [each.action for each in search.run(roots_of(game))]

    assert actions(1) == actions(1)
    assert len(set(actions(1))) > 1
    assert actions(1) != actions(2)
