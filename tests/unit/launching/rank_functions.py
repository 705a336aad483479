"""What ranks do in these tests: functions that another process can import. No torch."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

from keisei_lightning.errors import ConfigError
from keisei_lightning.launching import Phase, agreed, enter
from keisei_lightning.launching.logs import log_as_rank
from keisei_lightning.system.rank_place import present_place
from keisei_lightning.system.stopping import Stopped

FOR_EVER_S = 600.0
PATIENCE_S = 300.0
"""When a test gives up what it waits for: far beyond what a busy machine may need."""


def rank() -> int:
    place = present_place()
    assert place is not None
    return place.rank


def note(folder: Path, name: str) -> None:
    unfinished = folder / f".{name}.{rank()}"
    unfinished.write_text(str(os.getpid()))
    unfinished.replace(folder / f"{name}.{rank()}")  # whoever sees it can read it


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody has made {file}")
        time.sleep(0.01)


def place_and_port() -> tuple[object, str]:
    return present_place(), os.environ["MASTER_PORT"]


def loaded_modules() -> list[str]:
    return sorted({name.partition(".")[0] for name in sys.modules})


def fails_on_rank_1(folder: Path) -> None:
    note(folder, "started")
    if rank() == 1:
        wait_for(folder / "started.0")
        raise ZeroDivisionError("on purpose")
    time.sleep(FOR_EVER_S)


def refuses() -> None:
    raise ConfigError(["model.channels=3: must be even", "env.game=x: no such game"])


class Unpicklable(Exception):
    """Cannot be made again from its message alone."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def raises_alike() -> None:
    raise LookupError("no such trial")


def raises_late_on_rank_0_what_all_have_agreed_on(folder: Path) -> None:
    if rank() == 0:
        wait_for(folder / "ending.1")
        time.sleep(1.0)  # it stops its workers, say, for longer than others have after a failure in these tests
        note(folder, "ended")
    note(folder, "ending")
    raise agreed(LookupError("no better than others"))


def raises_what_cannot_be_sent() -> None:
    raise Unpicklable("on", "purpose")


def kills_itself_on_rank_1() -> None:
    if rank() == 1:
        enter(Phase.SAVING)
        os.kill(os.getpid(), signal.SIGKILL)


def exits_on_rank_1() -> None:
    if rank() == 1:
        enter(Phase.COLLECTING)
        os._exit(7)


def loses_its_peer_on_rank_0(folder: Path) -> None:
    """As gloo complains on the others when one rank is killed."""
    if rank() == 1:
        enter(Phase.BACKWARD)
        note(folder, "dying")
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for(folder / "dying.1")
    raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711")


def gets_no_answer_on_rank_0(folder: Path) -> None:
    """As gloo complains when a rank hangs."""
    note(folder, "started")
    if rank() == 1:
        enter(Phase.COLLECTING)
        os.kill(os.getpid(), signal.SIGSTOP)
    wait_for(folder / "started.1")
    enter(Phase.BACKWARD)
    raise RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1000ms for recv operation")


def stops_in_order(folder: Path, signalled: int | None) -> None:
    """Until a signal comes; ``signalled`` sends one to itself when all are there."""
    try:
        note(folder, "ready")
        if signalled == rank():
            wait_for(folder / f"ready.{1 - rank()}")
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(FOR_EVER_S)
    except Stopped:
        note(folder, "saved")
        raise


def warns() -> None:
    log_as_rank(None)
    logging.getLogger("somebody").info("a word")
    logging.getLogger("somebody").warning("%d %% of something", 5)
