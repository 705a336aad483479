"""How a rank has ended, as it tells the parent, and what the parent makes of all of them."""

from __future__ import annotations

import pickle
import re
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from keisei_lightning.errors import ConfigError, RankError, RemoteTraceback
from keisei_lightning.launching.phases import Phase
from keisei_lightning.system.stopping import Stopped

__all__ = ["Died", "Done", "Failed", "Halted", "Outcome", "agreed", "conclude", "failure_of", "is_lost_peer"]

E = TypeVar("E", bound=Exception)

_LOST_PEER = re.compile(
    r"gloo|NCCL|Connection (closed|reset) by (remote )?peer|Broken pipe|TCPStore|DistBackendError|DistNetworkError"
)

_NAMED = re.compile(r"rank \d+")

_LONGEST_TRACEBACK = 100_000
"""Characters of a traceback that are sent."""


@dataclass(frozen=True, slots=True)
class Done:
    """The function has returned.

    Attributes:
        result: of the function.
    """

    result: Any


@dataclass(frozen=True, slots=True)
class Halted:
    """A signal has ended the function.

    Attributes:
        signum: the signal.
    """

    signum: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The function has raised.

    Attributes:
        text: type and message of the exception.
        traceback: as Python prints it.
        pickled: the exception itself; None: another process could not read it.
        lost_peer: it failed because another rank had failed, was gone or did not answer.
        blames: what it says of another rank; None: it does not know which one.
        phase: what it was doing.
        is_agreed: all ranks raise it (:func:`agreed`).
    """

    text: str
    traceback: str
    pickled: bytes | None
    lost_peer: bool
    blames: str | None
    phase: Phase
    is_agreed: bool

    def __str__(self) -> str:
        """Type and message of the exception."""
        return self.text


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended without a word.

    Attributes:
        exit_code: negative: the signal that killed it.
        phase: what it was doing.
        by_us: the parent has killed it, since another rank had failed.
    """

    exit_code: int
    phase: Phase
    by_us: bool

    def __str__(self) -> str:
        """What happened, and in which phase."""
        if self.exit_code >= 0:
            return f"ended with exit code {self.exit_code} while {self.phase}"
        name = signal.Signals(-self.exit_code).name
        hint = " (likely out of memory, if nobody sent it)" if -self.exit_code == signal.SIGKILL else ""
        return f"was killed by {name} while {self.phase}{hint}"


Outcome = Done | Halted | Failed | Died


def agreed(error: E) -> E:
    """Mark an exception that all ranks raise at the same point, as they have decided together: no rank has failed.

    Args:
        error: is returned.
    """
    error.keisei_agreed = True  # type: ignore[attr-defined]  # an attribute: the class may be a third party's
    return error


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another rank has failed, is gone, or has not answered in time."""
    if isinstance(error, RankError):
        return True
    return isinstance(error, RuntimeError) and bool(_LOST_PEER.search(f"{type(error).__name__} {error}"))


def failure_of(error: BaseException, phase: Phase) -> Failed:
    """An exception as it can be sent, whatever it holds.

    Args:
        error: what the function has raised.
        phase: what this rank was doing.
    """
    text = "".join(traceback.format_exception(error))
    return Failed(
        text=" ".join(f"{type(error).__name__}: {error}".split())[:2000],
        traceback=text[-_LONGEST_TRACEBACK:],
        pickled=_pickled(error),
        lost_peer=is_lost_peer(error),
        blames=str(error) if isinstance(error, RankError) and _NAMED.match(str(error)) else None,
        phase=phase,
        is_agreed=getattr(error, "keisei_agreed", False),
    )


def _pickled(error: BaseException) -> bytes | None:
    try:
        text = pickle.dumps(error)
        pickle.loads(text)
    except Exception:  # noqa: BLE001 - a third party's class may raise anything
        return None
    return text


def conclude(outcomes: Sequence[tuple[int, Outcome]]) -> Any:
    """The result of rank 0, if all ranks are done.

    Args:
        outcomes: ranks with how they ended, in the order in which they did.

    Raises:
        Stopped: a signal has ended the training.
        ConfigError: as a rank has raised it.
        Exception: what all ranks have raised alike, or have agreed to raise.
        RankError: a rank has failed or died: the first one that did so by itself.
    """
    causes = [(rank, outcome) for rank, outcome in outcomes if _is_cause(outcome)]
    if causes:
        all_alike = len(causes) == len(outcomes) and len({str(outcome) for _, outcome in causes}) == 1
        first = causes[0][1]
        is_of_all = all_alike or (isinstance(first, Failed) and first.is_agreed)
        own = _own_error(first)
        raise own if own is not None and (is_of_all or isinstance(own, ConfigError)) else _error_of(*causes[0])
    for _, outcome in outcomes:
        if isinstance(outcome, Halted):
            raise Stopped(outcome.signum)
    silent = [rank for rank, outcome in outcomes if isinstance(outcome, Died)]
    for rank, outcome in outcomes:  # nobody failed by itself: somebody has not answered
        if isinstance(outcome, Failed):
            raise (
                _no_answer(rank, outcome, dict(outcomes), silent)
                if outcome.blames is None
                else RankError(outcome.blames)
            )
    results = {rank: outcome.result for rank, outcome in outcomes if isinstance(outcome, Done)}
    return results[0]


def _is_cause(outcome: Outcome) -> bool:
    """Whether a rank failed by itself, and not because another one did."""
    if isinstance(outcome, Died):
        return not outcome.by_us
    return isinstance(outcome, Failed) and not outcome.lost_peer


def _error_of(rank: int, outcome: Outcome) -> Exception:
    if not isinstance(outcome, Failed):
        return RankError(f"rank {rank} {outcome}; the other ranks were ended")
    error = RankError(f"rank {rank}: {outcome.text}")
    error.__cause__ = RemoteTraceback(outcome.traceback)
    return error


def _own_error(outcome: Outcome) -> Exception | None:
    """The exception itself, as a rank has raised it; None: there is none that could be sent."""
    if not isinstance(outcome, Failed) or outcome.pickled is None:
        return None
    error: BaseException = pickle.loads(outcome.pickled)
    error.__cause__ = RemoteTraceback(outcome.traceback)
    return error if isinstance(error, Exception) else None


def _no_answer(rank: int, failed: Failed, outcomes: dict[int, Outcome], silent: Sequence[int]) -> RankError:
    """One rank has waited for another in vain."""
    hung = "; ".join(f"rank {other} was still {_phase_of(outcomes[other])}" for other in silent)
    error = RankError(f"rank {rank} got no answer from the other ranks while {failed.phase}{hung and f': {hung}'}")
    error.__cause__ = RemoteTraceback(failed.traceback)
    return error


def _phase_of(outcome: Outcome) -> str:
    return str(outcome.phase) if isinstance(outcome, Died | Failed) else "there"
