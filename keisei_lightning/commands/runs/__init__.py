"""The command ``keisei runs``: which runs there are, what came of them, and what can be done with them.

What is known of a run comes from :mod:`keisei_lightning.results_folder`, which reads its files as data. Torch is
imported only for pictures of a policy.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.commands.runs.options import VERBS, RunsOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.console import say
from keisei_lightning.system.registry import nearest

__all__ = ["main"]

_HELP = """\
usage: keisei runs [KEY=VALUE ...]                 all runs, as `keisei runs list`
       keisei runs NAME [RUN ...] [KEY=VALUE ...]  `keisei runs NAME --help` lists its keys

RUN is the path of a run's folder, a part of its name that no other run has, or `last`.

names:
{names}

examples:
  keisei runs
{examples}
Brackets need quotation marks around the word, as the shell has a meaning of its own for them.
"""

_EXAMPLES = """\
  keisei runs list folder=results/shogi json=true
  keisei runs show last
  keisei runs compare connect_four/2026-11-27_16 connect_four/2026-11-27_17
  keisei runs plot shogi/2026-11-27_19-43 last to=curves.png x=minutes
  keisei runs plot last 'what=[calibration,openings,errors]' games=400
  keisei runs resume last
  keisei runs delete smoke/2026-11-27_18-05 yes=true
  keisei runs disk"""

_RUNS_ARE = """\
RUN is the path of a run's folder, a part of its name that no other run has, or `last`."""


def main(argv: Sequence[str]) -> int:
    """Run ``keisei runs ...``.

    Args:
        argv: words after ``keisei runs``.

    Returns:
        The exit code (:mod:`keisei_lightning.commands.exit_codes`).
    """
    if argv and argv[0] in ("-h", "--help", "help"):
        names = "\n".join(f"  {name:<8} {verb.help}" for name, verb in VERBS.items())
        sys.stdout.write(_HELP.format(names=names, examples=_EXAMPLES))
        return DONE
    name, words = ("list", list(argv)) if not argv or "=" in argv[0] or argv[0].startswith("-") else (argv[0], argv[1:])
    if name not in VERBS:
        say(f"runs {name}: there is no such word{nearest(name, VERBS)}; must be one of {', '.join(VERBS)}")
        return BAD_USAGE
    runs, others = _split(words)
    return _command(name, runs)(others)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that name runs, and all others. A run's path may have a ``=`` in it."""
    runs, others = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        if word in ("-c", "--cfg"):
            others += [word, *([following] if (following := next(rest, "")) else [])]
        elif not word.startswith("-") and ("=" not in word or os.path.isdir(os.path.expanduser(word))):
            (others if word == "help" else runs).append(word)
        else:
            others.append(word)
    return runs, others


def _command(name: str, runs: Sequence[str]) -> OptionsCommand[Any]:
    verb = VERBS[name]
    examples = [line for line in _EXAMPLES.splitlines() if line.split()[2] == name]
    notes = "\n".join([*([_RUNS_ARE, ""] if verb.most != 0 else []), "examples:", *examples, ""])
    return OptionsCommand(
        name=f"runs {name}",
        arguments=f"{verb.arguments} [KEY=VALUE ...]".strip(),
        about=f"{verb.help[0].upper()}{verb.help[1:]}.",
        options=verb.options,
        run=lambda options: _run(name, replace(options, runs=tuple(runs))),
        notes=lambda: notes,
        shown=_shown,
    )


def _run(name: str, options: RunsOptions) -> None:
    """Do it.

    Raises:
        ConfigError: too few or too many runs are named.
    """
    verb, given = VERBS[name], len(options.runs)
    if given < verb.least or (verb.most is not None and given > verb.most):
        wanted = {0: "no RUN", 1: "one RUN", 2: "two RUNs"}[verb.least] + (" or more" if verb.most is None else "")
        raise ConfigError(
            f"runs {name}: takes {wanted}, got {given}; write keisei runs {name} {verb.arguments}".rstrip()
        )
    getattr(importlib.import_module(f"{__name__}.{verb.module}"), f"{name}_runs")(options)


def _shown(options: RunsOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "runs"}
