"""TAB completes what is typed in a game: moves, commands, and what follows some of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final

from keisei_lightning.play.dialogue import COMMANDS, Dialogue
from keisei_lightning.play.seats import SIDES

__all__ = ["LineCompletion", "beginning_with", "suggestions"]

Suggest = Callable[[str], list[str]]

_FILE: Final = "FILE"
_AFTER: Final = {"side": SIDES}


class LineCompletion:
    """Completes lines that ``input()`` reads from a terminal, by GNU readline or libedit; without them it does nothing.

    Args:
        is_on: whether lines come from a terminal at all.

    Attributes:
        suggest: whole lines that what was typed so far may become.
    """

    def __init__(self, *, is_on: bool) -> None:
        self.suggest: Suggest = lambda typed: []
        self._found: list[str] = []
        if is_on:
            with contextlib.suppress(ImportError):
                import readline  # input() edits lines once it is loaded

                self.bind(readline)

    def bind(self, readline: ModuleType) -> None:
        """Let a readline ask here, for the whole line: a move's name may have blanks and brackets.

        Args:
            readline: the standard library's module, which is one of two libraries.
        """
        is_libedit = "libedit" in (getattr(readline, "backend", None) or readline.__doc__ or "")
        readline.set_completer_delims("")
        readline.set_completer(self._complete)
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")

    def _complete(self, typed: str, number: int) -> str | None:
        """The suggestion of that number; None: there are no more."""
        if number == 0:
            self._found = self.suggest(typed)
        return self._found[number] if number < len(self._found) else None


def suggestions(dialogue: Dialogue, typed: str) -> list[str]:
    """Lines that somebody may be typing in a game.

    Args:
        dialogue: of the game.
        typed: the line so far.
    """
    command, blank, rest = typed.partition(" ")
    if not (blank and command in COMMANDS):
        return beginning_with(typed, [*dialogue.session.legal_moves(), *COMMANDS])
    is_file = COMMANDS[command][0] == _FILE
    after = _files(rest) if is_file else beginning_with(rest, _AFTER.get(command, ()))
    return [f"{command} {each}" for each in after]


def beginning_with(typed: str, words: Iterable[str]) -> list[str]:
    """Those of some words that begin so; where there are none, those that do in other letters, small or capital.

    Args:
        typed: the beginning.
        words: to choose from.
    """
    words = list(words)
    wanted = typed.casefold()
    return [word for word in words if word.startswith(typed)] or [
        word for word in words if word.casefold().startswith(wanted)
    ]


def _files(typed: str) -> list[str]:
    """Paths that begin so; a folder's ends with a slash."""
    folder, start = os.path.split(typed)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = {entry.name: entry.is_dir() for entry in entries}
    except (OSError, ValueError):
        return []
    names = [name for name in sorted(found) if name.startswith(start) and name.isprintable()]
    shown = [name for name in names if start or not name.startswith(".")]
    return [os.path.join(folder, name) + ("/" if found[name] else "") for name in shown]
