"""The command ``keisei``: a word, then what belongs to it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence

from keisei_lightning import __version__
from keisei_lightning.commands.completion import FLAGS as COMPLETION_FLAGS
from keisei_lightning.commands.completion import main as complete
from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE, FAILED
from keisei_lightning.commands.help_texts import asks_for_help
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.console import Output, say, standard_output
from keisei_lightning.system.openmp import governed_spinning, limit_spinning

__all__ = ["main"]

HELP = """\
usage: keisei COMMAND ...

commands:
  train [GROUP=OPTION ...] [KEY=VALUE ...]   train by self-play; `keisei train --help` lists all groups and keys
  train -m KEY=VALUE,VALUE ...               a sweep: one run for each combination
  eval checkpoint=FILE [KEY=VALUE ...]       a trained policy against other players; `keisei eval --help`
  play [checkpoint=FILE] [KEY=VALUE ...]     a game against a trained policy, here; `keisei play --help`
  games                                      games that are known by name
  bench NAME [KEY=VALUE ...]                 speed on this machine, and what suits it; `keisei bench --help`
  -sc install=SHELL                          completion by TAB for bash, fish and zsh: eval "$(keisei -sc install=bash)"

examples:
  keisei play                                against a policy that comes with the package
  keisei train experiment=smoke              does it all run here? (half a minute)
  keisei train experiment=quickstart         connect four, about a minute
  keisei train experiment=shogi parallel.num_workers=8
  keisei eval checkpoint=results/quickstart/RUN/checkpoints/last.ckpt 'opponents=[random,alpha_beta(depth=3)]'
"""

GAMES_HELP = """\
usage: keisei games

Lists the games that are known by name, those of other packages too, and those that a published policy plays.

examples:
  keisei games
  keisei play game=connect_four
  keisei train env=open_spiel "env.game=hex(board_size=5)"
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
        say(f"{words[0]}: no such command; must be one of {', '.join(COMMANDS)}")
        return BAD_USAGE
    keep_freed_memory()
    limit_spinning()
    with governed_spinning():
        return command(words[1:])


def _train(argv: Sequence[str]) -> int:
    from keisei_lightning.commands.train import main as train

    return train(argv)


def _eval(argv: Sequence[str]) -> int:
    from keisei_lightning.commands.evaluate import main as evaluate

    return evaluate(argv)


def _play(argv: Sequence[str]) -> int:
    from keisei_lightning.commands.play import main as play

    return play(argv)


def _games(argv: Sequence[str]) -> int:
    if asks_for_help(argv):
        print(GAMES_HELP, end="")
        return DONE
    if argv:
        say(f"games {argv[0]}: this command takes no arguments")
        return BAD_USAGE
    from keisei_lightning.games import game_names
    from keisei_lightning.games.registry import game_notes

    print("\n".join(game_names()))
    print(
        'and any two-player zero-sum perfect-information game of OpenSpiel: env=open_spiel "env.game=NAME(KEY=VALUE)"'
    )
    for note in game_notes():
        print(note)
    from keisei_lightning.published import published_card, published_names

    played = ", ".join(str(published_card(name)["game"]) for name in published_names())
    print(f"a trained policy comes with the package for {played}: keisei play")
    return DONE


def _bench(argv: Sequence[str]) -> int:
    from keisei_lightning.commands.bench import main as bench

    return bench(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "play": _play,
    "games": _games,
    "bench": _bench,
}


if __name__ == "__main__":
    sys.exit(main())
