"""Full requests of one group of games on an accelerator: one transfer each way, and nobody waits before the result.

A full request is the usual one: every worker has asked for moves of all its games. It lies in the mailbox in one piece,
always in the same place, and so does its result (:class:`~keisei_lightning.parallel.memory.mailbox_layout.GroupBlock`).
So the device's memory for it is made once, and on a CUDA device the whole of unpacking, forward pass and sampling is
recorded as a CUDA graph once, which starts hundreds of kernels by one call.

Every other request (a worker is missing, values alone, snapshots to move) is answered by the ordinary source of moves.
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
from keisei_lightning.parallel.policy.acting import PolicyMoves
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult, Pending, PolicyServer

__all__ = ["BatchedMoves"]

_WARM_UP_PASSES = 3  # until libraries have chosen their algorithms and made their workspaces

_log = logging.getLogger(__name__)


class BatchedMoves(PolicyServer):
    """Answers one group's requests on a device.

    Args:
        learner: the learner's policy, for full requests.
        others: answers every other request, from the same random stream.
        block: where full requests and their results lie.
        lane: of the device; groups whose requests are to overlap have one each.
        is_pinned: the block's memory is pinned; else transfers go through a staging buffer that is.
        record: record a CUDA graph now (on a CUDA device, and if the policy can be recorded).
    """

    def __init__(
        self,
        learner: PolicyMoves,
        others: PolicyServer,
        block: GroupBlock,
        lane: Lane,
        *,
        is_pinned: bool,
        record: bool,
    ) -> None:
        self._learner, self._others, self._block, self._lane = learner, others, block, lane
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
        if record and lane.stream is not None and learner.can_be_recorded:
            self._record(lane.stream)

    @property
    def is_recorded(self) -> bool:
        """Whether full requests replay a CUDA graph."""
        return self._graph is not None

    def _record(self, stream: torch.cuda.Stream) -> None:
        try:
            with self._lane.entered():
                for _ in range(_WARM_UP_PASSES):
                    self._evaluate()
            graph = torch.cuda.CUDAGraph()
            # Else the graph would draw the same moves for ever; so it follows manual_seed() as a call would.
            graph.register_generator_state(self._learner.generator)
            with torch.cuda.graph(graph, stream=stream):
                self._evaluate()
        except RuntimeError as error:  # a policy of a user's own may wait for the device, which cannot be recorded
            _log.warning("no CUDA graph of the policy (it is run step by step): %s", error)
            return
        self._graph = graph

    @torch.inference_mode()
    def _evaluate(self) -> None:
        """From the request's place on the device to the results' place there."""
        for place, result in zip(self._results, self._learner.evaluate(self._observation, self._legal), strict=True):
            place.copy_(result)

    @override
    def begin_rollout(self, seed: int) -> None:
        self._others.begin_rollout(seed)

    @override
    def answer(self, question: InferenceRequest) -> InferenceResult:
        return self.submit(question).result()

    @override
    def submit(self, question: InferenceRequest) -> Pending:
        with self._lane.entered():
            if not self._is_full(question):
                return self._others.submit(question)
            source, target = self._from_host, self._to_host
            if self._staging is not None:
                source, target = self._staging[0].copy_(source), self._staging[1]
            self._request.copy_(source, non_blocking=self._lane.stream is not None)
            if self._graph is None:
                self._evaluate()
            else:
                self._graph.replay()
            return _BlockAnswer(self._block, Fetch(self._response, target), self._staging and self._staging[1])

    def _is_full(self, question: InferenceRequest) -> bool:
        """Whether it is the block: nobody is missing, and the learner's policy is to move everywhere."""
        return (
            question.legal is not None
            and question.to_move is None
            and question.observation.shape == self._block.observation.shape
            and question.observation.ctypes.data == self._block.observation.ctypes.data
        )


class _BlockAnswer(Pending):
    """The results of a full request, on their way to the block.

    Args:
        block: where they are wanted.
        fetch: the transfer.
        staging: where the transfer brings them; None: to the block itself.
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
    """Memory on a device like a run of bytes here, and the columns in it."""
    memory, views = torch.zeros(len(run), dtype=torch.uint8, device=device), []
    for column in columns:
        start, like = column.ctypes.data - run.ctypes.data, torch.from_numpy(column[:0])
        views.append(memory[start : start + column.nbytes].view(like.dtype).view(column.shape))
    return memory, tuple(views)
