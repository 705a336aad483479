"""The command ``keisei games``: the games that are known by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE
from keisei_lightning.commands.help_texts import asks_for_help
from keisei_lightning.system.console import say

__all__ = ["main"]

_HELP = """\
usage: keisei games

Lists the games that are known by name, those of other packages too, and those that a published policy plays.

examples:
  keisei games
  keisei play game=connect_four
  keisei train env=open_spiel "env.game=hex(board_size=5)"
"""


def main(argv: Sequence[str]) -> int:
    """List them.

    Args:
        argv: words after ``keisei games``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    if asks_for_help(argv):
        sys.stdout.write(_HELP)
        return DONE
    if argv:
        say(f"games {argv[0]}: this command takes no arguments")
        return BAD_USAGE
    from keisei_lightning.games import game_names
    from keisei_lightning.games.registry import game_notes
    from keisei_lightning.published import published_card, published_names

    lines = [
        *game_names(),
        'and any two-player zero-sum perfect-information game of OpenSpiel: env=open_spiel "env.game=NAME(KEY=VALUE)"',
        *game_notes(),
    ]
    played = ", ".join(str(published_card(name)["game"]) for name in published_names())
    lines.append(f"a trained policy comes with the package for {played}: keisei play")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return DONE
