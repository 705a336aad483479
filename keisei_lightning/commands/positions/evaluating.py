"""What a checkpoint says of positions: their values and policies, by its network or by a search with it."""

from __future__ import annotations

import numpy as np

from keisei_lightning.commands.positions.options import PositionsOptions
from keisei_lightning.commands.positions.replaying import Evaluation, Evaluator, Looked
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import Game, GameFactory
from keisei_lightning.policies import LoadedPolicy, device_of, load_policy
from keisei_lightning.search import Roots, SearchOptions, TreeSearch, copies_of
from keisei_lightning.search.network import NetworkEvaluator

__all__ = ["make_evaluator", "read_policy"]


def read_policy(options: PositionsOptions) -> LoadedPolicy:
    """The checkpoint that evaluates.

    Raises:
        ConfigError: it cannot be read, or there is no such device.
    """
    device = device_of(options.device)
    try:
        return load_policy(str(options.checkpoint), options.model or None, device)
    except ConfigError as error:
        raise ConfigError([line.replace("ckpt_path=", "checkpoint=", 1) for line in error.errors]) from error


def make_evaluator(policy: LoadedPolicy, factory: GameFactory, simulations: int) -> Evaluator:
    """What evaluates positions.

    Args:
        policy: with its network.
        factory: of the game.
        simulations: of a search; 0: the network alone.
    """
    network = NetworkEvaluator(policy.actor_critic, factory(1).spec)
    if simulations == 0:
        return _ByNetwork(network)
    return _BySearch(TreeSearch(network, factory, SearchOptions(simulations=simulations)))


class _ByNetwork:
    """One forward pass."""

    def __init__(self, network: NetworkEvaluator) -> None:
        self._network = network

    def __call__(self, game: Game, looked: Looked) -> list[Evaluation]:
        log_probs, values = self._network(looked.observation, looked.legal)
        mask = np.unpackbits(looked.legal, axis=1, count=game.spec.num_actions)
        parts = np.split(np.exp(log_probs), np.cumsum(mask.sum(axis=1, dtype=np.int64))[:-1])
        return [
            Evaluation(float(value), np.flatnonzero(row).astype(np.int64), part)
            for value, row, part in zip(values, mask, parts, strict=True)
        ]


class _BySearch:
    """A tree search; a game's tree is kept for its next position."""

    def __init__(self, search: TreeSearch) -> None:
        self._search = search

    def __call__(self, game: Game, looked: Looked) -> list[Evaluation]:
        found = self._search.run(
            Roots(
                boards=looked.keys,
                positions=copies_of(game, looked.indices),
                observation=looked.observation,
                legal=looked.legal,
                mover=looked.mover,
            )
        )
        return [Evaluation(each.value, each.actions, each.policy.astype(np.float32)) for each in found]
