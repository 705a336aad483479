"""A Lightning module whose network is made from its checkpoint, not by code that the file names."""

from __future__ import annotations

import os
from typing import IO, Any, Self

from lightning.pytorch import LightningModule
from typing_extensions import TypeIs

from keisei_lightning.errors import ConfigError
from keisei_lightning.published import checkpoint_file, is_published
from keisei_lightning.training.integrity import corruption
from keisei_lightning.training.recorded import recorded_arguments

__all__ = ["RecordedModule"]


class RecordedModule(LightningModule):
    """A module whose ``actor_critic`` can be made again from the recipe in its checkpoints."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """Load a module as Lightning does; without ``actor_critic``, the network is made from the checkpoint's recipe.

        Args:
            checkpoint_path: a checkpoint file of a run, or the name of a published policy; with ``actor_critic`` also
                an open file.
            map_location: where the weights are put.
            hparams_file: hyperparameters that replace the checkpoint's.
            strict: the names of the weights must be exactly those of the network.
            weights_only: run no code from the file; False only for a file that you trust.
            **kwargs: arguments of the module that replace the checkpoint's hyperparameters.

        Raises:
            ConfigError: the file cannot be read, or has no recipe; its network is neither of this package nor
                registered by another one; or the weights are those of another network.
        """
        if isinstance(checkpoint_path, str | os.PathLike) and is_published(checkpoint_path):
            checkpoint_path = checkpoint_file(checkpoint_path)
        if "actor_critic" not in kwargs:
            kwargs = recorded_arguments(checkpoint_path) | kwargs
        elif _is_file(checkpoint_path) and (problem := corruption(checkpoint_path)) is not None:
            raise ConfigError(f"checkpoint_path={checkpoint_path}: cannot be read as a checkpoint ({problem})")
        loaded: Self = super().load_from_checkpoint(
            checkpoint_path,  # type: ignore[arg-type]  # its own type leaves os.PathLike out
            map_location=map_location,
            hparams_file=hparams_file,  # type: ignore[arg-type]
            strict=strict,
            weights_only=weights_only,
            **kwargs,
        )
        return loaded


def _is_file(path: object) -> TypeIs[str | os.PathLike[str]]:
    """Whether it names a file: neither an open file nor a URL."""
    return isinstance(path, str | os.PathLike) and os.path.isfile(path)
