"""Serves requests by several policies: the learner's where the learner is to move, snapshots where they are."""

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
from keisei_lightning.parallel.opponents.memory import SnapshotMemory
from keisei_lightning.parallel.policy.acting import LocalPolicyServer, TensorDictActing, acting_policy
from keisei_lightning.parallel.policy.inference_requests import (
    LEARNER,
    InferenceRequest,
    InferenceResult,
    PendingResult,
    PolicyServer,
)

__all__ = ["PooledPolicyServer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    version: int
    server: LocalPolicyServer
    own_stream: TensorDictActing | None  # where it does not sample from the common one


class PooledPolicyServer(PolicyServer):
    """Serves requests by the learner's policy and by snapshots, each where it is to move.

    Args:
        learner: serves the learner's policy; snapshots sample from its random stream.
        memory: where snapshots lie.
        structure: of the policy, without its weights.
        num_actions: A.
        device: where the policies are to lie.
    """

    def __init__(
        self,
        learner: LocalPolicyServer,
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
    def infer(self, request: InferenceRequest) -> InferenceResult:
        return self.submit(request).result()

    @override
    def submit(self, request: InferenceRequest) -> PendingResult:
        if request.to_move is None or request.legal is None:
            return self._learner.submit(request)
        # The learner first (it is -1), then by version for the same reason: all sample from one random stream. A
        # snapshot's value of its own position is stored, and cancels out of the advantages (rl/advantages.py).
        rows, parts = [], []
        for version in np.unique(request.to_move).tolist():
            rows.append(np.flatnonzero(request.to_move == version))
            server = self._learner if version == LEARNER else self._snapshot(version)
            part = InferenceRequest(request.observation[rows[-1]], request.legal[rows[-1]])
            parts.append(server.evaluate_request(part))
        # One transfer for all of them.
        columns = tuple(torch.cat(column) for column in zip(*parts, strict=True))
        return _ScatteredResult(self._learner.fetch(columns), np.concatenate(rows))

    def _snapshot(self, version: int) -> LocalPolicyServer:
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
                server=self._learner.with_policy(policy),
                own_stream=policy if isinstance(policy, TensorDictActing) else None,
            )
            self._loaded[buffer] = loaded
            self._begin_stream(loaded)
        return loaded.server


class _ScatteredResult(PendingResult):
    """Results of several policies, concatenated, and then put into the rows that they belong to.

    Args:
        pending: the concatenated results.
        rows: int64 [B], the row of each of them.
    """

    def __init__(self, pending: PendingResult, rows: NDArray[np.int64]) -> None:
        self._pending, self._rows = pending, rows

    @override
    def is_done(self) -> bool:
        return self._pending.is_done()

    @override
    def result(self) -> InferenceResult:
        action, log_prob, value = self._pending.result()
        place = np.argsort(self._rows)
        return InferenceResult(action[place], log_prob[place], value[place])
