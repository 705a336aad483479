"""Every exception that this package raises on purpose.

::

    KeiseiError
    ├── ConfigError                a value given by the user cannot work (exit code 2)
    │   └── UnsupportedGameError   the game is unknown, or of a kind that self-play cannot train
    ├── GameError                  a game or a player broke its contract
    │   └── IllegalActionError     the rules do not allow an action
    ├── EngineError                an engine process failed several times consecutively
    ├── WorkerError                a worker process failed; ``__cause__`` is its own traceback
    │   ├── WorkerBootError        it never became ready: nothing is restarted
    │   ├── WorkerCrashLoopError   it died more often than the restart budget allows
    │   ├── TooFewWorkersError     fewer than ``min_healthy_workers`` are left
    │   └── QuarantineError        more than 1 % of the rollouts were invalid
    ├── RolloutError               a rollout is invalid (not finite, wrong shape, endless game)
    ├── StalePolicyError           only batches beyond ``max_policy_lag`` arrive
    ├── RankError                  a learner failed, was killed or did not answer, or has other weights than the others
    ├── WeightsError               weights are invalid (wrong shape, not finite) and were not published
    └── CollectorClosedError       the collector was used after ``shutdown``

``RemoteTraceback`` carries the text of a worker's traceback, as the ``__cause__`` of a ``WorkerError``.
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
    "RankError",
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
    """Base of every exception that this package raises on purpose."""


class ConfigError(KeiseiError):
    """One or more values given by the user cannot work.

    Args:
        errors: one line for each value, with its key, the value and what is allowed.

    Attributes:
        errors: these lines.
    """

    def __init__(self, errors: str | Sequence[str]) -> None:
        self.errors: tuple[str, ...] = (errors,) if isinstance(errors, str) else tuple(errors)
        super().__init__("\n".join(self.errors))

    @property
    def faults(self) -> tuple[str, ...]:
        """The former name of ``errors``."""
        return self.errors


class UnsupportedGameError(ConfigError):
    """The game is unknown, or is not a two-player zero-sum perfect-information game."""


class GameError(KeiseiError):
    """A game broke its contract, as :func:`~keisei_lightning.games.check_game` checks it, or a player broke its own."""


class IllegalActionError(GameError):
    """The rules do not allow an action.

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
    """An engine process failed several times consecutively; ``__cause__`` is the last failure."""


class RemoteTraceback(Exception):
    """The text of a traceback from another process."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        """Show the worker's own traceback below a blank line, as concurrent.futures does."""
        return f"\n{self.text}"


class WorkerError(KeiseiError):
    """A worker process failed; ``__cause__`` carries its traceback where it left one."""


class WorkerBootError(WorkerError):
    """A worker never became ready (bad game, import error, too slow, cannot be started): restarting would not help."""


class WorkerCrashLoopError(WorkerError):
    """A worker died more often than its restart budget allows."""


class TooFewWorkersError(WorkerError):
    """Fewer workers than ``min_healthy_workers`` are alive."""


class QuarantineError(WorkerError):
    """Too many rollouts were invalid; ``__cause__`` is the error of the last one."""


class RolloutError(KeiseiError):
    """A rollout is invalid: its numbers are not finite or of a wrong shape, or its game does not end."""


class StalePolicyError(KeiseiError):
    """Every batch that arrives is older than ``max_policy_lag`` allows."""


class WeightsError(KeiseiError):
    """Weights are invalid and were not published: a wrong name, shape or dtype, or a value that is not finite."""


class RankError(KeiseiError):
    """A learner (rank) failed, was killed or did not answer, or the learners' weights are no longer the same.

    Where a parent has started the ranks, ``__cause__`` carries the traceback of the one that failed, if it left one.
    """


class CollectorClosedError(KeiseiError):
    """The collector was used after ``shutdown``."""
