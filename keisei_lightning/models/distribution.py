"""A categorical distribution over the legal moves only."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from keisei_lightning.games.protocol import NO_MOVE
from keisei_lightning.models.bitmask import unpack_mask
from keisei_lightning.models.dense_rows import DenseRows
from keisei_lightning.models.sparse_rows import SparseRows
from keisei_lightning.models.transfers import to_device

__all__ = ["LegalCategorical"]


class _Rows(Protocol):
    """The arithmetic: R rows of A actions, on one device."""

    def sample(self, uniform: Tensor) -> Tensor: ...

    def log_prob(self, action: Tensor) -> Tensor: ...

    def entropy(self) -> Tensor: ...

    def mode(self) -> Tensor: ...


class LegalCategorical(Distribution):
    """Softmax of the legal logits of each row; illegal actions have probability zero and gradient zero.

    A row without any legal move (a finished game) is allowed: its sample and its mode are
    :data:`~keisei_lightning.games.protocol.NO_MOVE`, its entropy is 0 and so is its log-probability of every action.

    A row whose legal logits are no distribution (NaN, plus infinity, or minus infinity alone) has no move either: its
    sample and its mode are ``NO_MOVE``, and its log-probabilities are not finite. The caller refuses ``NO_MOVE`` where
    moves are legal; a check here would wait for the accelerator. Minus infinity beside finite logits is probability
    zero.

    Args:
        logits: float [*batch, A]; computed in float32 whatever their dtype.
        action_mask: which actions are legal: bool [*batch, A], or uint8 [*batch, ceil(A / 8)] with one bit for each
            action in ``np.packbits`` order.
        dense: compute in tensors of fixed shape (:class:`~keisei_lightning.models.dense_rows.DenseRows`) instead of the
            legal moves alone (:class:`~keisei_lightning.models.sparse_rows.SparseRows`); None: on every device but the
            CPU. Both give the same numbers but for rounding.

    Raises:
        ValueError: the shape or dtype of the mask does not fit the logits.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_enumerate_support = False

    def __init__(self, logits: Tensor, action_mask: Tensor, *, dense: bool | None = None) -> None:
        self._num_actions = logits.shape[-1]
        mask = action_mask if action_mask.dtype == torch.bool else unpack_mask(action_mask, self._num_actions)
        if mask.shape != logits.shape:
            raise ValueError(f"action_mask {list(mask.shape)} does not fit logits {list(logits.shape)}")
        super().__init__(logits.shape[:-1], validate_args=False)
        self._device, self._num_rows = logits.device, math.prod(self.batch_shape)
        kind = DenseRows if (self._device.type != "cpu" if dense is None else dense) else SparseRows
        shape = (self._num_rows, self._num_actions)
        self._rows: _Rows = kind(logits.reshape(shape), mask.reshape(shape))

    @property
    def support(self) -> constraints.Constraint:
        """Integers from :data:`~keisei_lightning.games.protocol.NO_MOVE` to A - 1."""
        return constraints.integer_interval(NO_MOVE, self._num_actions - 1)

    def sample_with(
        self, generator: torch.Generator | None = None, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()
    ) -> Tensor:
        """Draw one action for each row, from one uniform number for each.

        The draw inverts the cumulative distribution in float64, so a row's action depends on its own logits and its own
        uniform number alone (but for rounding at 1e-13).

        Args:
            generator: source of the uniform numbers, best on the logits' device (those of another device are
                transferred); the device's default one where None.
            sample_shape: shape of independent draws for each row.

        Returns:
            int64 [*sample_shape, *batch].
        """
        source = self._device if generator is None else generator.device
        shape = (*sample_shape, self._num_rows)
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=source)
        if source.type != self._device.type:
            uniform = to_device(uniform, self._device)
        return self._rows.sample(uniform).view(*sample_shape, *self.batch_shape)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw actions with the default generator: int64 [*sample_shape, *batch]."""
        return self.sample_with(None, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability of actions.

        Args:
            value: int64 [*sample_shape, *batch].

        Returns:
            float32 [*sample_shape, *batch]; minus infinity, with gradient zero, for an illegal action.
        """
        draws = value.shape[: value.ndim - len(self.batch_shape)]
        return self._rows.log_prob(value.reshape(*draws, self._num_rows)).view(value.shape)

    def entropy(self) -> Tensor:
        """Entropy of each row in nats: float32 [*batch]."""
        return self._rows.entropy().view(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """int64 [*batch]: the most probable action, the lowest label among equals."""
        return self._rows.mode().view(self.batch_shape)

    @property
    def deterministic_sample(self) -> Tensor:
        """The mode; the name by which TorchRL asks for it."""
        return self.mode
