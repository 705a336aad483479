"""What a rollout asks, and who answers: a policy in this process or in another, and the snapshots it plays against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

__all__ = ["LEARNER", "InferenceRequest", "InferenceResult", "Pending", "PolicyServer", "Ready"]

LEARNER = -1
"""In place of a snapshot's version: the learner's policy."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a rollout wants to know of the policies.

    Attributes:
        observation: uint8 [B, *observation_shape].
        legal: packed uint8 [B, ceil(A / 8)]; None where only the state values are wanted, which the learner's policy
            gives.
        to_move: int64 [B], the version of the snapshot that is to move, or ``LEARNER``; None: the learner everywhere.
    """

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8] | None = None
    to_move: NDArray[np.int64] | None = None


class InferenceResult(NamedTuple):
    """What the policy says.

    Attributes:
        action: int64 [B]; empty where only the values were asked for.
        log_prob: float32 [B], of the actions; likewise.
        value: float32 [B, 1], in the mover's view.
    """

    action: NDArray[np.int64]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]


class Pending(Protocol):
    """An answer that is being worked out: by a device, say, while this process does something else."""

    def is_done(self) -> bool:
        """Whether the answer is there; does not wait."""
        ...

    def result(self) -> InferenceResult:
        """The answer; waits for it."""
        ...


class Ready(Pending):
    """An answer that is there.

    Args:
        answer: this one.
    """

    def __init__(self, answer: InferenceResult) -> None:
        self._answer = answer

    @override
    def is_done(self) -> bool:
        return True

    @override
    def result(self) -> InferenceResult:
        return self._answer


class PolicyServer(Protocol):
    """Who answers: a policy (and the snapshots beside it), with a random stream for each rollout."""

    def begin_rollout(self, seed: int) -> None:
        """Begin the random stream of a rollout."""
        ...

    def answer(self, question: InferenceRequest) -> InferenceResult:
        """InferenceResult one question."""
        ...

    def submit(self, question: InferenceRequest) -> Pending:
        """Begin to answer one question; the next one is submitted when this one's answer has been taken.

        The question's arrays must stay as they are until then.
        """
        return Ready(self.answer(question))
