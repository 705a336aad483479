"""Signals become one exception, at once or when it is time. Every signal here is a real one, sent to this process."""

from __future__ import annotations

import signal
import time

import pytest

from keisei_lightning.system import stopping
from keisei_lightning.system.stopping import (
    Stopped,
    StopSignals,
    defer,
    deferred,
    interruptible,
    passing_on,
    requested,
    stop_all,
    stop_deferring,
    stop_together,
    uninterruptible,
)


def test_a_signal_raises_at_once_and_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with pytest.raises(Stopped, match="stopped by SIGTERM") as caught, StopSignals():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert requested() is None


def test_a_closed_terminal_asks_for_a_stop_too() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    try:
        with pytest.raises(Stopped, match="stopped by SIGHUP") as caught, StopSignals():
            signal.raise_signal(signal.SIGHUP)
        assert caught.value.exit_code == 129
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_deferred_signal_is_raised_when_deferring_stops() -> None:
    with StopSignals(grace_s=30):
        defer()
        signal.raise_signal(signal.SIGINT)
        assert requested() == signal.SIGINT
        assert deferred()
        with pytest.raises(Stopped, match="SIGINT"):
            stop_deferring(end=True)


def test_a_deferred_signal_reaches_lightning_as_sigterm() -> None:
    seen = []
    with StopSignals(grace_s=30) as signals:
        ours = signal.getsignal(signal.SIGTERM)
        assert callable(ours)
        signal.signal(signal.SIGTERM, lambda n, f: (seen.append(n), ours(n, f)))
        defer()
        signal.raise_signal(signal.SIGINT)
        assert (seen, signals.requested) == ([signal.SIGTERM], signal.SIGINT)


def test_a_wait_ends_at_once_also_one_that_begins_later() -> None:
    with StopSignals(grace_s=30):
        defer()
        with pytest.raises(Stopped), interruptible():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped), interruptible():
            raise AssertionError("not reached")


def test_if_no_step_ends_the_grace_time_does() -> None:
    with StopSignals(grace_s=0.05):
        defer()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            time.sleep(20)


def test_the_grace_time_does_not_interrupt_a_step() -> None:
    with StopSignals(grace_s=0.02):
        defer()
        with uninterruptible():
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)
        with pytest.raises(Stopped):
            time.sleep(20)


def test_the_same_signal_twice_at_the_same_moment_is_one() -> None:
    with StopSignals(grace_s=30):
        defer()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # timeout(1) does this; a second one would end this process
        assert requested() == signal.SIGTERM
        assert deferred()


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopSignals():
            signal.raise_signal(signal.SIGTERM)
            assert requested() is None
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_stop_signals_nothing_happens() -> None:
    defer()
    with interruptible(), uninterruptible():
        stop_deferring(end=True)
    stopping.listen_to(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is not None
    assert not deferred()


def test_the_parent_of_ranks_passes_a_signal_on_and_does_not_stop() -> None:
    told: list[int] = []
    with StopSignals() as signals:
        with passing_on(told.append):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0)
        assert (told, signals.requested) == ([signal.SIGTERM], signal.SIGTERM)


def test_one_of_several_ranks_notes_a_deferred_signal_until_all_stop() -> None:
    noted: list[int] = []
    with StopSignals(grace_s=0.01):
        defer()
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Lightning replaces the handler
        stop_together(noted.append)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)  # no grace time ends: a rank alone must not leave a step
        assert (requested(), noted) == (signal.SIGTERM, [])
        stop_all(signal.SIGINT)  # of another rank; the exit code is that of the signal that came here
        assert (requested(), noted) == (signal.SIGTERM, [signal.SIGINT])
        signal.signal(signal.SIGTERM, before)


def test_a_rank_that_got_no_signal_stops_by_another_ones() -> None:
    with StopSignals():
        defer()
        stop_together(lambda signum: None)
        stop_all(signal.SIGINT)
        assert requested() == signal.SIGINT


def test_a_rank_that_collects_is_interrupted_at_once() -> None:
    with StopSignals():
        defer()
        stop_together(lambda signum: None)
        with pytest.raises(Stopped), interruptible():
            signal.raise_signal(signal.SIGTERM)
