"""Completion by the TAB key: ``eval "$(keisei -sc install=bash)"``, as with any application of Hydra.

At each TAB the shell asks ``keisei -sc query=SHELL`` for the words that may stand at the cursor; the line is in the
variable ``COMP_LINE``, the cursor in ``COMP_POINT``. Hydra's own completion does not know commands before the
overrides, copies all configurations for each group, and offers a key's present value where any of several words is
legal. A person waits: nothing is imported that the line does not need, and never torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["FLAGS", "candidates", "main"]

FLAGS = ("-sc", "--shell-completion")
"""Hydra's, for what this module does."""

_FILES = frozenset({"ckpt_path", "checkpoint", "results_dir", "output_dir"})
"""Keys whose values are files and folders."""

_BASH = """\
_keisei_completion() {
    local word=${COMP_LINE:0:COMP_POINT} IFS=$'\\n'
    word=${word##*[[:space:]]}
    local before=${word%"$2"}  # bash takes KEY=VALUE for several words, and asks for the rest of the last one
    COMPREPLY=($(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT "$1" -sc query=bash 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o nospace -F _keisei_completion keisei
"""
_ZSH = """\
_keisei_completion() {
    local -a found whole
    found=("${(@f)$(COMP_LINE=$BUFFER COMP_POINT=$CURSOR ${words[1]} -sc query=zsh 2>/dev/null)}")
    whole=(${(M)found:#* })
    compadd -Q -S '' -- ${found:#* }
    compadd -Q -- ${whole% }
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _keisei_completion keisei
"""
_FISH = """\
function _keisei_completion
    set -lx COMP_LINE (commandline -cp)
    set -l words (commandline -po)
    $words[1] -sc query=fish 2>/dev/null | string trim --right --chars=' '
end
complete --command keisei --no-files --arguments '(_keisei_completion)'
"""
_INSTALL = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}
_UNINSTALL = {
    "bash": "complete -r keisei\nunset -f _keisei_completion\n",
    "fish": "complete --command keisei --erase\nfunctions --erase _keisei_completion\n",
    "zsh": "compdef -d keisei\nunfunction _keisei_completion\n",
}


def main(words: Sequence[str], commands: Sequence[str]) -> int:
    """Print a shell's script, or the words that may stand at its cursor.

    Args:
        words: after ``-sc``: ``install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``.
        commands: of ``keisei``.

    Returns:
        The exit code: 0 done, 2 there is no such shell.
    """
    verb, _, shell = words[0].partition("=") if words else ("", "", "")
    if len(words) != 1 or verb not in ("install", "uninstall", "query") or shell not in _INSTALL:
        given = " ".join(words)
        sys.stderr.write(
            f"keisei: -sc {given}".rstrip()
            + f": must be install=SHELL, uninstall=SHELL or query=SHELL with SHELL one of {', '.join(_INSTALL)}\n"
        )
        return 2
    if verb == "query":
        line = os.environ.get("COMP_LINE", "")
        point = os.environ.get("COMP_POINT", "")
        found = candidates(line[: int(point)] if point.isdecimal() else line, commands)
        sys.stdout.write("".join(f"{word}\n" for word in found))
    else:
        sys.stdout.write((_INSTALL if verb == "install" else _UNINSTALL)[shell])
    return 0


def candidates(line: str, commands: Sequence[str]) -> list[str]:
    """What the last word of a line may become.

    Args:
        line: up to the cursor, with the name of the program.
        commands: of ``keisei``.

    Returns:
        Words, sorted. One that is whole ends with a space; one that goes on (``parallel.``, ``ppo.gamma=``) does not.
    """
    words = _split(line)
    word = "" if line[-1:].isspace() or not words else words.pop()
    if len(words) < 2:
        return [f"{command} " for command in sorted(commands) if words and command.startswith(word)]
    command, before = words[1], words[2:]
    if command == "bench" and not before:
        from keisei_lightning.commands.bench.arguments import BENCHES

        return [f"{name} " for name in BENCHES if name.startswith(word)]
    if command == "train" or (command == "bench" and before[0] == "profile"):
        return sorted(_of_training(word, before))
    return sorted(_of_evaluation(word)) if command == "eval" else []


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # the cursor is inside of quotation marks
        return line.split()


def _of_training(word: str, before: Sequence[str]) -> Iterator[str]:
    """Groups, their options, keys and their values."""
    from keisei_lightning.config.schemas import config_groups

    found = re.fullmatch(r"(\+{0,2}|~)(.*)", word)
    assert found
    mark, word = found.groups()
    groups = config_groups()
    key, equals, value = word.partition("=")
    if equals and key in groups:
        matches: Iterable[str] = (f"{key}={option} " for option in groups[key] if option.startswith(value))
    elif equals and key in _FILES:
        matches = _files(key, value)
    else:
        cfg = _composed(before)
        matches = _values(key, value, cfg) if equals else _keys(word, cfg, groups)
    yield from (mark + match for match in matches)


def _composed(before: Sequence[str]) -> DictConfig:
    """The configuration of the words before the cursor; the default one, if they are no configuration."""
    from hydra import compose, initialize_config_dir

    from keisei_lightning.config.compose_errors import COMPOSE_ERRORS
    from keisei_lightning.config.quoting import quote_texts
    from keisei_lightning.config.schemas import config_dir, register_configs

    register_configs()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3", job_name="train"):
        overrides = [word for word in quote_texts(before) if not word.startswith("-")]
        try:
            return compose("config", overrides=overrides, return_hydra_config=True)
        except COMPOSE_ERRORS:
            return compose("config", return_hydra_config=True)


def _keys(word: str, cfg: DictConfig, groups: Iterable[str]) -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    section, dot, name = word.rpartition(".")
    if not dot:
        yield from (f"{group}=" for group in groups if group.startswith(word))
    node = OmegaConf.select(cfg, section) if dot else cfg
    if isinstance(node, DictConfig):
        for key, value in node.items_ex(resolve=False):
            text = str(key)
            if text.startswith(name) and not text.startswith("_"):
                yield f"{section}{dot}{text}{'.' if isinstance(value, DictConfig) else '='}"


def _values(key: str, value: str, cfg: DictConfig) -> Iterator[str]:
    """The legal words, if there are few; else what the value is now."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from keisei_lightning.config.bounds import CHOICES

    now = None
    with contextlib.suppress(OmegaConfBaseException):  # an interpolation that means something only in a run
        now = OmegaConf.select(cfg, key)
    words = CHOICES.get(key) or (("true", "false") if isinstance(now, bool) else (now,))
    yield from (
        f"{key}={word} " for word in words if isinstance(word, str | int | float) and str(word).startswith(value)
    )


def _of_evaluation(word: str) -> Iterator[str]:
    from keisei_lightning.commands.evaluate.options import Options

    key, equals, value = word.partition("=")
    if equals and key in _FILES:
        yield from _files(key, value)
    for field in fields(Options):
        if not equals and field.name.startswith(key):
            yield f"{field.name}="
        elif equals and field.name == key and field.type == "bool":
            yield from (f"{key}={word} " for word in ("true", "false") if word.startswith(value))


def _files(key: str, value: str) -> Iterator[str]:
    """Files and folders whose path begins so."""
    folder, name = os.path.split(value)
    with contextlib.suppress(OSError):  # there is no such folder, or it may not be read
        for path in Path(folder or ".").iterdir():
            if path.name.startswith(name) and (name or not path.name.startswith(".")):
                yield f"{key}={os.path.join(folder, path.name)}{'/' if path.is_dir() else ' '}"
