"""The player ``"onnx(model=shogi.onnx,simulations=64)"``: an exported policy, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.evaluator_player import EvaluatorPlayer
from keisei_lightning.evaluation.late_player import LatePlayer
from keisei_lightning.export.onnx_policy import OnnxPolicy, load_onnx, missing_library
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.system.options import with_keywords

__all__ = ["OnnxPlayer", "make_onnx"]

_DEFAULTS: Final = SearchOptions()


class OnnxPlayer(LatePlayer):
    """A player of an exported policy, which is read when the player starts.

    Args:
        model: the ONNX file.
        spec: the game that is played.
        options: how to search.
        name: name in tables and metrics.
    """

    def __init__(self, model: str, spec: GameSpec, options: SearchOptions, *, name: str) -> None:
        super().__init__(name=name, deterministic=options.simulations == 0)  # see EvaluatorPlayer
        self._model, self._spec, self._options = model, spec, options

    @override
    def make_player(self) -> EvaluatorPlayer:
        policy = load_onnx(self._model)
        _check_game(policy, self._spec, model=self._model)
        evaluate = policy.evaluator(self._options.mirror)
        return EvaluatorPlayer(evaluate, policy.game, self._options, name=self.name)


def _check_game(policy: OnnxPolicy, spec: GameSpec, *, model: str) -> None:
    """Refuse a policy of another game.

    Raises:
        ConfigError: name, number of actions or observation shape differ.
    """
    for what, found, expected in (
        ("game", policy.spec.name, spec.name),
        ("num_actions", policy.spec.num_actions, spec.num_actions),
        ("observation_shape", policy.spec.observation_shape, spec.observation_shape),
    ):
        if found != expected:
            raise ConfigError(f"model={model}: its {what} is {found}, this game's is {expected}")


def make_onnx(
    spec: GameSpec, *, seed: int, name: str, model: str, options: SearchOptions = _DEFAULTS, **keywords: Any
) -> OnnxPlayer:
    """Make the player ``onnx`` (entry point); :meth:`OnnxPlayer.start` reads its file.

    Args:
        spec: the game.
        seed: not used: nothing is drawn.
        name: name in tables and metrics.
        model: an ONNX file that ``keisei export`` wrote.
        options: how to search.
        keywords: single ones of :class:`~keisei_lightning.search.SearchOptions`, such as ``simulations=64``.

    Raises:
        ConfigError: an option is out of its range or unknown, there is no such file, or onnxruntime is not installed.
    """
    errors: list[str] = []
    try:
        (options,) = with_keywords("onnx", options, keywords=keywords)
    except ConfigError as error:
        errors += error.errors
    except TypeError as error:  # no such option
        errors.append(str(error))
    if not Path(model).is_file():
        errors.append(f"model={model}: there is no such file; must be an ONNX file")
    elif line := missing_library("onnxruntime"):
        errors.append(f"model={model}: {line}")
    if errors:
        raise ConfigError([f"player {name}: {line}" for line in errors])
    return OnnxPlayer(model, spec, options, name=name)
