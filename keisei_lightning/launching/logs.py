"""How a rank logs: the first as one process would, the others only what is wrong, each line with its rank."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Mapping
from typing import Any

from keisei_lightning.system.console import ConsoleHandler
from keisei_lightning.system.rank_place import present_place

__all__ = ["log_as_rank"]


def log_as_rank(config: Mapping[str, Any] | None) -> None:
    """Set up the log of this process; nothing changes in a process that is no rank.

    Args:
        config: for ``logging.config``, as the parent has it; None: what is set up stays.
    """
    place = present_place()
    if place is None:
        return
    if config is not None:
        logging.config.dictConfig(dict(config))
    if place.rank == 0:
        return
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(ConsoleHandler())
    for handler in root.handlers:
        handler.setLevel(max(handler.level, logging.WARNING))
    make_record = logging.getLogRecordFactory()

    def with_rank(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        record.msg = f"[rank {place.rank}] {record.msg}"
        return record

    logging.setLogRecordFactory(with_rank)
