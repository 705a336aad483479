"""Control of a collector's workers while they play: some may pause, all may begin new games, and show them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.session import Session
from keisei_lightning.parallel.supervision.messages import BoardView

__all__ = ["WorkerControl"]


class WorkerControl:
    """The part of a collector that controls single workers.

    Attributes:
        num_workers: W.
    """

    num_workers: int
    _session: Session | None
    _paused: frozenset[int]

    def pause_workers(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let workers (default: all) play no further rollouts; those they are playing are still delivered.

        A batch is then made of the other workers' rollouts alone.
        """
        self._set_paused(self._paused.union(range(self.num_workers) if worker_ids is None else worker_ids))

    def resume_workers(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let paused workers (default: all) play on."""
        self._set_paused(self._paused.difference(range(self.num_workers) if worker_ids is None else worker_ids))

    def _set_paused(self, worker_ids: frozenset[int]) -> None:
        self._paused = worker_ids
        if self._session is not None:
            self._session.intake.set_paused(worker_ids)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Context in which no worker begins a rollout."""
        running = [worker_id for worker_id in range(self.num_workers) if worker_id not in self._paused]
        self.pause_workers(running)
        try:
            yield
        finally:
            self.resume_workers(running)

    def reset_games(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let workers (default: all) begin all their games anew before their next rollout."""
        if self._session is not None:
            self._session.backend.reset_games(range(self.num_workers) if worker_ids is None else worker_ids)

    def draw_boards(self, num_boards: int) -> None:
        """Have the next rollouts bring pictures of so many games in progress, for :attr:`drawn_boards`.

        They are of as many workers as possible, always of the first boards, so that asking again and again shows the
        same games go on. A drawing costs the worker about a millisecond, and never more than half a percent of its
        time. Before the start it does nothing.

        Raises:
            ConfigError: the number is negative.
        """
        if num_boards < 0:
            raise ConfigError(f"num_boards={num_boards}: must be at least 0")
        if self._session is not None:
            self._session.intake.draw_boards(num_boards)

    @property
    def drawn_boards(self) -> dict[int, tuple[BoardView, ...]]:
        """The newest pictures of games in progress, by worker; empty before :meth:`draw_boards`."""
        return {} if self._session is None else dict(sorted(self._session.intake.boards.items()))
