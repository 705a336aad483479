"""A memory fence: what this process did before it is seen by others before what it does after it.

A processor may perform loads and stores of different addresses in another order than the program's: an x86 lets a load
overtake an earlier store, an ARM (Apple Silicon, Graviton) lets any of them overtake any other. Python has no atomic
operations, but its lock is made of them:

- with POSIX semaphores (Linux): to acquire is ``sem_trywait``, a compare-and-swap with acquire semantics, to release is
  ``sem_post``, one with release semantics (CPython ``Python/thread_pthread.h``; glibc ``nptl/sem_waitcommon.c`` and
  ``nptl/sem_post.c``);
- without them (macOS): each of the two is a pair of ``pthread_mutex_lock`` and ``pthread_mutex_unlock``, which are an
  acquire and a release;
- where it is a ``PyMutex`` (later CPythons): each is a sequentially consistent compare-and-swap (``Python/lock.c``).

An acquire keeps what comes after it behind it, and a release keeps what comes before it ahead of it. One turn of a lock
lets both slip *into* it, past one another; two turns do not::

    before -> acquire 1, release 1 -> acquire 2, release 2 -> after

What is before is ahead of release 1. Acquire 2 is behind release 1: an ARMv8 never lets a load-acquire overtake a
store-release (Arm Architecture Reference Manual, B2.3, "barrier-ordered-before"). What is after is behind acquire 2. So
two turns are a full fence there; on an x86 each locked instruction is one by itself.

Where a message through a pipe or a socket announces data, no fence is needed: its sender and its receiver hold the same
lock in the kernel, one after the other.
"""

from __future__ import annotations

import threading

__all__ = ["memory_fence"]


def memory_fence() -> None:
    """Order all loads and stores of this thread before the call before all those after it; about a microsecond.

    The lock is new, and no other code can hold it: a signal handler, or another thread, may call this during a call.
    """
    lock = threading.Lock()
    for _ in range(2):
        lock.acquire()
        lock.release()
