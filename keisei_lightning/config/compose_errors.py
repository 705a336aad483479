"""Hydra's complaints in one line: key, value, what is allowed, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.schemas import SECTIONS, config_dir
from keisei_lightning.system.options import nearest

__all__ = ["COMPOSE_ERRORS", "explain", "known_keys", "no_such_key"]

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ValueError, TypeError)
"""What Hydra and OmegaConf raise for a configuration that cannot be put together (ValueError: ``model=null``,
TypeError: ``model=[1]``)."""

_EXTRAS = {f"hydra/launcher={name}": "sweep" for name in ("joblib", "submitit_local", "submitit_slurm")}
"""Options that come with an extra of ours."""


def known_keys(section: str) -> tuple[str, ...]:
    """Keys that a section of the configuration may have.

    Args:
        section: such as ``parallel``; empty for the top level.

    Returns:
        Names; empty where any key is allowed (a third party's section, or one that is passed on as it is).
    """
    return tuple(option.name for option in SECTIONS.get(section, ()))


def _legal(key: str) -> str | None:
    """What a key may be, such as "a whole number, from 1 to 100"; None where we do not know the key."""
    section, _, name = key.rpartition(".")
    if not section and name in SECTIONS:
        return None
    return next((option.legal("null") for option in SECTIONS.get(section, ()) if option.name == name), None)


def no_such_key(key: str, value: object, known: Sequence[str] | None = None) -> str:
    """The line for a key that does not exist: what it is near to, and what there is.

    Args:
        key: with its sections, such as ``parallel.num_worker``.
        value: as given.
        known: keys that there are; None: those of the section in the configuration of a training.
    """
    section, _, name = key.rpartition(".")
    known = known_keys(section) if known is None else known
    near = nearest(name, known)
    hint = f" (did you mean {section + '.' if section else ''}{near}?)" if near else ""
    allowed = f"; must be one of {', '.join(known)}" if known else ""
    return f"{key}={value}: no such key{hint}{allowed}"


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """Turn what Hydra raised into one line for the person who typed the command.

    Args:
        error: one of :data:`COMPOSE_ERRORS`.
        overrides: words of the command line, to find the value that belongs to a key.
    """
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        return no_such_key(found[1], _value_of(found[1], overrides))
    if found := re.search(r"Missing mandatory value: (\S+)", message):
        return f"{found[1]}: is missing; give it on the command line as {found[1]}=VALUE"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", message):
        group, option = found[1], found[2]
        options = re.findall(r"^\t(?!provider=)(\S+)$", message, flags=re.MULTILINE)
        if extra := _EXTRAS.get(f"{group}={option}"):
            allowed = ", ".join(options)
            return f"{group}={option}: is not installed; must be {allowed}, or install keisei-lightning[{extra}]"
        near = nearest(option, options)
        hint = f" (did you mean {near}?)" if near else ""
        return f"{group}={option}: no such option{hint}; must be one of {', '.join(options)}"
    if found := re.search(r"Error merging override \+{0,2}(.*)", message):
        legal = _legal(found[1].partition("=")[0])
        reason = _first_line(str(error.__cause__ or error))
        return f"{found[1]}: must be {legal}" if legal else f"{found[1]}: {reason}"
    if message.startswith("Config group override must be") or isinstance(error, TypeError):
        return _no_option(overrides)
    if isinstance(error, OverrideParseException):
        reason = _first_line(message.partition(f"'{error.override}'\n")[2] or message)
        return f"{error.override}: cannot be read ({reason}); write KEY=VALUE, with brackets or commas in quotes"
    return _one_line(message)


def _no_option(overrides: Iterable[str]) -> str:
    """The line for a group that was given no option's name: ``model=null``, ``=5``."""
    for override in overrides:
        group, _, option = override.partition("=")
        folder = config_dir() / group.lstrip("+")
        if not group:
            return f"{override}: cannot be read (there is no key); write KEY=VALUE"
        options = sorted(file.stem for file in folder.glob("*.yaml")) if folder != config_dir() else []
        if options and option not in options:
            return f"{override}: no such option; must be one of {', '.join(options)}"
    return "a group was given no option's name; write GROUP=OPTION"


def _value_of(key: str, overrides: Iterable[str]) -> str:
    for override in overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+~") == key:
            return value
    return ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())
