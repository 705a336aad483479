"""``mode="central"``: workers that only play moves, and a process that evaluates positions for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import override

from keisei_lightning.parallel.backend import WorkerInputs
from keisei_lightning.parallel.central.inference import InferenceBoot, run_inference
from keisei_lightning.parallel.central.mailbox import Mailbox
from keisei_lightning.parallel.central.worker import CentralBoot, run_central_worker, split_games
from keisei_lightning.parallel.process_backend import ProcessBackend
from keisei_lightning.parallel.supervision.messages import BeginRound, Play, RolloutHeader, WorkerGone
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerExit

__all__ = ["CentralBackend"]


class CentralBackend(ProcessBackend):
    """Workers and the inference process, under one supervisor.

    Args:
        inputs: what the workers receive.
        restart_policy: timeouts and budget, of the inference process too.
        start_method: "forkserver", "spawn" or None for the best that this system offers.
        num_groups: groups of games in each worker.
        in_rounds: all grants between two waits make a round, whose workers begin together (``schedule="sync"``).
    """

    def __init__(
        self,
        inputs: WorkerInputs,
        *,
        restart_policy: RestartPolicy,
        start_method: str | None = None,
        num_groups: int,
        in_rounds: bool,
    ) -> None:
        super().__init__(
            inputs, restart_policy=restart_policy, start_method=start_method, helpers=["the inference process"]
        )
        layout, self._spec = inputs.slots.layout, inputs.game(1).spec
        self._inference_id, self._in_rounds = layout.num_workers, in_rounds
        self._round: list[tuple[int, Play]] = []
        group_games = split_games(layout.num_games, num_groups)
        self._batch_shape = (layout.num_workers * max(group_games), *self._spec.observation_shape)
        self._mailbox = Mailbox(self._spec, num_workers=layout.num_workers, group_games=group_games)
        self._game = inputs.pickled(inputs.game)
        self._policy = inputs.pickled(inputs.policy_structure())

    @override
    def _boot(self, worker_id: int, incarnation: int) -> tuple[Callable[..., None], Any]:
        inputs = self._inputs
        if worker_id == self._inference_id:
            return run_inference, InferenceBoot(
                process_id=worker_id,
                num_actions=self._spec.num_actions,
                batch_shape=self._batch_shape,
                policy=self._policy,
                options=inputs.options,
                weights=inputs.weights,
                open_mailbox=self._mailbox.server_factory(1 + incarnation),
                heartbeats=self._heartbeats.buffer,
                waits_for_round=self._in_rounds and incarnation == 0,
                excludes_silent_workers=not self._in_rounds,
                opponents=inputs.opponents,
            )
        return run_central_worker, CentralBoot(
            worker_id=worker_id,
            incarnation=incarnation,
            game=self._game,
            options=inputs.options,
            slots=inputs.slots,
            open_mailbox=self._mailbox.client_factory(worker_id, incarnation),
            heartbeats=self._heartbeats.buffer,
            seating=None if inputs.opponents is None else inputs.opponents.seating,
        )

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        if self._in_rounds:
            self._round.append((worker_id, play))
        else:
            super().grant(worker_id, play)

    @override
    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if self._round:
            self._announce(worker_id for worker_id, _ in self._round)
            for worker_id, play in self._round:
                super().grant(worker_id, play)
            self._round.clear()
        return super().wait(timeout_s)

    def _announce(self, workers: Iterable[int]) -> None:
        self._supervisor.send(self._inference_id, BeginRound(workers=tuple(workers)))

    @override
    def _on_started(self, worker_id: int) -> None:
        if worker_id != self._inference_id:
            super()._on_started(worker_id)
        elif self._in_rounds and self._supervisor.health()[worker_id].incarnation == 0:
            # The first incarnation waits for this message. A later one does not, and lets every worker begin that asks
            # to: a worker may have ended its rollout while its header is still on the way.
            self._announce(worker_id for worker_id, plays in enumerate(self._outstanding) if plays)

    @override
    def _on_exited(self, exit: WorkerExit) -> None:
        if exit.worker_id != self._inference_id:
            super()._on_exited(exit)
            gone = WorkerGone(worker_id=exit.worker_id, incarnation=exit.incarnation)
            self._supervisor.send(self._inference_id, gone)

    @override
    def shutdown(self, timeout_s: float) -> None:
        super().shutdown(timeout_s)
        self._mailbox.close()
