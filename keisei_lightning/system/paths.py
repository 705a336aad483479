"""Paths that somebody typed: whether they can be one, and whether a folder can be made and written to there."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

__all__ = ["no_path", "one_line", "path_errors"]

_MAX_NAME_BYTES = 255
"""Of a file's name on the file systems of Linux and macOS."""

_MAX_PATH_BYTES = 3840
"""Of a run's folder: Linux takes paths of 4095 bytes, and there are files in it."""


def path_errors(key: str, path: str) -> Iterator[str]:
    """Whether a folder can be made, and written to: it is tried, and nothing is left.

    Args:
        key: for the message.
        path: of the folder, which need not be there yet.
    """
    if not path:
        yield f"{key}=: must be a folder that can be written to"
    elif reason := no_path(Path(path)) or _cannot_write(Path(path).absolute()):
        yield f"{key}={one_line(path)}: must be a folder that can be written to ({reason})"


def one_line(text: str) -> str:
    """A text with its control characters as escapes, for a message."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def no_path(path: Path) -> str:
    """Why this cannot be a path, here or at all; empty where it can.

    Args:
        path: whatever somebody typed; nothing is looked up.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(path)):
        return "it holds a control character, or what is no character"
    if str(path).startswith("~"):
        return "there is no such user, whose home folder it would be in; a folder of that name is ./~..."
    if max((len(os.fsencode(part)) for part in path.parts), default=0) > _MAX_NAME_BYTES:
        return f"a name in it is longer than {_MAX_NAME_BYTES} bytes"
    if len(os.fsencode(path.absolute())) > _MAX_PATH_BYTES:
        return f"it is longer than {_MAX_PATH_BYTES} bytes"
    return ""


def _cannot_write(folder: Path) -> str:
    """Why nothing can be put into a folder, which need not be there yet; empty where it can."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        # Tried, because permission bits say little: root may ignore them, and /proc ignores root.
        with tempfile.TemporaryDirectory(prefix=".keisei_", dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror}"
