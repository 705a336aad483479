"""What a rollout asks, and who answers: a policy in this process or in another, and the snapshots it plays against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.parallel.messages import Opponent

__all__ = ["Answer", "MoveSource", "OpponentSeats", "Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a rollout wants to know of the learner's policy.

    Attributes:
        observation: uint8 [B, *observation_shape].
        legal: packed uint8 [B, ceil(A / 8)]; None where only the state values are wanted.
    """

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8] | None = None


class Answer(NamedTuple):
    """What the policy says.

    Attributes:
        action: int64 [B]; empty where only the values were asked for.
        log_prob: float32 [B], of the actions; likewise.
        value: float32 [B, 1], in the mover's view.
    """

    action: NDArray[np.int64]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]


class MoveSource(Protocol):
    """Who answers: a policy, with a random stream for each rollout."""

    def begin_rollout(self, seed: int) -> None:
        """Begin the random stream of a rollout."""
        ...

    def answer(self, question: Question) -> Answer:
        """Answer one question."""
        ...


class OpponentSeats(Protocol):
    """Boards that meet snapshots (:class:`~keisei_lightning.parallel.opponents.OpponentBoards`)."""

    results: dict[int, tuple[int, int, int]]

    @property
    def in_use(self) -> tuple[int, ...]: ...  # noqa: D102
    def begin_rollout(self, opponent: Opponent | None, seed: int) -> None: ...  # noqa: D102
    def begin_games(self, indices: NDArray[np.int64]) -> None: ...  # noqa: D102
    def to_move(self, mover: NDArray[np.int8]) -> NDArray[np.bool_]: ...  # noqa: D102
    def parts(self, theirs: NDArray[np.bool_]) -> Iterator[tuple[MoveSource, NDArray[np.int64]]]: ...  # noqa: D102
    def count(self, index: int, *, reward: float, mover: int) -> None: ...  # noqa: D102
    def verify(self) -> None: ...  # noqa: D102
    def clear(self) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: Mapping[str, Any]) -> bool: ...  # noqa: D102
