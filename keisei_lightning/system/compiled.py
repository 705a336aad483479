"""Libraries that are compiled from C files of this package when it is installed (``hatch_build.py``)."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path

__all__ = ["load_library", "why_no_library"]


def library_of(source: Path) -> Path:
    """The file that a C file is compiled to, such as ``games/shogi/libshogi_kernel.so`` of ``games/shogi/kernel.c``."""
    return source.with_name(f"lib{source.parent.name}_{source.stem}.so")


@cache
def why_no_library(source: Path) -> str:
    """Why a C file's library cannot be used, in a few words; empty where it can."""
    library = library_of(source)
    if not library.exists():
        return "it was installed without a C compiler"
    try:
        functions = ctypes.CDLL(str(library))
    except OSError as error:
        return f"it cannot be loaded: {error}"
    functions.source_sha256.restype = ctypes.c_char_p
    if functions.source_sha256().decode() != hashlib.sha256(source.read_bytes()).hexdigest():
        return "it was built from other source; install anew"
    return ""


def load_library(source: Path) -> ctypes.CDLL:
    """The library of a C file of which :func:`why_no_library` has nothing to say."""
    return ctypes.CDLL(str(library_of(source)))
