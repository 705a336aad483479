"""A command whose options a dataclass declares: ``keisei eval`` and each bench, from its words to its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE, exit_code_of
from keisei_lightning.commands.help_texts import asks_for_help, options_help
from keisei_lightning.system.console import say
from keisei_lightning.system.stopping import Stopped, StopSignals

__all__ = ["OptionsCommand"]

T = TypeVar("T")

_HELP = """\
usage: keisei {usage}
       keisei {name} --cfg job [KEY=VALUE ...]     shows what would be used, and runs nothing

{about}

keys, with their defaults:
{options}
"""


def _as_it_is(options: Any) -> dict[str, Any]:
    return asdict(options)


@dataclass(frozen=True, kw_only=True)
class OptionsCommand(Generic[T]):
    """A command.

    Attributes:
        name: words after ``keisei``.
        arguments: what is typed after them, for its help.
        about: what it does, for its help.
        options: the dataclass that declares its keys.
        run: does it.
        notes: more of its help, such as examples.
        rest: field of the options that gets the words whose keys are not declared; None: there must be none.
        shown: what ``--cfg job`` shows of the options.
    """

    name: str
    arguments: str
    about: str
    options: type[T]
    run: Callable[[T], object]
    notes: Callable[[], str] = str
    rest: str | None = None
    shown: Callable[[T], dict[str, Any]] = _as_it_is

    def __call__(self, words: Sequence[str]) -> int:
        """Run it as the command line says.

        Args:
            words: after its name.

        Returns:
            The exit code (:mod:`keisei_lightning.commands.exit_codes`).
        """
        if asks_for_help(words):
            sys.stdout.write(self.help_text())
            return DONE
        words, shows = _without_cfg(words)
        if shows not in ("", "job"):
            say(f"--cfg {shows}: must be --cfg job")
            return BAD_USAGE
        try:
            from keisei_lightning.commands.compose import compose_options  # Hydra, which help does not need

            options = compose_options(self.options, words, rest=self.rest)
            if shows:
                _print_yaml(self.shown(options))
                return DONE
            with StopSignals():
                self.run(options)
        except (Exception, Stopped) as error:  # noqa: BLE001 - the last line: every ending has an exit code
            return exit_code_of(error)
        return DONE

    def help_text(self) -> str:
        """What ``--help`` shows."""
        usage = f"{self.name} {self.arguments}"
        text = _HELP.format(usage=usage, name=self.name, about=self.about, options=options_help(self.options))
        notes = self.notes()
        return f"{text}\n{notes}" if notes else text


def _without_cfg(words: Sequence[str]) -> tuple[list[str], str]:
    """The other words, and what is to be shown; Hydra's ``--resolve`` is always on."""
    left, shows = list[str](), ""
    rest = iter(words)
    for word in rest:
        if word in ("-c", "--cfg"):
            shows = next(rest, "?")
        elif word.startswith("--cfg="):
            shows = word.removeprefix("--cfg=")
        elif word != "--resolve":
            left.append(word)
    return left, shows


def _print_yaml(values: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    sys.stdout.write(OmegaConf.to_yaml(values))
