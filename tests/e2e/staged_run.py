"""The command line, which dwells at one stage and tells so by making a file: ``staged_run.py STAGE FILE WORDS...``.

Nothing is replaced: the stage's own work is done before or after.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP = 2
"""The optimiser step, from 1, that the stage ``step`` is in."""


def dwelling(function: Callable[..., Any], marker: Path, seconds: float, *, call: int = 1) -> Callable[..., Any]:
    """The function, which at its ``call``-th call makes the file and sleeps first."""
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            marker.touch()
            time.sleep(seconds)
        return function(*args, **kwargs)

    return wrapped


def prepare(stage: str, marker: Path) -> None:
    if stage == "checking":
        from keisei_lightning.commands import hydra_checks as refusal

        refusal.validate = dwelling(refusal.validate, marker, 30.0)
    elif stage == "starting":
        from keisei_lightning.parallel import SelfPlayCollector

        SelfPlayCollector.start = dwelling(SelfPlayCollector.start, marker, 0.0)
    elif stage == "playing":
        from keisei_lightning.parallel import SelfPlayCollector

        SelfPlayCollector._next_batch = dwelling(SelfPlayCollector._next_batch, marker, 0.0, call=2)
    elif stage == "step":
        from keisei_lightning.training import PPOModule

        PPOModule.training_step = dwelling(PPOModule.training_step, marker, 1.0, call=STEP)
    elif stage == "failing":
        from keisei_lightning.training import PPOModule

        step = PPOModule.training_step

        def fail_once(*args: Any, **kwargs: Any) -> Any:
            if not marker.exists():
                marker.touch()
                raise ZeroDivisionError("on purpose")
            return step(*args, **kwargs)

        PPOModule.training_step = fail_once
    elif stage == "evaluating":
        from keisei_lightning.training import evaluation

        evaluation.play_match = dwelling(evaluation.play_match, marker, 30.0)
    elif stage in ("saving", "saving for ever"):
        import os

        seconds = 1.5 if stage == "saving" else 3600.0
        # One of the file and one of its folder: of the save on trial before the first batch, and of the first save.
        os.fsync = dwelling(os.fsync, marker, seconds, call=5)
    else:
        assert stage == "none", stage


if __name__ == "__main__":
    prepare(sys.argv[1], Path(sys.argv[2]))
    from keisei_lightning.commands.train import main

    sys.exit(main(sys.argv[3:]))
