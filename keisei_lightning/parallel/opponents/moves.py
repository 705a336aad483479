"""The policies' side of an opponent pool: the learner's policy answers for its boards, snapshots for theirs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from keisei_lightning.errors import WeightsError
from keisei_lightning.models.transfers import to_device
from keisei_lightning.parallel.memory.weights import bind_weights
from keisei_lightning.parallel.opponents.pool import SnapshotMemory
from keisei_lightning.parallel.policy.acting import PolicyMoves, TensorDictActing, acting_policy
from keisei_lightning.parallel.policy.inference_requests import (
    LEARNER,
    InferenceRequest,
    InferenceResult,
    Pending,
    PolicyServer,
)

__all__ = ["PooledMoves"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    version: int
    moves: PolicyMoves
    own_stream: TensorDictActing | None  # where it does not draw from the common one


class PooledMoves(PolicyServer):
    """Answers by the learner's policy and by snapshots, whoever is to move.

    Args:
        learner: the learner's policy; snapshots sample from its random stream.
        memory: where snapshots lie.
        structure: of the policy, without its weights.
        num_actions: A.
        device: where the policies are to lie.
    """

    def __init__(
        self,
        learner: PolicyMoves,
        memory: SnapshotMemory,
        *,
        structure: nn.Module,
        num_actions: int,
        device: torch.device,
    ) -> None:
        self._learner, self._structure, self._device, self._num_actions = learner, structure, device, num_actions
        self._layout, self._versions, self._buffers = memory.layout, memory.versions.array(), memory.buffers()
        self._loaded: dict[int, _Loaded] = {}  # by buffer
        self._seed = 0

    @override
    def begin_rollout(self, seed: int) -> None:
        self._seed = seed
        self._learner.begin_rollout(seed)
        for loaded in self._loaded.values():
            self._begin_stream(loaded)

    def _begin_stream(self, loaded: _Loaded) -> None:
        if loaded.own_stream is not None:
            # By version and not by buffer: a snapshot may lie elsewhere after a resume.
            stream = np.random.SeedSequence(self._seed, spawn_key=(loaded.version,))
            loaded.own_stream.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> 1))

    @override
    def answer(self, question: InferenceRequest) -> InferenceResult:
        return self.submit(question).result()

    @override
    def submit(self, question: InferenceRequest) -> Pending:
        if question.to_move is None or question.legal is None:
            return self._learner.submit(question)
        # The learner first (it is -1), then by version for the same reason: all draw from one random stream. What a
        # snapshot thinks of its own position is stored and cancels out of the advantages (rl/advantages.py).
        rows, parts = [], []
        for version in np.unique(question.to_move).tolist():
            rows.append(np.flatnonzero(question.to_move == version))
            moves = self._learner if version == LEARNER else self._snapshot(version)
            part = InferenceRequest(question.observation[rows[-1]], question.legal[rows[-1]])
            parts.append(moves.evaluate_question(part))
        # In one transfer for all of them.
        columns = tuple(torch.cat(column) for column in zip(*parts, strict=True))
        return _Scattered(self._learner.hand_out(columns), np.concatenate(rows))

    def _snapshot(self, version: int) -> PolicyMoves:
        found = np.flatnonzero(self._versions == version)
        if not found.size:
            raise WeightsError(f"snapshots: version {version} was overwritten while games were played against it")
        buffer = int(found[0])
        loaded = self._loaded.get(buffer)
        if loaded is None or loaded.version != version:
            flat = self._buffers[buffer]
            there = to_device(flat, self._device)  # for the CPU the shared memory itself
            own = there[self._layout.parameter_bytes :].clone()  # a policy may write to its own buffers
            module = copy.deepcopy(self._structure)
            bind_weights(module, self._layout, there, own, buffers_from=self._layout.parameter_bytes)
            policy = acting_policy(module.eval(), num_actions=self._num_actions)
            loaded = _Loaded(
                version=version,
                moves=self._learner.beside(policy),
                own_stream=policy if isinstance(policy, TensorDictActing) else None,
            )
            self._loaded[buffer] = loaded
            self._begin_stream(loaded)
        return loaded.moves


class _Scattered(Pending):
    """Answers of several policies, one behind the other, brought to the rows that they are for.

    Args:
        pending: all of them.
        rows: int64 [B], the row of each.
    """

    def __init__(self, pending: Pending, rows: NDArray[np.int64]) -> None:
        self._pending, self._rows = pending, rows

    @override
    def is_done(self) -> bool:
        return self._pending.is_done()

    @override
    def result(self) -> InferenceResult:
        action, log_prob, value = self._pending.result()
        place = np.argsort(self._rows)
        return InferenceResult(action[place], log_prob[place], value[place])
