"""Which moves a search tries, and which it plays: numbers from the formulas, worked out move by move."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from keisei_lightning.search.forest import NO_EDGE, Expansion, Forest
from keisei_lightning.search.selection import Gumbel, Look, Puct, considered_visits

PRIORS = np.array([0.5, 0.3, 0.15, 0.05])
VISITS = np.array([3, 2, 0, 1])
VALUES = np.array([-0.2, 0.4, 0.0, 0.1])
NODE_VALUE = 0.25


@pytest.fixture
def forest() -> Forest:
    """One node of four moves, of which three were tried, beside a node of two moves."""
    made = Forest()
    made.add_nodes(
        np.array([NO_EDGE, NO_EDGE]),
        Expansion(
            movers=np.zeros(2, np.int8),
            counts=np.array([4, 2]),
            actions=np.array([7, 8, 9, 10, 0, 1]),
            log_priors=np.log(np.concatenate([PRIORS, [0.9, 0.1]])),
            values=np.array([NODE_VALUE, 0.0]),
        ),
    )
    made.edges.visits[:4], made.edges.total[:4] = VISITS, VISITS * VALUES
    return made


def test_puct_scores_each_move_as_the_formula_says(forest: Forest) -> None:
    mean = (NODE_VALUE + (VISITS * VALUES).sum()) / (1 + VISITS.sum())
    untried = mean - 0.25 * math.sqrt(PRIORS[VISITS > 0].sum())
    scores = [
        (value if visits else untried) + 1.5 * prior * math.sqrt(VISITS.sum()) / (1 + visits)
        for prior, visits, value in zip(PRIORS, VISITS, VALUES, strict=True)
    ]
    look = Look.at(forest, np.array([0, 1]))
    assert Puct(1.5).try_inside(look).tolist() == [int(np.argmax(scores)), 0]
    assert Puct(1.5).policy(look)[0] == pytest.approx(VISITS / VISITS.sum())
    assert Puct(1.5).policy(look)[1, :2] == pytest.approx([0.9, 0.1])  # nothing was tried there


def test_the_improved_policy_is_the_one_of_the_paper(forest: Forest) -> None:
    tried = VISITS > 0
    known = (PRIORS * VALUES)[tried].sum() / PRIORS[tried].sum()
    mixed = (NODE_VALUE + VISITS.sum() * known) / (1 + VISITS.sum())
    completed = np.where(tried, VALUES, mixed)
    logits = np.log(PRIORS) + (50 + VISITS.max()) * 0.1 * (completed + 1) / 2
    expected = np.exp(logits) / np.exp(logits).sum()
    look = Look.at(forest, np.array([0, 1]))
    policy = Gumbel(16, 0.1).policy(look)
    assert policy[0] == pytest.approx(expected)
    assert policy[1, :2] == pytest.approx([0.9, 0.1])
    assert policy[1, 2:] == pytest.approx([0.0, 0.0])
    scores = expected - VISITS / (1 + VISITS.sum())
    assert Gumbel(16, 0.1).try_inside(look).tolist() == [int(np.argmax(scores)), 0]


@pytest.mark.parametrize(
    ("num_moves", "simulations", "visits"),
    [
        (16, 64, [1] * 8 + [3] * 4 + [7] * 2 + [15] * 2),  # 16, 8, 4 and 2 moves with 16 tries in each phase
        (4, 8, [1, 1, 3, 3]),
        (1, 5, [5]),
        (2, 7, [4, 3]),
        (3, 2, [1, 1, 0]),
    ],
)
def test_sequential_halving_shares_the_tries_out_in_equal_phases(
    num_moves: int, simulations: int, visits: list[int]
) -> None:
    """Each try goes to a move that was tried as often as the schedule says: here always the first such one."""
    tries = [0] * num_moves
    for due in considered_visits(num_moves, simulations):
        tries[tries.index(due)] += 1
    assert Counter(tries) == Counter(visits)
    assert sum(tries) == simulations


def test_an_edge_that_is_proven_or_cannot_be_better_than_a_proven_one_is_never_tried(forest: Forest) -> None:
    forest.prove(np.array([1]), np.array([0]))  # a draw
    look = Look.at(forest, np.array([0]))
    assert look.is_open.tolist() == [[True, False, True, True]]
    forest.edges.high[2] = 0  # at best a draw too
    assert Look.at(forest, np.array([0])).is_open.tolist() == [[True, False, False, True]]
    forest.prove(np.array([0]), np.array([1]))
    assert not Look.at(forest, np.array([0])).is_open.any()
    assert (forest.nodes.low[0], forest.nodes.high[0]) == (1, 1)
