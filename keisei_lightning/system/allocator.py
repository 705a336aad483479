"""How this process's memory allocator behaves."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory it has freed, for its next tensors of that size.

    A network's activations are megabytes each, and every pass frees and allocates them again. glibc hands such blocks
    back to the kernel, which must clear each page before it may be used again: a fifth of the time of a worker's
    network and a twelfth of the learner's (shogi, 2 x 32; ``docs/results/speed.md``). The process stays as large as it
    once was, which between two passes it is anyway.

    Workers and the commands do this for themselves; a program of your own may call it once, before the first batch. It
    is one setting for the whole process and cannot be taken back.

    Returns:
        Whether it took effect: False where the C library is not glibc (macOS, Alpine).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, _LARGEST) == 1 for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
