"""Requests that a rollout sends to the policies, and the interface of whatever serves them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

__all__ = ["LEARNER", "CompletedResult", "InferenceRequest", "InferenceResult", "PendingResult", "PolicyServer"]

LEARNER = -1
"""Stands for the learner's policy where a snapshot's version is expected."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """Positions to evaluate.

    Attributes:
        observation: uint8 [B, *observation_shape].
        legal: packed uint8 [B, ceil(A / 8)]; None: only the state values are wanted, of the learner's policy.
        to_move: int64 [B], the version of the snapshot that is to move, or ``LEARNER``; None: the learner everywhere.
    """

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8] | None = None
    to_move: NDArray[np.int64] | None = None


class InferenceResult(NamedTuple):
    """The policies' output for one request.

    Attributes:
        action: int64 [B]; empty where only the values were requested.
        log_prob: float32 [B], of the actions; likewise.
        value: float32 [B, 1], in the mover's view.
    """

    action: NDArray[np.int64]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]


class PendingResult(Protocol):
    """A result that may still be in progress: a device computes it while this process does other work."""

    def is_done(self) -> bool:
        """Whether the result is complete; does not wait."""
        ...

    def result(self) -> InferenceResult:
        """Wait for the result, and return it."""
        ...


class CompletedResult(PendingResult):
    """A result that is complete already.

    Args:
        result: the result.
    """

    def __init__(self, result: InferenceResult) -> None:
        self._result = result

    @override
    def is_done(self) -> bool:
        return True

    @override
    def result(self) -> InferenceResult:
        return self._result


class PolicyServer(Protocol):
    """Serves inference requests: a policy (and the snapshots beside it), with a random stream for each rollout."""

    def begin_rollout(self, seed: int) -> None:
        """Begin the random stream of a rollout."""
        ...

    def infer(self, request: InferenceRequest) -> InferenceResult:
        """Serve one request, and wait for its result."""
        ...

    def submit(self, request: InferenceRequest) -> PendingResult:
        """Begin to serve one request. The next one may be submitted once this one's result was taken.

        The request's arrays must not change until then.
        """
        return CompletedResult(self.infer(request))
