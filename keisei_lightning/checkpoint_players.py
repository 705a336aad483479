"""Players that are made from checkpoints by their names, such as ``"search(checkpoint=last.ckpt,simulations=64)"``."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.late_player import LatePlayer
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.published import checkpoint_file
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.system.options import with_keywords

if TYPE_CHECKING:
    from keisei_lightning.evaluation.search_player import SearchPlayer

__all__ = ["CheckpointSearch", "make_search"]

_DEFAULTS: Final = SearchOptions()


class CheckpointSearch(LatePlayer):
    """A :class:`~keisei_lightning.evaluation.SearchPlayer` of a checkpoint, which is read when the player starts.

    Args:
        checkpoint: a file of a training run, or the name of a published policy.
        spec: the game that is played.
        options: how to search.
        name: name in tables and metrics.
    """

    def __init__(self, checkpoint: str, spec: GameSpec, options: SearchOptions, *, name: str) -> None:
        super().__init__(name=name, deterministic=options.simulations == 0)  # see SearchPlayer
        self._checkpoint, self._spec, self._options = checkpoint, spec, options

    @override
    def make_player(self) -> SearchPlayer:
        # torch is imported where a player plays, and not to check its name.
        from keisei_lightning.evaluation.search_player import SearchPlayer
        from keisei_lightning.policies import load_policy

        try:
            policy = load_policy(self._checkpoint)
            policy.header.check(self._spec, path=self._checkpoint)
        except ConfigError as error:
            raise ConfigError([line.replace("ckpt_path=", "checkpoint=", 1) for line in error.errors]) from error
        return SearchPlayer(policy.actor_critic, policy.game, self._options, name=self.name)


def make_search(
    spec: GameSpec, *, seed: int, name: str, checkpoint: str, options: SearchOptions = _DEFAULTS, **keywords: Any
) -> CheckpointSearch:
    """Make the player ``search`` (entry point); :meth:`CheckpointSearch.start` reads its checkpoint.

    Args:
        spec: the game.
        seed: not used: nothing is drawn.
        name: name in tables and metrics.
        checkpoint: a file of a training run, or the name of a published policy, such as ``published:shogi``.
        options: how to search.
        keywords: single ones of :class:`~keisei_lightning.search.SearchOptions`, such as ``simulations=64``.

    Raises:
        ConfigError: an option is out of its range or unknown, or there is no such file.
    """
    errors: list[str] = []
    try:
        (options,) = with_keywords("search", options, keywords=keywords)
    except ConfigError as error:
        errors += [f"player {name}: {line}" for line in error.errors]
    except TypeError as error:  # no such option
        errors.append(f"player {name}: {error}")
    try:
        file = checkpoint_file(checkpoint)
    except ConfigError as error:
        errors += [f"player {name}: {line.replace('ckpt_path=', 'checkpoint=', 1)}" for line in error.errors]
    else:
        if not file.is_file():
            errors.append(f"player {name}: checkpoint={checkpoint}: there is no such file; must be a checkpoint file")
        elif not zipfile.is_zipfile(file):
            errors.append(f"player {name}: checkpoint={checkpoint}: cannot be read as a checkpoint (it is no zip file)")
    if errors:
        raise ConfigError(errors)
    return CheckpointSearch(checkpoint, spec, options, name=name)
