"""The player that is a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Turn
from keisei_lightning.games.protocol import NO_MOVE, GameSpec, Symmetry
from keisei_lightning.models import LegalCategorical, unpack_mask
from keisei_lightning.models.output_check import output_errors
from keisei_lightning.rl.symmetry import TensorSymmetry

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["PolicyPlayer"]


class PolicyPlayer:
    """Plays a network's most likely move, or a sample of its policy.

    The network's mode (training or evaluation) and the global random streams stay as they are. The network runs on the
    device of its parameters.

    Args:
        actor_critic: the network with its policy and value.
        greedy: the most likely move; otherwise a sample.
        temperature: the logits are divided by this before sampling, above 0; 1 is the policy itself, less is closer to
            greedy play.
        symmetries: symmetries of the game. The network evaluates each position and each of its images, and the player
            plays the mean of these policies, mapped back to the position. A network that was trained with mirror images
            is not quite symmetric itself, and its errors differ (Silver et al. 2016, Mastering the game of Go with deep
            neural networks and tree search, Methods, "Symmetries": the explicit ensemble).
        seed: seed of the player's own random stream (samples only).
        name: name in tables and metrics.

    Raises:
        ConfigError: a temperature that is not above 0.
    """

    def __init__(
        self,
        actor_critic: ActorCritic,
        *,
        greedy: bool = True,
        temperature: float = 1.0,
        symmetries: Sequence[Symmetry] = (),
        seed: int = 0,
        name: str = "policy",
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise ConfigError(f"temperature={temperature}: must be above 0, and finite (greedy play: greedy=True)")
        self._actor_critic = actor_critic
        self._greedy = greedy
        self._temperature = temperature
        self._name = name
        self._device = next((p.device for p in actor_critic.parameters()), torch.device("cpu"))
        self._images = [TensorSymmetry.from_symmetry(symmetry, device=self._device) for symmetry in symmetries]
        self._generator = torch.Generator(device=self._device).manual_seed(seed)

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    @property
    def deterministic(self) -> bool:
        """Whether the player always chooses the same move in a position: greedy play does, but for ties by rounding."""
        return self._greedy

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """One forward pass over all boards, in all images; see :meth:`~keisei_lightning.evaluation.Player.choose`.

        Raises:
            ConfigError: the network's outputs do not fit the game (shapes, dtypes).
            GameError: the network's logits of the legal moves are not finite on some board.
        """
        with torch.inference_mode():
            observation = torch.from_numpy(np.ascontiguousarray(turn.observation)).to(self._device)
            legal = torch.from_numpy(np.ascontiguousarray(turn.legal)).to(self._device)
            logits = self._logits(observation, legal, turn.game.spec)
            policy = LegalCategorical(logits / self._temperature, legal)
            action = policy.mode if self._greedy else policy.sample_with(self._generator)
        chosen: NDArray[np.int64] = action.cpu().numpy().astype(np.int64, copy=False)
        for row in np.flatnonzero((chosen == NO_MOVE) & turn.legal.any(axis=1))[:1]:
            position = turn.game.position(int(turn.indices[row]))
            raise GameError(
                f"player {self._name}: the network's logits of the legal moves are not finite in position {position}"
            )
        return chosen

    def _logits(self, observation: Tensor, legal: Tensor, spec: GameSpec) -> Tensor:
        """Float [n, A]: logits of the policy, or of the mean policy of all images."""
        images = [observation, *(image.observation(observation) for image in self._images)]
        outputs = self._actor_critic(torch.cat(images) if self._images else observation)
        if errors := list(output_errors(outputs, len(observation) * len(images), spec)):
            raise ConfigError([f"player {self._name}: the network does not fit the game: {error}" for error in errors])
        logits: Tensor = outputs[0]
        if not self._images:
            return logits
        plain, *mirrored = logits.chunk(len(images))
        aligned = [plain, *(part[:, image.new_action] for part, image in zip(mirrored, self._images, strict=True))]
        illegal = ~unpack_mask(legal, logits.shape[-1])
        log_probs = [part.float().masked_fill(illegal, -torch.inf).log_softmax(-1) for part in aligned]
        return torch.stack(log_probs).logsumexp(0)
