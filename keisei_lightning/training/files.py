"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from keisei_lightning.system.stopping import temporary_file

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: on an error, such as a full disk, it is as it was before.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with temporary_file(path.with_name(f".{path.name}.{os.getpid()}.tmp")) as temporary:
            temporary.write_bytes(content)
            os.replace(temporary, path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
