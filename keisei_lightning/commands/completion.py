"""Completion by the TAB key: ``eval "$(keisei -sc install=bash)"``, as with any application of Hydra.

At each TAB the shell asks ``keisei -sc query=SHELL`` for the words that may stand at the cursor; the line is in the
variable ``COMP_LINE``, the cursor in ``COMP_POINT``. Hydra's own completion does not know commands before the
overrides, copies all configurations for each group, and offers a key's present value where any of several words is
legal. A person waits: nothing is imported that the line does not need, and never torch.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keisei_lightning.commands.exit_codes import BAD_USAGE, DONE
from keisei_lightning.commands.table import COMMANDS
from keisei_lightning.system.console import say
from keisei_lightning.system.options import Declaration, declared

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["FLAGS", "candidates", "main"]

FLAGS = ("-sc", "--shell-completion")
"""Hydra's, for what this module does."""

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
        The exit code.
    """
    verb, _, shell = words[0].partition("=") if words else ("", "", "")
    if len(words) != 1 or verb not in ("install", "uninstall", "query") or shell not in _INSTALL:
        legal = f"install=SHELL, uninstall=SHELL or query=SHELL with SHELL one of {', '.join(_INSTALL)}"
        say(f"{' '.join(['-sc', *words])}: must be {legal}")
        return BAD_USAGE
    if verb == "query":
        line = os.environ.get("COMP_LINE", "")
        point = os.environ.get("COMP_POINT", "")
        found = candidates(line[: int(point)] if point.isdecimal() else line, commands)
        sys.stdout.write("".join(f"{word}\n" for word in found))
    else:
        sys.stdout.write((_INSTALL if verb == "install" else _UNINSTALL)[shell])
    return DONE


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
    _, command, *before = words
    if command == "bench":
        from keisei_lightning.commands.bench.options import BENCHES

        if not before:
            return [f"{name} " for name in BENCHES if name.startswith(word)]
        command, *before = before
        found = list(_of_options(word, BENCHES[command].options)) if command in BENCHES else []
    elif command == "runs":
        from keisei_lightning.commands.runs.options import VERBS

        if not before:
            return [f"{name} " for name in VERBS if name.startswith(word)]
        found = list(_of_options(word, VERBS[before[0]].options)) if before[0] in VERBS else []
    else:
        keys = COMMANDS[command].keys() if command in COMMANDS else None
        found = [] if keys is None else list(_of_options(word, keys))
    return sorted([*found, *_of_training(word, before)] if command in ("train", "profile", "scale") else found)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # the cursor is inside of quotation marks
        return line.split()


def _of_options(word: str, options: type) -> Iterator[str]:
    """Keys that a dataclass declares, and their values."""
    known = {option.name: option for option in declared(options)}
    key, equals, value = word.partition("=")
    if not equals:
        return (f"{name}=" for name in known if name.startswith(key))
    return _values(key, value, known[key], lambda: known[key].default) if key in known else iter(())


def _of_training(word: str, before: Sequence[str]) -> Iterator[str]:
    """Groups, their options, keys and their values."""
    from omegaconf import OmegaConf

    from keisei_lightning.config.schemas import SECTIONS, config_groups

    bare = word.lstrip("+~")
    groups = config_groups()
    key, equals, value = bare.partition("=")
    found: Iterable[str]
    if equals and key in groups:
        found = (f"{key}={option} " for option in groups[key] if option.startswith(value))
    elif equals:
        section, _, name = key.rpartition(".")
        option = next((option for option in SECTIONS.get(section, ()) if option.name == name), None)
        found = _values(key, value, option, lambda: OmegaConf.select(_composed(before), key))
    else:
        found = _keys(bare, _composed(before), groups)
    yield from (word.removesuffix(bare) + match for match in found)


def _composed(before: Sequence[str]) -> DictConfig:
    """The configuration of the words before the cursor; the default one, if they are no configuration."""
    from keisei_lightning.commands.compose import compose_training
    from keisei_lightning.config.compose_errors import COMPOSE_ERRORS

    try:
        return compose_training([word for word in before if not word.startswith("-")], with_hydra=True)
    except COMPOSE_ERRORS:
        return compose_training([], with_hydra=True)


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


def _values(key: str, value: str, option: Declaration | None, now: Callable[[], object]) -> Iterator[str]:
    """Files where a path is wanted; the legal words, if there are few; else what the value is now."""
    from omegaconf.errors import OmegaConfBaseException

    from keisei_lightning.config.quoting import PATH_KEYS

    if key in PATH_KEYS:
        yield from (f"{key}={file}" for file in _files(value))
        return
    words: Sequence[object] = option.choices if option else ()
    with contextlib.suppress(OmegaConfBaseException):  # an interpolation that means something only in a run
        words = words or (("true", "false") if isinstance(present := now(), bool) else (present,))
    yield from (
        f"{key}={word} " for word in words if isinstance(word, str | int | float) and f"{word}".startswith(value)
    )


def _files(value: str) -> Iterator[str]:
    """Files and folders whose path begins so."""
    folder, name = os.path.split(value)
    with contextlib.suppress(OSError):  # there is no such folder, or it may not be read
        for path in Path(folder or ".").iterdir():
            if path.name.startswith(name) and (name or not path.name.startswith(".")):
                yield f"{os.path.join(folder, path.name)}{'/' if path.is_dir() else ' '}"
