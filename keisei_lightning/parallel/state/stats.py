"""What was collected: exact totals of the whole run, and rates over a sliding window."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from keisei_lightning.parallel.state.figures import Figure, values_of
from keisei_lightning.parallel.supervision.messages import RolloutHeader

__all__ = ["CollectionStats"]

_SHARES = {"first_win_share": "first", "second_win_share": "second", "draw_share": "draw"}


@dataclass(frozen=True, slots=True)
class _Delivery:
    time: float
    plies: int
    games: int
    game_plies: int
    lags: tuple[int, ...]
    learner_wait_s: float
    worker_wait_s: float
    results: Counter[str]
    outcomes: Counter[str]


@dataclass(slots=True)
class CollectionStats:
    """Totals of the run, and shares and rates over the last ``window_s`` seconds (at least the last batch).

    Attributes:
        window_s: length of the window.
        clock: seconds; injected by tests.
        plies: delivered so far.
        games: games finished in delivered rollouts.
        publish_s: duration of the last publish.
    """

    window_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    plies: int = 0
    games: int = 0
    publish_s: float = 0.0
    _window: deque[_Delivery] = field(default_factory=deque)
    _window_start: float | None = None

    def start(self) -> None:
        """Start the clock of the first rate."""
        if self._window_start is None:
            self._window_start = self.clock()

    def forget_window(self) -> None:
        """Restart the rates at the next :meth:`start`: the time between, in which no game is played, does not count."""
        self._window.clear()
        self._window_start = None

    def add(self, headers: Iterable[RolloutHeader], *, latest_version: int, learner_wait_s: float) -> None:
        """Count one delivered batch."""
        headers = list(headers)
        results: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        for header in headers:
            results.update(header.results)
            outcomes.update(header.outcomes)
        delivery = _Delivery(
            time=self.clock(),
            plies=sum(header.plies for header in headers),
            games=sum(header.games for header in headers),
            game_plies=sum(header.game_plies for header in headers),
            lags=tuple(latest_version - header.policy_version for header in headers),
            learner_wait_s=learner_wait_s,
            worker_wait_s=sum(header.wait_s for header in headers) / max(len(headers), 1),
            results=results,
            outcomes=outcomes,
        )
        self.plies += delivery.plies
        self.games += delivery.games
        self._window.append(delivery)
        while len(self._window) > 1 and self._window[0].time < delivery.time - self.window_s:
            # A rate needs the time before its first batch: the end of the batch that left the window.
            self._window_start = self._window.popleft().time

    def figures(self) -> dict[str, Figure]:
        """The numbers by name; shares and means are of the window, left out (not NaN) before a game has finished."""
        window = self._window
        out = {
            "plies": Figure("sum", self.plies),
            "games": Figure("sum", self.games),
            "publish_ms": Figure("largest", self.publish_s * 1e3),
        }
        if not window:
            return out
        start = self._window_start if self._window_start is not None else window[0].time
        seconds = max(window[-1].time - start, 1e-9)
        lags = [lag for delivery in window for lag in delivery.lags]
        out |= {
            "plies_per_s": Figure("sum", sum(delivery.plies for delivery in window) / seconds),
            "games_per_s": Figure("sum", sum(delivery.games for delivery in window) / seconds),
            "policy_lag_mean": Figure("mean", sum(lags), max(len(lags), 1)),
            "policy_lag_max": Figure("largest", max(lags, default=0)),
            "learner_wait_s": Figure("mean", sum(delivery.learner_wait_s for delivery in window), len(window)),
            "worker_wait_s": Figure("mean", sum(delivery.worker_wait_s for delivery in window), len(window)),
        }
        if games := sum(delivery.games for delivery in window):
            results = sum((delivery.results for delivery in window), Counter())
            outcomes = sum((delivery.outcomes for delivery in window), Counter())
            out["game_length_mean"] = Figure("mean", sum(delivery.game_plies for delivery in window), games)
            out |= {
                name: Figure("mean", results[result], games, beside="game_length_mean")
                for name, result in _SHARES.items()
            }
            out |= {
                f"outcome/{name.replace(' ', '_')}": Figure("mean", count, games, beside="game_length_mean")
                for name, count in sorted(outcomes.items())
            }
        return out

    def summary(self) -> dict[str, float]:
        """The values of :meth:`figures`."""
        return values_of(self.figures())
