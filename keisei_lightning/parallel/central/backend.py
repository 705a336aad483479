"""``mode="central"``: workers that only play moves, and a process that judges positions for all of them."""

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
        work: what they play.
        restart_policy: timeouts and budget, of that process too.
        start_method: "forkserver", "spawn" or None for the best there is.
        num_groups: of games in each worker.
        together: workers are granted their slots right before a wait (``schedule="sync"``): they begin together.
    """

    def __init__(
        self,
        work: WorkerInputs,
        *,
        restart_policy: RestartPolicy,
        start_method: str | None = None,
        num_groups: int,
        together: bool,
    ) -> None:
        super().__init__(
            work, restart_policy=restart_policy, start_method=start_method, helpers=["the inference process"]
        )
        layout, self._spec = work.slots.layout, work.game(1).spec
        self._inference, self._together = layout.num_workers, together
        self._round: list[tuple[int, Play]] = []
        group_games = split_games(layout.num_games, num_groups)
        self._batch_shape = (layout.num_workers * max(group_games), *self._spec.observation_shape)
        self._mailbox = Mailbox(self._spec, num_workers=layout.num_workers, group_games=group_games)
        self._game = work.pickled(work.game)
        self._policy = work.pickled(work.policy_structure())

    @override
    def _boot(self, worker_id: int, incarnation: int) -> tuple[Callable[..., None], Any]:
        work = self._work
        if worker_id == self._inference:
            return run_inference, InferenceBoot(
                process_id=worker_id,
                num_actions=self._spec.num_actions,
                batch_shape=self._batch_shape,
                policy=self._policy,
                options=work.options,
                weights=work.weights,
                open_mailbox=self._mailbox.inference_end(life=1 + incarnation),
                signs=self._signs.buffer,
                waits_for_round=self._together and incarnation == 0,
                leaves_out_the_silent=not self._together,
                opponents=work.opponents,
            )
        return run_central_worker, CentralBoot(
            worker_id=worker_id,
            incarnation=incarnation,
            game=self._game,
            options=work.options,
            slots=work.slots,
            open_mailbox=self._mailbox.worker_end(worker_id, incarnation),
            signs=self._signs.buffer,
            seating=None if work.opponents is None else work.opponents.seating,
        )

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        if self._together:
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
        self._supervisor.send(self._inference, BeginRound(workers=tuple(workers)))

    @override
    def _on_started(self, worker_id: int) -> None:
        if worker_id != self._inference:
            super()._on_started(worker_id)
        elif self._together and self._supervisor.health()[worker_id].incarnation == 0:
            # It has waited for this. A later life does not: it begins whoever asks, since a worker may have ended its
            # rollout while only the header is still on the way.
            self._announce(worker_id for worker_id, plays in enumerate(self._outstanding) if plays)

    @override
    def _on_exited(self, exit: WorkerExit) -> None:
        if exit.worker_id != self._inference:
            super()._on_exited(exit)
            gone = WorkerGone(worker_id=exit.worker_id, incarnation=exit.incarnation)
            self._supervisor.send(self._inference, gone)

    @override
    def shutdown(self, timeout_s: float) -> None:
        super().shutdown(timeout_s)
        self._mailbox.close()
