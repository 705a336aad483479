"""The command ``keisei``: a word, then what belongs to it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

from keisei_lightning import __version__
from keisei_lightning.commands.completion import FLAGS as COMPLETION_FLAGS
from keisei_lightning.commands.completion import main as complete
from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE, FAILED
from keisei_lightning.commands.table import COMMANDS
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.console import Output, say, standard_output
from keisei_lightning.system.openmp import governed_spinning, limit_spinning

__all__ = ["main"]

HELP = """\
usage: keisei COMMAND ...          keisei COMMAND --help: its keys, and examples

train and measure:
  train [GROUP=OPTION ...] [KEY=VALUE ...]   by self-play; `train -m KEY=VALUE,VALUE ...` is a sweep
  eval checkpoint=FILE [KEY=VALUE ...]       a trained policy against other players
  runs [NAME] [RUN ...] [KEY=VALUE ...]      list, show, compare, plot, resume, delete runs
  bench NAME [KEY=VALUE ...]                 speed on this machine, and what suits it
  doctor [KEY=VALUE ...]                     this machine and this installation: what is wrong, and what mends it
  games                                      games that are known by name

play:
  play [checkpoint=FILE] [KEY=VALUE ...]     a game against a trained policy, here
  serve [KEY=VALUE ...]                      a page to play at, and to watch trainings on
  usi [checkpoint=FILE] [KEY=VALUE ...]      a USI engine for shogi programs
  engine checkpoint=FILE [protocol=ugi|gtp]  an engine of another game

take it elsewhere:
  export checkpoint=FILE to=FILE             a policy for other programs: ONNX, torch.export, safetensors
  convert record=FILE to=FILE                records of games in another format
  positions records=FOLDER to=FILE           training positions for other programs

-sc install=SHELL                            completion by TAB for bash, fish and zsh: eval "$(keisei -sc install=bash)"

examples:
  keisei play                                against a policy that comes with the package
  keisei train experiment=smoke              does it all run here? (half a minute)
  keisei train experiment=quickstart         connect four, about a minute
  keisei train experiment=shogi parallel.num_workers=8
  keisei eval checkpoint=results/quickstart/RUN/checkpoints/last.ckpt 'opponents=[random,alpha_beta(depth=3)]'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after ``keisei``; None takes ``sys.argv``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with standard_output() as out:
        status = _main(words)
        out.flush()
    return FAILED if status == DONE and _is_lost(out, words) else status


def _is_lost(out: Output, words: Sequence[str]) -> bool:
    """Whether what a command is for was not printed. What training and evaluation are for is in files.

    Who closes a pipe (``| head``) has seen enough.
    """
    return out.failure is not None and out.failure.errno != errno.EPIPE and words[:1] not in (["train"], ["eval"])


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return DONE
    if words[0] == "--version":
        print(__version__)
        return DONE
    for index, word in enumerate(words[:2]):  # also behind `train`, where Hydra's users look for it
        if word in COMPLETION_FLAGS:
            return complete(words[index + 1 :], list(COMMANDS))
    command = COMMANDS.get(words[0])
    if command is None:
        from keisei_lightning.system.registry import nearest  # entry points, which nobody else waits for

        say(f"{words[0]}: no such command{nearest(words[0], COMMANDS)}; must be one of {', '.join(COMMANDS)}")
        return BAD_USAGE
    keep_freed_memory()
    limit_spinning()
    with governed_spinning():
        return command.main()(words[1:])


if __name__ == "__main__":
    sys.exit(main())
