"""The learner's network, compiled by ``torch.compile`` for the duration of a fit."""

from __future__ import annotations

import logging
import time

import torch

from keisei_lightning.models import ActorCritic
from keisei_lightning.models.compiling import Evaluator

__all__ = ["CompiledEvaluator"]

log = logging.getLogger(__name__)


class CompiledEvaluator:
    """Evaluates positions by a compiled network, and logs what compiling took.

    It is a function and no module, which would have weights to save. It takes any number of positions: minibatches
    differ by a ply.

    Args:
        policy: the network; its first pass compiles it.
        mode: of ``torch.compile``.

    Attributes:
        evaluate: observations to logits, and state values or log-probabilities of win, draw and loss.
    """

    def __init__(self, policy: ActorCritic, mode: str) -> None:
        eager = policy.evaluate_outcomes if policy.predicts_outcomes else policy.forward
        self.evaluate: Evaluator = torch.compile(eager, mode=mode, dynamic=True)
        self._mode = mode
        self._started: float | None = None
        self._is_timed = False

    def start_minibatch(self) -> None:
        """Take the time, if this is the first minibatch."""
        if self._started is None:
            self._started = time.perf_counter()

    def end_minibatch(self) -> None:
        """Log the duration of the first minibatch."""
        if self._started is not None and not self._is_timed:
            self._is_timed = True
            seconds = time.perf_counter() - self._started
            log.info("network compiled (%s): the first minibatch took %.1f s", self._mode, seconds)
