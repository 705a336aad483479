"""``mode="serial"``: the workers take turns in the learner's process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import override

from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.playing.policy_worker import PolicyWorker, make_policy_worker
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Play, RolloutHeader
from keisei_lightning.parallel.supervision.restarts import WorkerState

__all__ = ["SerialBackend"]


class SerialBackend(Backend):
    """Plays all workers' rollouts, one after another, in the learner's process: the same code gives the same bits.

    Args:
        inputs: what the workers receive.
    """

    def __init__(self, inputs: WorkerInputs) -> None:
        self.lost_rollouts = 0
        self._inputs = inputs
        self._workers: list[PolicyWorker] = []
        self._granted: deque[tuple[int, Play]] = deque()

    @override
    def start(self) -> None:
        inputs = self._inputs
        for worker_id in range(inputs.slots.layout.num_workers):
            self._workers.append(
                make_policy_worker(
                    worker_id=worker_id,
                    incarnation=0,
                    game=inputs.game,
                    policy=inputs.policy_structure(),
                    options=inputs.options,
                    slots=inputs.slots,
                    weights=inputs.weights,
                    opponents=inputs.opponents,
                )
            )
        if len(inputs.games_in_flight) == len(self._workers):
            for worker, state in zip(self._workers, inputs.games_in_flight, strict=True):
                worker.load_state_dict(state)

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        self._granted.append((worker_id, play))

    @override
    def games_in_flight(self) -> list[dict[str, Any]]:
        states = [worker.state_dict() for worker in self._workers]
        return [] if None in states else [state for state in states if state is not None]

    @override
    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if not self._granted:
            return []
        worker_id, play = self._granted[0]
        threads = torch.get_num_threads()
        torch.set_num_threads(self._inputs.options.num_threads)  # as in a worker: the sums are split the same way
        try:
            header = self._workers[worker_id].play(play)
        except BaseException:  # such as Ctrl-C: as if a worker had died, and its replacement had got the grant
            self.lost_rollouts += 1
            self._workers[worker_id].reset_games()
            raise
        finally:
            torch.set_num_threads(threads)
        self._granted.popleft()
        return [header]

    @override
    def reset_games(self, worker_ids: Sequence[int]) -> None:
        for worker_id in worker_ids:
            self._workers[worker_id].reset_games()

    @override
    def health(self) -> list[WorkerHealth]:
        return [
            WorkerHealth(
                worker_id=worker_id,
                name=f"worker {worker_id}",
                state=WorkerState.RUNNING if self._workers else WorkerState.DEAD,
                pid=os.getpid(),
                incarnation=0,
                restarts=0,
                last_sign_of_life_s=0.0,
            )
            for worker_id in range(self._inputs.slots.layout.num_workers)
        ]

    @override
    def shutdown(self, timeout_s: float) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        self._granted.clear()
