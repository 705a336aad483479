"""Optuna's studies: where they are kept, so that many processes take part in one and it outlives them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keisei_lightning.errors import ConfigError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["open_storage"]


def open_storage(storage: str) -> BaseStorage:
    """Open the storage of studies; it is made if it is not there.

    Args:
        storage: the path of a file, which Optuna keeps as a journal and which may lie on a network's file system; or
            the address of a database, such as ``sqlite:///study.db`` or ``postgresql://...``.

    Raises:
        ConfigError: it cannot be opened.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        if "://" in storage:
            # A connection is closed after each use: trials are seldom, and nobody says when the last one was.
            return RDBStorage(storage, engine_kwargs={"poolclass": NullPool})
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    except (OSError, SQLAlchemyError, ImportError) as error:  # ImportError: there is no driver for such a database
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"storage={storage}: must be a file or a database that can be opened ({reason})") from error
