"""How this process's memory allocator behaves."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next tensors of that size.

    A network's activations are megabytes each, and every pass frees and allocates them again. glibc returns such blocks
    to the kernel, which must clear each page before it is used again: a fifth of the time of a worker's network and a
    twelfth of the learner's (shogi, 2 x 32; ``docs/results/speed.md``). The process keeps its largest size, which it
    has in every pass anyway.

    Workers and the commands call this function; a program of your own may call it once, before the first batch. The
    setting is of the whole process and cannot be undone.

    Returns:
        Whether it took effect: False where the C library is not glibc (macOS, Alpine).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, _LARGEST) == 1 for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
