"""Every exception that this package raises on purpose.

::

    KeiseiError
    ├── ConfigError                a value given by the user cannot work (exit code 2)
    │   └── UnsupportedGameError   the game is unknown, or of a kind that self-play cannot train
    ├── GameError                  a game broke its contract (found by ``check_game``), or a player its own
    │   └── IllegalActionError     an action that the rules do not allow
    ├── EngineError                an engine behind a pipe failed several times in a row
    ├── WorkerError                a worker process failed; ``__cause__`` is its own traceback
    │   ├── WorkerBootError        it never became ready: nothing is restarted
    │   ├── WorkerCrashLoopError   it died more often than the restart budget allows
    │   ├── TooFewWorkersError     fewer than ``min_healthy_workers`` are left
    │   └── QuarantineError        more than 1 % of the rollouts were not fit to be delivered
    ├── RolloutError               a rollout that may not be delivered (not finite, wrong shape, endless game)
    ├── StalePolicyError           only batches beyond ``max_policy_lag`` arrive
    ├── WeightsError               weights that may not be published (wrong shape, not finite)
    └── CollectorClosedError       the collector was used after ``shutdown``

``RemoteTraceback`` is no error of its own: it carries the text of a worker's traceback as the ``__cause__`` of a
``WorkerError``.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CollectorClosedError",
    "ConfigError",
    "EngineError",
    "GameError",
    "IllegalActionError",
    "KeiseiError",
    "QuarantineError",
    "RemoteTraceback",
    "RolloutError",
    "StalePolicyError",
    "TooFewWorkersError",
    "UnsupportedGameError",
    "WeightsError",
    "WorkerBootError",
    "WorkerCrashLoopError",
    "WorkerError",
]


class KeiseiError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(KeiseiError):
    """One or more values given by the user cannot work.

    Args:
        faults: one line for each fault, naming the key, the value and what is allowed.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class UnsupportedGameError(ConfigError):
    """The game is unknown, or is not a two-player zero-sum perfect-information game."""


class GameError(KeiseiError):
    """A game broke its contract; or a player did, which is named: what it gave is no action."""


class IllegalActionError(GameError):
    """An action that the rules do not allow.

    Args:
        game: the game's name.
        ply: how many plies had been played.
        position: the position in the game's own notation.
        move: the move in the game's own notation, or the action's number where it has none.
    """

    def __init__(self, *, game: str, ply: int, position: str, move: str) -> None:
        self.game, self.ply, self.position, self.move = game, ply, position, move
        super().__init__(f"{game}: illegal move {move} at ply {ply} in position {position}")


class EngineError(KeiseiError):
    """An engine behind a pipe failed several times in a row; ``__cause__`` tells of the last one."""


class RemoteTraceback(Exception):
    """The text of a traceback from a worker process."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        """Show the worker's own traceback below a blank line, as concurrent.futures does."""
        return f"\n{self.text}"


class WorkerError(KeiseiError):
    """A worker process failed; ``__cause__`` carries its traceback where it left one."""


class WorkerBootError(WorkerError):
    """A worker never became ready (bad game, import error, too slow, not startable): restarting would not help."""


class WorkerCrashLoopError(WorkerError):
    """A worker died more often than its restart budget allows."""


class TooFewWorkersError(WorkerError):
    """Fewer workers than ``min_healthy_workers`` are alive."""


class QuarantineError(WorkerError):
    """Too many rollouts were not fit to be delivered; ``__cause__`` tells of the last one."""


class RolloutError(KeiseiError):
    """A rollout that may not be delivered: numbers that are not finite or of a wrong shape, or a game that is stuck."""


class StalePolicyError(KeiseiError):
    """Every batch that arrives is older than ``max_policy_lag`` allows."""


class WeightsError(KeiseiError):
    """Weights that may not be published: a wrong name, shape or dtype, or a value that is not finite."""


class CollectorClosedError(KeiseiError):
    """The collector was used after ``shutdown``."""
