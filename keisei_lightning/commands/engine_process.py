"""A process as an engine: its standard streams, the policy that it reads, and how it ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import zipfile
from typing import TYPE_CHECKING

from keisei_lightning.commands.exit_codes import DONE
from keisei_lightning.engine.channel import LineReader, LineWriter
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.errors import ConfigError
from keisei_lightning.published import checkpoint_file
from keisei_lightning.system.stopping import Stopped, end_now

if TYPE_CHECKING:
    from keisei_lightning.agents import Agent
    from keisei_lightning.engine.program import Program

__all__ = ["check_checkpoint", "run_engine"]

_ONNX = ".onnx"


def check_checkpoint(checkpoint: str) -> None:
    """Refuse a file that can be no policy, before anything is loaded.

    Raises:
        ConfigError: there is none, or it is of another kind.
    """
    try:
        file = checkpoint_file(checkpoint)
    except ConfigError as error:
        raise ConfigError([line.replace("ckpt_path=", "checkpoint=", 1) for line in error.errors]) from error
    if not file.is_file():
        raise ConfigError(f"checkpoint={checkpoint}: there is no such file; must be a checkpoint file")
    if not checkpoint.endswith(_ONNX) and not zipfile.is_zipfile(file):
        raise ConfigError(f"checkpoint={checkpoint}: cannot be read as a checkpoint (it is no zip file)")


def run_engine(program: type[Program], settings: EngineSettings) -> None:
    """Speak a protocol on standard input and output until the other end has had enough.

    SIGTERM ends it in order too, as programs end engines that are in their way.

    Args:
        program: of the protocol.
        settings: at first.

    Raises:
        ConfigError: the policy cannot be read.
        Stopped: another signal came.
    """
    from keisei_lightning.engine.program import Host  # the games, which a mistyped command does not wait for

    check_checkpoint(settings.checkpoint)
    # What anything else prints must not come between the protocol's lines: it goes to standard error.
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        reader = LineReader(0)
        engine = program(Host(reader=reader, writer=LineWriter(output, reader), load=_load), settings)
        try:
            engine.run()
        except Stopped as stop:
            if stop.signum != signal.SIGTERM:
                if engine.is_left_searching:
                    end_now(stop.signum)
                raise
        if engine.is_left_searching:  # torch is being imported, say: nothing can end that thread but this
            os._exit(DONE)
    finally:
        os.dup2(output, 1)
        os.close(output)


def _load(settings: EngineSettings) -> Agent:
    from keisei_lightning.agents import load_agent

    check_checkpoint(settings.checkpoint)
    if settings.checkpoint.endswith(_ONNX):
        return load_agent(settings.checkpoint)
    import torch

    torch.set_num_threads(settings.threads)
    agent = load_agent(settings.checkpoint, device=settings.device)
    # The collector of cycles would look at all that torch has made, which takes longer than a move may.
    gc.collect()
    gc.freeze()
    return agent
