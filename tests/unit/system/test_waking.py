"""A signal is seen while the main thread waits in C, also one that comes between its last look and the wait."""

from __future__ import annotations

import ctypes
import os
import readline
import signal
import threading
from pathlib import Path

import pytest
from terminal_screen import Screen

from keisei_lightning.system.waking import woken_by_signals

# Readline's last step before it waits is, here, a wait of its own, which the signal ends.
LATE = """
import ctypes, readline
from keisei_lightning.commands.play.terminal import Interrupts, Terminal
from keisei_lightning.system.stopping import Stopped

hook = ctypes.c_void_p.in_dll(ctypes.CDLL(readline.__file__), "rl_pre_input_hook")
hook.value = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value
terminal = Terminal(colour=False)
with Interrupts():
    while True:
        try:
            terminal.ask("ready> ")
        except Stopped as error:
            print("exit code", error.exit_code)
"""


def has_gnu_readline() -> bool:
    try:
        ctypes.c_void_p.in_dll(ctypes.CDLL(readline.__file__), "rl_pre_input_hook")
    except (AttributeError, OSError, ValueError):
        return False
    return True


@pytest.mark.skipif(not has_gnu_readline(), reason="Python's readline is not a library with GNU readline's hooks")
def test_ctrl_c_just_before_a_line_is_waited_for_is_not_lost(tmp_path: Path) -> None:
    with Screen([], tmp_path, program=("-c", LATE)) as screen:
        for _ in range(3):
            screen.read_until("ready> ")
            screen.interrupt()
            screen.read_until("exit code 130")
        assert screen.shown.count("exit code 130") == 3


def test_a_line_from_a_pipe_is_waited_for_until_a_signal_comes() -> None:
    reading, writing = os.pipe()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with os.fdopen(reading) as stream, pytest.raises(KeyboardInterrupt), woken_by_signals():
            stream.readline()
    finally:
        os.close(writing)
        signal.signal(signal.SIGALRM, before)


def test_afterwards_signals_threads_and_files_are_as_before() -> None:
    def state() -> tuple[object, int, int, list[str]]:
        told = signal.set_wakeup_fd(-1)
        return signal.getsignal(signal.SIGURG), told, threading.active_count(), sorted(os.listdir("/dev/fd"))

    before = state()
    for _ in range(3):
        with woken_by_signals():
            signal.raise_signal(signal.SIGURG)
    assert state() == before


def test_another_thread_may_read_lines_too() -> None:
    seen: list[bool] = []

    def read() -> None:
        with woken_by_signals():
            seen.append(True)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert seen == [True]
