"""Full requests of one group of games on an accelerator: one transfer each way, and no wait before the result.

A full request is the usual one: every worker has requested moves for all its games. It lies in the mailbox in one run
of bytes, always in the same place, and so does its result
(:class:`~keisei_lightning.parallel.memory.mailbox_layout.GroupBlock`). So the device's memory for it is allocated once,
and on a CUDA device the whole of unpacking, forward pass and sampling is captured once as a CUDA graph, which launches
hundreds of kernels by one call.

Every other request (a worker is missing, only values are wanted, snapshots are to move) is served by the ordinary
server.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from keisei_lightning.models.transfers import Fetch, Lane, host_buffer
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock
from keisei_lightning.parallel.policy.acting import LocalPolicyServer
from keisei_lightning.parallel.policy.inference_requests import (
    InferenceRequest,
    InferenceResult,
    PendingResult,
    PolicyServer,
)

__all__ = ["BatchedPolicyServer"]

_WARM_UP_PASSES = 3  # until libraries have chosen their algorithms and made their workspaces

_log = logging.getLogger(__name__)


class BatchedPolicyServer(PolicyServer):
    """Serves one group's requests on a device.

    Args:
        learner: serves full requests, by the learner's policy.
        fallback: serves every other request, from the same random stream.
        block: where full requests and their results lie.
        lane: of the device; groups whose requests are to overlap have one each.
        is_pinned: the block's memory is pinned; else transfers go through a staging buffer that is.
        capture: capture a CUDA graph now (on a CUDA device, and if the policy is capturable).
    """

    def __init__(
        self,
        learner: LocalPolicyServer,
        fallback: PolicyServer,
        block: GroupBlock,
        lane: Lane,
        *,
        is_pinned: bool,
        capture: bool,
    ) -> None:
        self._learner, self._fallback, self._block, self._lane = learner, fallback, block, lane
        self._request, (self._observation, self._legal) = _on_device(
            block.request, [block.observation, block.legal], lane.device
        )
        self._response, self._results = _on_device(
            block.response, [block.action, block.log_prob, block.value], lane.device
        )
        self._from_host, self._to_host = torch.from_numpy(block.request), torch.from_numpy(block.response)
        self._staging: tuple[Tensor, Tensor] | None = None
        if not is_pinned and lane.stream is not None:
            request, response = (len(run) for run in (block.request, block.response))
            self._staging = host_buffer(request, lane.device)[0], host_buffer(response, lane.device)[0]
        lane.catch_up()
        self._graph: torch.cuda.CUDAGraph | None = None
        if capture and lane.stream is not None and learner.is_capturable:
            self._capture(lane.stream)

    @property
    def is_captured(self) -> bool:
        """Whether full requests replay a CUDA graph."""
        return self._graph is not None

    def _capture(self, stream: torch.cuda.Stream) -> None:
        try:
            with self._lane.entered():
                for _ in range(_WARM_UP_PASSES):
                    self._evaluate()
            graph = torch.cuda.CUDAGraph()
            # Otherwise each replay would sample the same moves; registered, it follows manual_seed() as a call would.
            graph.register_generator_state(self._learner.generator)
            with torch.cuda.graph(graph, stream=stream):
                self._evaluate()
        except RuntimeError as error:  # a user's policy may wait for the device, which cannot be captured
            _log.warning("no CUDA graph of the policy (it is run step by step): %s", error)
            return
        self._graph = graph

    @torch.inference_mode()
    def _evaluate(self) -> None:
        """Evaluate the request's memory on the device into the results' memory there."""
        for place, result in zip(self._results, self._learner.evaluate(self._observation, self._legal), strict=True):
            place.copy_(result)

    @override
    def begin_rollout(self, seed: int) -> None:
        self._fallback.begin_rollout(seed)

    @override
    def infer(self, request: InferenceRequest) -> InferenceResult:
        return self.submit(request).result()

    @override
    def submit(self, request: InferenceRequest) -> PendingResult:
        with self._lane.entered():
            if not self._is_full(request):
                return self._fallback.submit(request)
            source, target = self._from_host, self._to_host
            if self._staging is not None:
                source, target = self._staging[0].copy_(source), self._staging[1]
            self._request.copy_(source, non_blocking=self._lane.stream is not None)
            if self._graph is None:
                self._evaluate()
            else:
                self._graph.replay()
            return _BlockResult(self._block, Fetch(self._response, target), self._staging and self._staging[1])

    def _is_full(self, request: InferenceRequest) -> bool:
        """Whether the request is the block: no worker is missing, and the learner's policy is to move everywhere."""
        return (
            request.legal is not None
            and request.to_move is None
            and request.observation.shape == self._block.observation.shape
            and request.observation.ctypes.data == self._block.observation.ctypes.data
        )


class _BlockResult(PendingResult):
    """The results of a full request, whose transfer to the block is in progress.

    Args:
        block: receives the results.
        fetch: the transfer.
        staging: target of the transfer; None: the block itself.
    """

    def __init__(self, block: GroupBlock, fetch: Fetch, staging: Tensor | None) -> None:
        self._block, self._fetch, self._staging = block, fetch, staging

    @override
    def is_done(self) -> bool:
        return self._fetch.is_done()

    @override
    def result(self) -> InferenceResult:
        self._fetch.wait()
        if self._staging is not None:
            self._block.response[:] = self._staging.numpy()
        return InferenceResult(self._block.action, self._block.log_prob, self._block.value)


def _on_device(
    run: NDArray[Any], columns: list[NDArray[Any]], device: torch.device
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Memory on a device for a run of bytes, and the columns in it."""
    memory, views = torch.zeros(len(run), dtype=torch.uint8, device=device), []
    for column in columns:
        start, like = column.ctypes.data - run.ctypes.data, torch.from_numpy(column[:0])
        views.append(memory[start : start + column.nbytes].view(like.dtype).view(column.shape))
    return memory, tuple(views)
