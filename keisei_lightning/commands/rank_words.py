"""One rank of torchrun or srun, seen from the command line: all ranks read the same words, one of them writes files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence

from keisei_lightning.launching.logs import log_as_rank
from keisei_lightning.system.rank_place import RankPlace

__all__ = ["words_of_rank"]


@contextlib.contextmanager
def words_of_rank(words: Sequence[str], place: RankPlace | None) -> Iterator[list[str]]:
    """Context with the words of the command line as this rank reads them.

    A further rank gets a folder of its own for Hydra, which is removed: the configuration of the first rank, with the
    run's folder, replaces its own before it trains.

    Args:
        words: Hydra overrides and flags.
        place: of this process; None: it is no rank.
    """
    if place is None or not place.is_external or place.rank == 0:
        yield list(words)
        return
    with tempfile.TemporaryDirectory(prefix="keisei_rank_") as folder:
        log_as_rank(None)
        has_logging = any(word.startswith("hydra/job_logging=") for word in words)
        log_words = [] if has_logging else ["hydra/job_logging=none"]
        yield [*words, *log_words, f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
