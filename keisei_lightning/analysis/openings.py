"""The opening tree of a policy: which first moves it plays, how often, and what it expects of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.evaluation.solvers import PolicyFunction, policy_probabilities
from keisei_lightning.games.protocol import Game, GameFactory
from keisei_lightning.models import ActorCritic, evaluation_mode

__all__ = ["Opening", "opening_tree"]


@dataclass(kw_only=True, slots=True)
class Opening:
    """A move of the tree; the root is the start of the game, without one.

    Attributes:
        move: as the game names it.
        share: the policy's probability of it in its position, from 0 to 1.
        reach: probability that a game comes here.
        replies: the likeliest moves after it, the most probable first; empty at the tree's edge.
        others: moves after it that are not shown.
    """

    move: str = ""
    share: float = 1.0
    reach: float = 1.0
    replies: list[Opening] = field(default_factory=list)
    others: int = 0


def opening_tree(
    actor_critic: ActorCritic, game: GameFactory, *, plies: int = 4, width: int = 3, least_reach: float = 0.02
) -> Opening:
    """Expand a policy's likeliest moves from the start of the game.

    Args:
        actor_critic: the policy; it stays as it is.
        game: makes the boards; random openings are left out.
        plies: of the tree.
        width: moves that are shown of each position, at most.
        least_reach: moves that a game reaches less often are not shown.

    Raises:
        GameError: the network's logits of the legal moves are not finite in some position.
    """
    board = game(1)
    if hasattr(board, "opening_plies"):
        board.opening_plies = 0
    board.reset()
    root = Opening()
    policy = policy_probabilities(actor_critic, greedy=False)
    edge = [(root, board.position(0))]
    with evaluation_mode(actor_critic):
        for _ in range(plies):
            edge = [
                child for node, position in edge for child in _expand(board, node, position, policy, width, least_reach)
            ]
    return root


def _expand(
    board: Game, node: Opening, position: str, policy: PolicyFunction, width: int, least_reach: float
) -> list[tuple[Opening, str]]:
    """Add the replies of one position; those after which the game goes on, with their positions."""
    spec = board.spec
    board.set_position(0, position)
    observation = np.zeros((1, *spec.observation_shape), dtype=np.uint8)
    legal = np.zeros((1, spec.mask_bytes), dtype=np.uint8)
    board.observe(observation, legal, np.zeros(1, dtype=np.int8))
    try:
        (probabilities,) = policy(observation, legal)
    except ValueError as error:
        raise GameError(f"{error}, in position {position}") from error
    likeliest = np.argsort(-probabilities, kind="stable")[:width].tolist()
    chosen = [action for action in likeliest if node.reach * probabilities[action] >= least_reach]
    node.others = int(np.unpackbits(legal, axis=1, count=spec.num_actions).sum()) - len(chosen)
    found = []
    for action in chosen:
        share = float(probabilities[action])
        reply = Opening(move=board.action_name(0, action), share=share, reach=node.reach * share)
        node.replies.append(reply)
        _, terminated, truncated = board.step(np.array([action], dtype=np.int64))
        if not (terminated[0] or truncated[0]):
            found.append((reply, board.position(0)))
        board.set_position(0, position)
    return found
