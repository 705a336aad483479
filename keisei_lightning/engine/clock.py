"""How long a search takes: the limits that it was given, the time that it takes of them, and its end.

A move's time begins when the command is read. Of it are kept: ``delay_s`` for the way of the answer to the clock (at
most half of the time), and as long as the slowest of the last steps took, since a search can only end between two
of them (a single slow one counts for at most half of the time). So nothing is lost on a machine that is as busy as it
has just been; and where there is no time for one step, the policy plays alone.

==================== =================================================================================================
given                taken
==================== =================================================================================================
``movetime``         it
byoyomi alone        it
time, increment      a 40th of the time, the increment, and byoyomi; never more than time and byoyomi. It ends sooner
                     once no other move can still be tried as often as the best one
==================== =================================================================================================
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from keisei_lightning.play import Analysis

__all__ = ["Limits", "StepTimes", "Task"]

_MOVES_LEFT: Final = 40  # that the time on the clock must last for
_MOST_DELAY: Final = 0.5  # of a move's time
_MOST_STEP: Final = 0.5  # likewise
_STEPS: Final = 200
_FADING: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a search was given.

    Attributes:
        nodes: positions to look at; None: no such limit.
        move_time_s: seconds for this move; None: as the clocks say.
        clock_s: seconds on the clocks of seat 0 and 1; None: there are none.
        increment_s: seconds that a move adds to each.
        byoyomi_s: seconds for each move once a clock is at 0.
        until_stopped: it goes on until it is stopped.
        pondering: likewise, until the expected move has been played.
    """

    nodes: int | None = None
    move_time_s: float | None = None
    clock_s: tuple[float, float] | None = None
    increment_s: tuple[float, float] = (0.0, 0.0)
    byoyomi_s: float = 0.0
    until_stopped: bool = False
    pondering: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether time ends the search."""
        return self.move_time_s is not None or self.clock_s is not None or self.byoyomi_s > 0

    def seconds(self, seat: int) -> float | None:
        """Seconds to take for a move, of which nothing is kept back yet; None: time does not matter."""
        if not self.is_timed:
            return None
        if self.move_time_s is not None:
            return max(self.move_time_s, 0.0)
        left, increment = (self.clock_s or (0.0, 0.0))[seat], self.increment_s[seat]
        # Whether the increment is on the clock already is not the same everywhere: only a clock at 0 counts on it.
        most = max(left, 0.0) + self.byoyomi_s or increment
        return min(max(left, 0.0) / _MOVES_LEFT + increment + self.byoyomi_s, most)


class StepTimes:
    """How long the last steps of searches took."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=_STEPS)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._steps.append(seconds)

    def forget(self, kept: int) -> None:
        """Forget all but the last ones."""
        self._steps = deque(list(self._steps)[-kept:], maxlen=_STEPS)

    def fade(self) -> None:
        """Forget the first of them, as no step was made; else it would be kept in mind for ever."""
        for _ in range(min(len(self._steps), _FADING)):
            self._steps.popleft()

    def expected_s(self, most_s: float) -> float:
        """Seconds to keep for the next one: those of the slowest; of a single slow one at most so many.

        Args:
            most_s: no more than this, unless most steps take longer.
        """
        if not self._steps:
            return 0.0
        return max(min(max(self._steps), most_s), median(self._steps))


class Task:
    """One search that was asked for. :meth:`stop` and :meth:`ponder_hit` may come from any thread, at any time.

    Args:
        limits: what it was given.
        delay_s: seconds for the way of the answer.
        steps: of this search and those before.
        clock: seconds.
    """

    def __init__(self, limits: Limits, *, delay_s: float, steps: StepTimes, clock: Callable[[], float]) -> None:
        self.limits, self._delay_s, self._steps, self._clock = limits, delay_s, steps, clock
        self._start_s = self._step_start_s = clock()
        self._time_s: float | None = None
        self._released = threading.Event()
        if not (limits.until_stopped or limits.pondering):
            self._released.set()
        self._stopped = False
        self.is_done = False
        """Whether it has been answered."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was asked for, or since the expected move was played."""
        return self._clock() - self._start_s

    @property
    def is_open_ended(self) -> bool:
        """Whether only a command ends it."""
        return not self._released.is_set()

    def stop(self) -> None:
        """End it after the step that is under way."""
        self._stopped = True
        self._released.set()

    def ponder_hit(self) -> None:
        """The expected move has been played: its time begins."""
        self._start_s = self._clock()
        self._released.set()

    def begin(self, seat: int) -> None:
        """The search begins.

        Args:
            seat: to move, 0 or 1.
        """
        self._step_start_s = self._clock()
        self._time_s = self.limits.seconds(seat)

    def goes_on(self) -> bool:
        """Whether another step is to be taken; to be asked after each."""
        now = self._clock()
        self._steps.add(now - self._step_start_s)
        self._step_start_s = now
        return not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it is stopped, or its time is up."""
        return self._stopped or not (self.is_open_ended or self.time_left_s > 0)

    @property
    def time_left_s(self) -> float:
        """Seconds within which the next step may begin; infinite where time does not matter."""
        if self._time_s is None:
            return float("inf")
        delay_s = min(self._delay_s, _MOST_DELAY * self._time_s)
        return self._time_s - delay_s - self._steps.expected_s(_MOST_STEP * self._time_s) - self.elapsed_s

    def is_decided(self, analysis: Analysis) -> bool:
        """Whether the time left, which is worth something later, cannot change the move (for a move tried most)."""
        if self.limits.clock_s is None or self.limits.move_time_s is not None or self.is_open_ended:
            return False
        others = max((move.visits for move in analysis.moves[1:]), default=0)
        more = analysis.visits / max(analysis.elapsed_s, 1e-9) * self.time_left_s
        return analysis.moves[0].visits - others > more

    def wait_for_release(self) -> None:
        """Wait until an answer may be given."""
        self._released.wait()
