"""Which node an agent goes to."""

from __future__ import annotations

from collections import Counter

import pytest

from keisei_lightning.parallel.cluster.placement import Node, choose_node, count_places


def node(name: str, **resources: float) -> Node:
    return Node(node_id=name, name=name, resources=resources)


NODES = [node("a", CPU=4), node("b", CPU=2), node("c", CPU=8), node("d")]


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("spread", ["a", "b", "c", "a", "c", "c", "c", None]),
        ("strict_spread", ["a", "b", "c", None, None, None, None, None]),
        ("pack", ["a", "a", "b", "c", "c", "c", "c", None]),
    ],
)
def test_agents_fill_the_nodes_in_the_order_of_the_placement(placement: str, expected: list[str | None]) -> None:
    agents: Counter[str] = Counter()
    chosen = []
    for _ in expected:
        place = choose_node(NODES, agents, {"CPU": 2.0}, placement)
        chosen.append(None if place is None else place.node_id)
        agents.update([] if place is None else [place.node_id])
    assert chosen == expected


def test_every_resource_must_be_there() -> None:
    nodes = [node("a", CPU=4), node("b", CPU=4, GPU=1, tpu=0.5)]
    needs = {"CPU": 1.0, "GPU": 0.5, "tpu": 0.1}
    assert choose_node(nodes, {}, needs, "pack") == nodes[1]
    assert choose_node(nodes, {"b": 2}, needs, "pack") is None
    assert choose_node([nodes[0]], {}, needs, "pack") is None


def test_agents_that_reserve_nothing_go_anywhere() -> None:
    assert choose_node(NODES, {"a": 1, "b": 1, "c": 1}, {}, "spread") == NODES[3]


def test_a_node_whose_agent_was_silent_is_chosen_last() -> None:
    place = choose_node(NODES, {"c": 3}, {"CPU": 2.0}, "spread", avoided=["a", "b"])
    assert place == NODES[2]
    assert choose_node(NODES, {"c": 4}, {"CPU": 2.0}, "spread", avoided=["a", "b"]) == NODES[0]


def test_the_preferred_node_is_chosen_unless_it_has_no_room_or_is_to_be_avoided() -> None:
    for placement in ("spread", "pack"):
        assert choose_node(NODES, {"a": 1, "c": 1}, {"CPU": 2.0}, placement, preferred="b") == NODES[1]
    assert choose_node(NODES, {"b": 9}, {"CPU": 2.0}, "spread", preferred="b") == NODES[0]
    assert choose_node(NODES, {}, {"CPU": 2.0}, "spread", avoided=["b"], preferred="b") == NODES[0]


def test_nodes_with_room_are_counted() -> None:
    assert count_places(NODES, {"CPU": 3.0}) == 2
    assert count_places(NODES, {}) == 4
    assert count_places([], {}) == 0
