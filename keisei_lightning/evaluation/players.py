"""Players: whoever chooses moves when it is their turn, a network, a die, a script, or an engine behind a pipe.

All boards that wait for a player are shown to it at once (:class:`Turn`), so that a network needs one forward pass for
them. Arrays are enough for most; a player that searches or asks an engine looks at the game itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import NO_MOVE, Game, GameSpec, Symmetry
from keisei_lightning.models import LegalCategorical, unpack_mask
from keisei_lightning.rl.symmetry import TensorSymmetry

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import ActorCritic

__all__ = ["RESIGN", "Player", "PolicyPlayer", "RandomPlayer", "Turn", "make_random"]

RESIGN: Final = -2
"""Instead of an action: the player gives the game up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The boards that wait for a player's move.

    Attributes:
        game: to look at (``position(i)``, ``history(i)``, ...); a player must not step, reset or set it.
        indices: int64 [n], which of its boards.
        observation: uint8 [n, *observation_shape], the mover's view.
        legal: uint8 [n, ceil(A / 8)], bit-packed in ``np.packbits`` order.
    """

    game: Game
    indices: NDArray[np.int64]
    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]


@runtime_checkable
class Player(Protocol):
    """Chooses moves for many boards at once. One that holds a process or a file has a ``close()`` too."""

    @property
    def name(self) -> str:
        """A short word for tables and metric names, such as ``"random"``."""
        ...

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Choose one legal move on each of n boards.

        Returns:
            int64 [n]: action labels in the mover's view; :data:`RESIGN`; or
            :data:`~keisei_lightning.games.NO_MOVE` where the player has no answer (nothing is legal, its engine died):
            such a game is void.
        """
        ...


class RandomPlayer:
    """Plays uniformly among the legal moves.

    Args:
        num_actions: A, the number of action labels.
        seed: of its own random stream; no other stream is touched.
        name: for tables and metric names.
    """

    def __init__(self, num_actions: int, seed: int = 0, *, name: str = "random") -> None:
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        self._name = name

    @property
    def name(self) -> str:
        """A short word for tables and metric names."""
        return self._name

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """Choose uniformly; see :meth:`Player.choose`. Only the legal moves are looked at."""
        return self.draw(turn.legal)

    def draw(self, legal: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Draw a legal move of each row: uint8 [n, ceil(A / 8)] -> int64 [n], ``NO_MOVE`` where there is none."""
        rows, columns = np.nonzero(np.unpackbits(legal, axis=-1, count=self._num_actions))
        counts = np.bincount(rows, minlength=len(legal))
        first = np.cumsum(counts) - counts
        # A draw from [0, 1) is below 1, but its product with the count may round up to the count.
        nth = np.minimum((self._rng.random(len(legal)) * counts).astype(np.int64), np.maximum(counts - 1, 0))
        actions = np.full(len(legal), NO_MOVE, dtype=np.int64)
        some = counts > 0
        actions[some] = columns[(first + nth)[some]]
        return actions


def make_random(spec: GameSpec, *, seed: int, name: str) -> RandomPlayer:
    """Make a :class:`RandomPlayer` by its name (entry point)."""
    return RandomPlayer(spec.num_actions, seed, name=name)


class PolicyPlayer:
    """Plays what a network says: its most likely move, or a sample of its policy.

    The network's mode (training or evaluation) and the global random streams are left as they are; it runs where its
    parameters lie.

    Args:
        actor_critic: the network with its policy and value.
        greedy: the most likely move; otherwise a sample.
        temperature: the logits are divided by this before sampling, above 0; 1 is the policy itself, less is closer to
            greedy play.
        symmetries: of the game. Each position is shown to the network as it is and in each of these images, and what is
            played is the mean of the policies, brought back: a network that was trained with mirror images is not
            quite symmetric itself, and its errors differ (Silver et al. 2016, Mastering the game of Go with deep neural
            networks and tree search, Methods, "Symmetries": the explicit ensemble).
        seed: of its own random stream (samples only).
        name: for tables and metric names.

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

    def choose(self, turn: Turn) -> NDArray[np.int64]:
        """One forward pass over all boards, in all their images; see :meth:`Player.choose`."""
        with torch.inference_mode():
            observation = torch.from_numpy(np.ascontiguousarray(turn.observation)).to(self._device)
            legal = torch.from_numpy(np.ascontiguousarray(turn.legal)).to(self._device)
            policy = LegalCategorical(self._logits(observation, legal) / self._temperature, legal)
            action = policy.mode if self._greedy else policy.sample_with(self._generator)
        chosen: NDArray[np.int64] = action.cpu().numpy().astype(np.int64, copy=False)
        return chosen

    def _logits(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Float [n, A]: of the policy, or the logarithm of the images' mean policy (but for a constant)."""
        images = [observation, *(image.observation(observation) for image in self._images)]
        logits: Tensor = self._actor_critic(torch.cat(images) if self._images else observation)[0]
        if not self._images:
            return logits
        whole, *parts = logits.chunk(len(images))
        brought_back = [whole, *(part[:, image.new_action] for part, image in zip(parts, self._images, strict=True))]
        illegal = ~unpack_mask(legal, logits.shape[-1])
        log_probs = [part.float().masked_fill(illegal, -torch.inf).log_softmax(-1) for part in brought_back]
        return torch.stack(log_probs).logsumexp(0)
