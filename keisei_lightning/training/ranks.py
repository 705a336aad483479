"""The learners of one training (ranks), and what they tell each other.

A rank that waits in a collective for another one, which has failed before it came there, waits for ever. So everything
that may fail on one rank alone is done by ``Ranks.collect``: all ranks hear whether all others have done it, and
either all of them continue or none does.

A single learner is the only one to hear: it calls no collective, and works as if there were no ranks.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

import torch
import torch.distributed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, RankError
from keisei_lightning.evaluation.partners import Partners
from keisei_lightning.models.transfers import to_host
from keisei_lightning.system.stopping import Stopped, stop_all

__all__ = ["ALONE", "Ranks", "broadcast_buffers", "check_equal_weights", "ranks_of"]

T = TypeVar("T")

_SAME_SIZE: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by their bytes: a checksum of their sums does not depend on the order of the additions."""


class Ranks(Partners, Protocol):
    """The learners of one training, which are partners in its matches too.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
    """

    def collect_at_first(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on the first rank; an empty list on all others."""
        ...

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, which have the same number of tensors, of the same shapes."""
        ...

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first rank's."""
        ...


class _Alone:
    """The only learner."""

    rank, size = 0, 1

    def collect(self, what: str, work: Callable[[], T]) -> list[T]:
        return [work()]

    def collect_at_first(self, value: T) -> list[T]:
        return [value]

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        return

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        return


ALONE: Final[Ranks] = _Alone()
"""A training with one learner."""


@dataclass(frozen=True, slots=True)
class _Report(Generic[T]):
    """What one rank tells the others.

    Attributes:
        value: what its work returned.
        failure: of its work, as text; None: it did not fail.
        signum: of the signal that stopped its work; None: none did.
    """

    value: T | None = None
    failure: str | None = None
    signum: int | None = None


class _Group:
    """Several learners, which talk through a process group of their own, on the CPU.

    Of their own: a message never falls between the gradients of a step, or Lightning's own messages.

    Args:
        timeout: how long one may wait for the others.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=timeout)
        # The metrics that this package logs are those of all ranks already. Lightning cannot know.
        warnings.filterwarnings(
            "ignore", message=r"It is recommended to use `self\.log\('(train|self_play|eval|league)/"
        )

    def collect(self, what: str, work: Callable[[], T]) -> list[T]:
        error: BaseException | None = None
        try:
            report = _Report(value=work())
        except Stopped as stop:
            error, report = stop, _Report(signum=stop.signum)
        except BaseException as failure:  # noqa: BLE001 - KeyboardInterrupt too: the others wait
            reason = " ".join(f"{type(failure).__name__}: {failure}".split())
            error, report = failure, _Report(failure=f"{what} failed ({reason})")
        if error is not None and report.failure is not None:
            with contextlib.suppress(RankError):  # of two errors the user needs this rank's own
                self._tell(report)
            raise error
        reports = self._tell(report)
        for rank, other in enumerate(reports):
            if other.failure is not None:
                raise RankError(f"rank {rank}: {other.failure}") from error
        for other in reports:
            if other.signum is not None:
                stop_all(other.signum)
                raise error or Stopped(other.signum)
        return [other.value for other in reports]  # type: ignore[misc]  # no one has failed

    def _tell(self, report: _Report[T]) -> list[_Report[T]]:
        reports: list[Any] = [None] * self.size
        with _meeting():
            torch.distributed.all_gather_object(reports, report, group=self._group)
        return reports

    def collect_at_first(self, value: T) -> list[T]:
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with _meeting():
            torch.distributed.gather_object(value, values, dst=0, group=self._group)
        return values or []

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            host = to_host(tensor.detach()).double()
            with _meeting():
                torch.distributed.all_reduce(host, group=self._group)
            tensor.copy_(host / self.size)

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            host = to_host(tensor.detach()).contiguous()
            with _meeting():
                torch.distributed.broadcast(host, src=0, group=self._group)
            tensor.copy_(host)


@contextlib.contextmanager
def _meeting() -> Iterator[None]:
    """Context of a collective, whose failure is told as what it means: a connection is closed, or the time is over."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(f"another rank is gone, or does not answer ({' '.join(str(error).split())})") from error


_groups: weakref.WeakKeyDictionary[Trainer, Ranks] = weakref.WeakKeyDictionary()


def ranks_of(trainer: Trainer | None) -> Ranks:
    """The learners of a trainer's fit.

    The first call for a trainer is a collective: it makes a process group. All ranks must come to it.

    Args:
        trainer: with its strategy set up; None: there is one learner.

    Raises:
        ConfigError: there are several learners, and the strategy is not DDP: each must have all the weights.
    """
    size = getattr(trainer, "world_size", 1)
    if trainer is None or size == 1:
        return ALONE
    strategy = trainer.strategy
    if not (isinstance(strategy, DDPStrategy) and torch.distributed.is_initialized()):
        raise ConfigError(
            f"trainer.strategy={type(strategy).__name__}: must be ddp with {size} learners, each of which "
            "publishes the whole weights to workers of its own"
        )
    if trainer not in _groups:
        _groups[trainer] = _Group(strategy._timeout or timedelta(minutes=30))
    return _groups[trainer]


def broadcast_buffers(ranks: Ranks, module: nn.Module) -> None:
    """Give every rank the first one's buffers, such as the running means of a ``BatchNorm``.

    ``DistributedDataParallel`` does this before each forward pass. After the last one of an iteration each rank has
    its own, and would publish and save those.
    """
    if ranks.size > 1:
        with torch.no_grad():
            ranks.copy_first_(
                buffer for buffer in module.buffers() if buffer.is_floating_point()
            )  # not tables of indices


def check_equal_weights(ranks: Ranks, module: nn.Module) -> None:
    """Check that all ranks have the first one's weights, bit by bit.

    Args:
        ranks: the learners.
        module: learns.

    Raises:
        RankError: one has others; it is named.
    """
    if ranks.size == 1:
        return
    sums = ranks.collect("the checksum of the weights", lambda: _checksum(module))
    for rank, checksum in enumerate(sums):
        if checksum != sums[0]:
            raise RankError(
                f"rank {rank}: its weights differ from those of rank 0 (a hook or callback changed them on one rank "
                "alone, or the ranks run on processors that round differently)"
            )


@torch.no_grad()
def _checksum(module: nn.Module) -> tuple[int, ...]:
    """The sums of each parameter's and buffer's bits, in one transfer from their device."""
    sums = [
        tensor.detach().contiguous().view(_SAME_SIZE[tensor.element_size()]).sum(dtype=torch.int64).reshape(1)
        for tensor in (*module.parameters(), *module.buffers())
    ]
    return tuple(torch.cat(sums).tolist()) if sums else ()
