"""Labelled positions: the files that we ship, and how players are asked about them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pyspiel
import pytest
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.evaluation.positions import ILLEGAL, LabelledPositions, Share, load_positions, share_optimal
from keisei_lightning.evaluation.search import AlphaBetaPlayer, best_moves, make_tactics
from keisei_lightning.evaluation.solvers import uniform_policy
from keisei_lightning.games import game_factory

DATA = Path(__file__).parents[2] / "data" / "connect_four"
SETS = {
    "random": "e010e2b4ab81cca2fc1971fc17c8154c137fc82fa2444675841e2ac1927d1d7f",
    "tactical": "86acb179ca83c1aba1ef5b5c0d35291591e3b088f2c78570c7c6c06136331be0",
}
"""SHA-256 of each file: scores on other positions, or by other labels, could not be compared."""

CONNECT_FOUR = game_factory("connect_four")
TIC_TAC_TOE = game_factory("tic_tac_toe")
HEADER = "position,quiet," + ",".join(f"value_{action}" for action in range(9))
ROWS = [
    "0 4 1 5,0,,,1,1,,,-1,-1,-1",
    "0,1,,-1,-1,-1,0,-1,-1,-1,-1",
    "0 4 8 2,0,,-1,,-1,,-1,1,-1,",
    "4,1,0,-1,0,-1,,-1,0,-1,0",
]


@pytest.fixture(scope="module", params=sorted(SETS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def connect_four(name: str) -> LabelledPositions:
    return load_positions(DATA / f"{name}.csv", CONNECT_FOUR)


@pytest.fixture
def four_positions(tmp_path: Path) -> LabelledPositions:
    return load_positions(written(tmp_path, *ROWS), TIC_TAC_TOE)


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "set.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


class Always:
    """Plays given actions, whatever the positions."""

    name = "always"

    def __init__(self, *actions: int) -> None:
        self._actions = actions

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        assert turn.indices.tolist() == list(range(len(self._actions)))
        assert turn.observation.shape == (len(self._actions), *turn.game.spec.observation_shape)
        return np.array(self._actions)


def test_a_set_is_read_with_its_boards_results_and_marks(four_positions: LabelledPositions) -> None:
    assert len(four_positions) == 4
    assert [four_positions.turn.game.position(index) for index in range(4)] == ["0 4 1 5", "0", "0 4 8 2", "4"]
    assert four_positions.quiet.tolist() == [False, True, False, True]
    no = ILLEGAL
    assert four_positions.values[0].tolist() == [no, no, 1, 1, no, no, -1, -1, -1]
    assert [np.flatnonzero(row).tolist() for row in four_positions.optimal] == [[2, 3], [4], [6], [0, 2, 6, 8]]
    legal = np.unpackbits(four_positions.turn.legal, axis=1, count=9)
    assert np.array_equal(legal == 1, four_positions.values != no)


def test_a_move_is_optimal_if_none_has_a_better_result(four_positions: LabelledPositions) -> None:
    share = share_optimal(Always(3, 8, 6, 8), four_positions)
    assert (share.all, share.quiet) == (Share(count=3.0, total=4), Share(count=1.0, total=2))
    assert share.all.value == 0.75
    assert share.all.interval == pytest.approx((0.3006, 0.9544), abs=5e-5)  # Wilson 1927
    assert str(share) == (
        "optimal 75.0% of 4 (95 % interval 30.1% to 95.4%); quiet positions 50.0% of 2 (95 % interval 9.5% to 90.5%)"
    )


def test_of_a_policy_the_exact_expectation_is_taken(four_positions: LabelledPositions) -> None:
    share = share_optimal(uniform_policy(9), four_positions)
    assert share.all.count == pytest.approx(2 / 5 + 1 / 8 + 1 / 5 + 4 / 8)
    assert share.quiet is not None
    assert share.quiet.count == pytest.approx(1 / 8 + 4 / 8)
    with pytest.raises(ValueError, match=r"probabilities are \(4, 7\), must be \(4, 9\)"):
        share_optimal(lambda observation, legal: np.zeros((4, 7)), four_positions)


def test_perfect_players_are_always_optimal(four_positions: LabelledPositions) -> None:
    player = AlphaBetaPlayer(four_positions.turn.game.spec, depth=9)
    assert share_optimal(player, four_positions).all.value == 1.0


def test_a_set_without_quiet_positions_has_no_share_of_them(tmp_path: Path) -> None:
    share = share_optimal(Always(3), load_positions(written(tmp_path, ROWS[0]), TIC_TAC_TOE))
    assert share.quiet is None
    assert str(share) == "optimal 100.0% of 1 (95 % interval 20.7% to 100.0%)"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (-1, r"player always: gives no action \(-1\) in position 0 4 8 2"),
        (-2, r"player always: gives no action \(-2\) in position 0 4 8 2"),
        (0, "player always: action 0 is illegal in position 0 4 8 2"),
        (9, "player always: action 9 is out of range in position 0 4 8 2; must be from 0 to 8"),
    ],
)
def test_an_answer_that_is_no_legal_action_is_an_error(
    four_positions: LabelledPositions, action: int, message: str
) -> None:
    with pytest.raises(GameError, match=message):
        share_optimal(Always(2, 4, action, 0), four_positions)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.full((4, 9), np.nan), "must be finite"),
        (np.full((4, 9), 1 / 9), "0 for illegal actions"),
        (np.zeros((4, 9)), "add up to 0.0 to 0.0, must be 1"),
    ],
)
def test_what_are_no_probabilities_of_the_legal_moves_have_no_share(
    four_positions: LabelledPositions, probabilities: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        share_optimal(lambda observation, legal: probabilities, four_positions)


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        ([ROWS[0], "0,2,,-1,-1,-1,0,-1,-1,-1,-1"], ["line 3: quiet=2: must be 0 or 1"]),
        (
            ["0,x,,-1,-1,-1,0,-1,-1,7,-1"],
            [
                "line 2: quiet=x: must be 0 or 1",
                "line 2: value_7=7: must be 1, 0, -1, or empty for an illegal action",
            ],
        ),
        (
            ["0 0,1,,-1,-1,-1,0,-1,-1,-1,-1"],
            ["line 2: position=0 0: tic_tac_toe: the move list '0 0' has no legal move at '0'"],
        ),
        (
            ["0,1,1,-1,-1,-1,0,-1,-1,-1,-1"],
            ["line 2: values must be given for just the legal actions, [1, 2, 3, 4, 5, 6, 7, 8]"],
        ),
        (
            ["0,1,,,-1,-1,0,-1,-1,-1,-1"],
            ["line 2: values must be given for just the legal actions, [1, 2, 3, 4, 5, 6, 7, 8]"],
        ),
        (["0,1,,-1"], [f"line 2: columns={HEADER}: must be {HEADER}, each filled in"]),
        (["0,1,,-1,-1,-1,0,-1,-1,-1,-1,0"], [f"line 2: columns={HEADER},None: must be {HEADER}, each filled in"]),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, rows: list[str], faults: list[str]) -> None:
    path = written(tmp_path, *rows)
    with pytest.raises(ConfigError) as caught:
        load_positions(path, TIC_TAC_TOE)
    assert caught.value.errors == tuple(f"{path}, {fault}" for fault in faults)


def test_a_file_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read as a set of positions .*No such file"):
        load_positions(tmp_path / "nothing.csv", TIC_TAC_TOE)
    with pytest.raises(ConfigError, match="has no positions; must have one at least"):
        load_positions(written(tmp_path), TIC_TAC_TOE)
    with pytest.raises(ConfigError, match="line 2: columns=position,quiet,value_0: must be position,quiet,value_0,val"):
        load_positions(written(tmp_path, "0,1,1", header="position,quiet,value_0"), TIC_TAC_TOE)
    (tmp_path / "set.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"set\.csv: cannot be read as a set of positions"):
        load_positions(tmp_path / "set.csv", TIC_TAC_TOE)


# The sets of connect four. Stones are bool [2, 42]: those of the mover and those of the opponent, row 0 the lowest.


def _lines() -> NDArray[np.int64]:
    """int64 [69, 4]: all fours in a row of a board of 6 x 7."""
    ways = ((0, 1), (1, 0), (1, 1), (1, -1))
    found = [
        [(row + step * up) * 7 + column + step * right for step in range(4)]
        for row in range(6)
        for column in range(7)
        for up, right in ways
        if row + 3 * up < 6 and 0 <= column + 3 * right < 7
    ]
    return np.array(found)


LINES = _lines()


def stones_of(position: str) -> NDArray[np.bool_]:
    stones, height = np.zeros((2, 42), np.bool_), [0] * 7
    moves = [int(move) for move in position.split()]
    for ply, column in enumerate(moves):
        stones[(len(moves) - ply) % 2, 7 * height[column] + column] = True
        height[column] += 1
    return stones


def can_win(stones: NDArray[np.bool_], side: int) -> bool:
    """Whether a side has four in a row with one stone more."""
    full = stones.any(axis=0).reshape(6, 7)
    for column in range(7):
        row = int(full[:, column].sum())
        if row < 6:
            own = stones[side].copy()
            own[7 * row + column] = True
            if own[LINES].all(axis=1).any():
                return True
    return False


def read_rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_sets_are_what_they_were(name: str) -> None:
    assert hashlib.sha256((DATA / f"{name}.csv").read_bytes()).hexdigest() == SETS[name]


def test_a_mistake_is_possible_in_every_position(connect_four: LabelledPositions) -> None:
    assert len(connect_four) == 2000
    legal = connect_four.values != ILLEGAL
    lowest = np.where(legal, connect_four.values, 1).min(axis=1)
    assert (lowest < connect_four.values.max(axis=1)).all()
    plies = np.array([len(connect_four.turn.game.position(index).split()) for index in range(2000)])
    assert set(plies.tolist()) == set(range(8, 31))


def test_no_position_occurs_twice_not_even_mirrored() -> None:
    seen = set()
    for name in SETS:
        for row in read_rows(name):
            board = stones_of(row["position"]).reshape(2, 6, 7)
            seen |= {min(board.tobytes(), board[:, :, ::-1].tobytes())}
    assert len(seen) == 4000


def test_quiet_positions_have_no_win_and_no_threat(connect_four: LabelledPositions) -> None:
    game = connect_four.turn.game
    for index in range(len(connect_four)):
        stones = stones_of(game.position(index))
        assert not stones[:, LINES].all(axis=2).any()
        assert connect_four.quiet[index] == (not can_win(stones, 0) and not can_win(stones, 1))


def results(state: pyspiel.State) -> list[int]:
    """The mover's result after each column by a search to the end; ILLEGAL for a full one."""
    found = [ILLEGAL] * 7
    for column in state.legal_actions():
        child = state.child(column)
        if child.is_terminal():
            found[column] = int(child.player_return(state.current_player()))
        else:
            found[column] = -int(np.sign(best_moves(child, 42, lambda move: abs(move - 3))[0]))
    return found


@pytest.mark.parametrize("mirrored", [pytest.param(False, marks=pytest.mark.slow), True])
def test_labels_are_what_a_search_to_the_end_finds_in_late_positions(name: str, mirrored: bool) -> None:
    late = [row for row in read_rows(name) if len(row["position"].split()) >= 29][:25]
    assert len(late) == 25
    for row in late:
        state = pyspiel.load_game("connect_four").new_initial_state()
        for move in row["position"].split():
            state.apply_action(6 - int(move) if mirrored else int(move))
        values = [int(row[f"value_{column}"] or ILLEGAL) for column in range(7)]
        assert results(state) == (values[::-1] if mirrored else values)


def test_random_play_and_two_ply_tactics_have_these_shares(name: str, connect_four: LabelledPositions) -> None:
    spec = connect_four.turn.game.spec
    uniform = share_optimal(uniform_policy(spec.num_actions), connect_four)
    tactics = share_optimal(make_tactics(spec, seed=0, name="tactics"), connect_four)
    assert uniform.quiet is not None
    assert tactics.quiet is not None
    found = [share.value for share in (uniform.all, uniform.quiet, tactics.all, tactics.quiet)]
    expected = {"random": [0.338, 0.391, 0.839, 0.606], "tactical": [0.406, 0.444, 0.640, 0.544]}
    assert found == pytest.approx(expected[name], abs=5e-4)
