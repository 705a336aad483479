"""What a network thinks of positions, for a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.games.protocol import GameSpec, Symmetry
from keisei_lightning.models.output_check import output_errors
from keisei_lightning.rl.symmetry import TensorSymmetry
from keisei_lightning.search.cache import NUM_BITS

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["NetworkEvaluator"]


class NetworkEvaluator:
    """Evaluates positions by an actor-critic's policy and value.

    Args:
        actor_critic: its mode (training or evaluation) stays as it is; it runs on the device of its parameters.
        spec: of the game.
        symmetries: the mean is taken over each position and these images of it.
    """

    def __init__(self, actor_critic: ActorCritic, spec: GameSpec, *, symmetries: Sequence[Symmetry] = ()) -> None:
        self._actor_critic, self._spec = actor_critic, spec
        self._device = next((p.device for p in actor_critic.parameters()), torch.device("cpu"))
        self._images = [TensorSymmetry.from_symmetry(symmetry, device=self._device) for symmetry in symmetries]

    def __call__(
        self, observation: NDArray[np.uint8], legal: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One forward pass.

        Args:
            observation: uint8 [n, *observation_shape].
            legal: uint8 [n, ceil(A / 8)], bit-packed; each row has a legal move.

        Returns:
            Log-probabilities of the legal moves, float32 [number of them], row after row by their labels; and values in
            the mover's view, float32 [n].

        Raises:
            ConfigError: the network does not fit the game.
            GameError: its outputs are not finite.
        """
        mask = np.unpackbits(legal, axis=1, count=self._spec.num_actions).view(np.bool_)
        places, counts = np.flatnonzero(mask), NUM_BITS[legal].sum(axis=1)
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(observation)).to(self._device)
            inputs = [given, *(image.observation(given) for image in self._images)]
            outputs = self._actor_critic(torch.cat(inputs) if self._images else given)
            if errors := list(output_errors(outputs, len(observation) * len(inputs), self._spec)):
                raise ConfigError([f"the network does not fit the game: {error}" for error in errors])
            logits, values = (part.float().cpu() for part in outputs)
            plain, *mirrored = logits.chunk(len(inputs))
            parts = [
                plain,
                *(part[:, image.new_action.cpu()] for part, image in zip(mirrored, self._images, strict=True)),
            ]
            legal_logits = [part.numpy().reshape(-1)[places] for part in parts]
        log_probs = [_log_softmax(part, counts) for part in legal_logits]
        mean = log_probs[0] if len(parts) == 1 else np.logaddexp.reduce(log_probs, axis=0) - np.log(len(parts))
        value = np.clip(values.reshape(len(inputs), -1).mean(0).numpy(), -1.0, 1.0)
        if not (np.isfinite(mean).all() and np.isfinite(value).all()):
            raise GameError("the network's logits of the legal moves or its values are not finite")
        return mean, value


def _log_softmax(logits: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Log-probabilities of rows of different lengths, one after another."""
    start = np.cumsum(counts) - counts
    shifted = logits - np.repeat(np.maximum.reduceat(logits, start), counts)
    total = np.log(np.add.reduceat(np.exp(shifted), start))
    probabilities: NDArray[np.float32] = shifted - np.repeat(total, counts)
    return probabilities
