"""Which node an agent goes to: a pure function."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from keisei_lightning.parallel.options import Placement

__all__ = ["Node", "choose_node", "count_places"]

_EPSILON = 1e-6  # Ray counts resources in ten-thousandths


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node of the cluster that is alive.

    Attributes:
        node_id: the cluster's name of it.
        name: for a person: host name and address.
        resources: amounts by name, of all that this learner may use there.
    """

    node_id: str
    name: str
    resources: Mapping[str, float]


def choose_node(
    nodes: Sequence[Node],
    agents: Mapping[str, int],
    needs: Mapping[str, float],
    placement: Placement,
    *,
    avoided: Collection[str] = (),
    preferred: str | None = None,
) -> Node | None:
    """Choose the node of one more agent.

    Args:
        nodes: that are alive.
        agents: how many agents each has, by ``node_id``.
        needs: what an agent reserves, by the name of the resource.
        placement: see :class:`~keisei_lightning.parallel.options.ClusterOptions`.
        avoided: nodes that are only chosen where there is no other, such as one whose agent gave no sign of life.
        preferred: the node that is chosen if it has room and is not to be avoided, such as that of a standby.

    Returns:
        The node; None: none has room.
    """
    most = 1 if placement == "strict_spread" else None
    fitting = [node for node in nodes if _has_room(node, agents.get(node.node_id, 0), needs, most)]
    sign = -1 if placement == "pack" else 1
    return min(
        fitting,
        key=lambda node: (
            node.node_id in avoided,
            node.node_id != preferred,
            sign * agents.get(node.node_id, 0),
            node.node_id,
        ),
        default=None,
    )


def count_places(nodes: Sequence[Node], needs: Mapping[str, float]) -> int:
    """How many nodes have room for an agent."""
    return sum(_has_room(node, 0, needs, None) for node in nodes)


def _has_room(node: Node, agents: int, needs: Mapping[str, float], most: int | None) -> bool:
    if most is not None and agents >= most:
        return False
    return all((agents + 1) * need <= node.resources.get(name, 0.0) + _EPSILON for name, need in needs.items())
