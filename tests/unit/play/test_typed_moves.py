"""Moves as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei_lightning.play.typed_moves import find_moves, move_labels

COLUMNS = [f"x{column}" for column in range(7)]
SQUARES = [f"x({row},{column})" for row in range(3) for column in range(3)]
SHOGI = ["7g7f", "7g7e", "2g2f", "8h2b", "8h2b+", "P*5e", "P*5d", "5i5h"]
GO = ["B a1", "B b1", "B pass"]


@pytest.mark.parametrize(
    ("typed", "names", "meant"),
    [
        ("x3", COLUMNS, ["x3"]),
        ("X3", COLUMNS, ["x3"]),
        ("3", COLUMNS, ["x3"]),
        ("3", COLUMNS[2:], ["x3"]),
        ("3", ["x3"], ["x3"]),
        ("9", COLUMNS, []),
        ("x", COLUMNS, COLUMNS),
        ("1,1", SQUARES, ["x(1,1)"]),
        ("(1, 1)", SQUARES, ["x(1,1)"]),
        ("01", SQUARES, ["x(0,1)"]),
        ("5", SQUARES, ["x(1,1)"]),
        ("2,2", SQUARES[8:], ["x(2,2)"]),
        ("7g7f", SHOGI, ["7g7f"]),
        ("7G7F", SHOGI, ["7g7f"]),
        ("7g", SHOGI, ["7g7f", "7g7e"]),
        ("2g", SHOGI, ["2g2f"]),
        ("8h2b", SHOGI, ["8h2b"]),
        ("8h2b+", SHOGI, ["8h2b+"]),
        ("8h", SHOGI, ["8h2b", "8h2b+"]),
        ("p*5e", SHOGI, ["P*5e"]),
        ("5h", SHOGI, ["5i5h"]),
        ("6", SHOGI, ["P*5e"]),
        ("06", SHOGI, []),
        ("a1", GO, ["B a1"]),
        ("pass", GO, ["B pass"]),
        ("3", GO, ["B pass"]),
        ("", COLUMNS, []),
        ("-", COLUMNS, []),
        ("f", SHOGI, []),
        ("\uff13", COLUMNS, []),
        ("x3", [], []),
        ("1", [], []),
        ("A1", ["a1", "A1"], ["A1"]),
        ("aA", ["aa", "AA"], ["aa", "AA"]),
    ],
)
def test_what_is_typed_means_the_moves_that_it_may_mean(typed: str, names: list[str], meant: list[str]) -> None:
    assert find_moves(typed, names) == meant


def test_moves_that_differ_in_a_number_alone_are_chosen_by_it_and_others_by_their_place() -> None:
    assert move_labels(["x0", "x5"]) == {"0": "x0", "5": "x5"}
    assert move_labels(["a1", "b1"]) == {"1": "a1", "2": "b1"}
    assert move_labels(["x00", "x1"]) == {"1": "x00", "2": "x1"}
    assert move_labels([]) == {}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(min_size=1), unique=True), st.text())
def test_every_name_and_every_number_is_found_whatever_the_names_are(names: list[str], typed: str) -> None:
    assert set(find_moves(typed, names)) <= {*names, typed}
    for name in names:
        assert find_moves(name, names) == [name]
    labels = move_labels(names)
    assert sorted(labels.values()) == sorted(names)
    for label, name in labels.items():
        assert label in names or find_moves(label, names) == [name]
