"""Who plays with people: a trained policy and its game, from a file or from what is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameFactory, GameSpec
from keisei_lightning.play import Analyst
from keisei_lightning.search.cache import Evaluate
from keisei_lightning.search.options import SearchOptions

__all__ = ["Agent", "load_agent"]

_ONNX = ".onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """A policy that is ready to play.

    Attributes:
        name: of its file or its published name, for people.
        game: makes the game that it plays.
        spec: of that game.
        evaluator: makes what evaluates positions; its argument: as the mean over the game's symmetries.
    """

    name: str
    game: GameFactory
    spec: GameSpec
    evaluator: Callable[[bool], Evaluate]

    def analyst(self, options: SearchOptions) -> Analyst:
        """Somebody who looks at positions of its game by it."""
        return Analyst(self.evaluator(options.mirror), self.game, options)


def load_agent(path: str, *, device: str = "cpu") -> Agent:
    """Read a policy.

    Args:
        path: a checkpoint of a training run, a published policy such as ``"published:shogi"``, or a model that
            ``keisei export`` wrote (``.onnx``), for which no torch is needed.
        device: where a checkpoint's network is put: "cpu", "cuda", "cuda:N", or "auto" (cuda if there is one).

    Raises:
        ConfigError: there is no such file or device, or the file cannot be read.
    """
    if path.endswith(_ONNX):
        # onnxruntime is of an extra, and is imported where it is needed.
        from keisei_lightning.export.onnx_policy import load_onnx

        try:
            model = load_onnx(path)
        except ConfigError as error:
            raise ConfigError([line.replace("model=", "checkpoint=", 1) for line in error.errors]) from error
        return Agent(name=Path(path).stem, game=model.game, spec=model.spec, evaluator=model.evaluator)
    # torch is imported where a checkpoint is read, and not to look at a model without it.
    from keisei_lightning.policies import device_of, load_policy
    from keisei_lightning.search.network import NetworkEvaluator

    where = device_of(device)
    try:
        policy = load_policy(path, device=where)
    except ConfigError as error:
        raise ConfigError([line.replace("ckpt_path=", "checkpoint=", 1) for line in error.errors]) from error
    spec = policy.game(1).spec

    def evaluator(mirror: bool) -> Evaluate:
        return NetworkEvaluator(policy.actor_critic, spec, symmetries=spec.symmetries if mirror else ())

    return Agent(name=Path(path.removeprefix("published:")).name, game=policy.game, spec=spec, evaluator=evaluator)
