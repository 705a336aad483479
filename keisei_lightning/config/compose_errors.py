"""Hydra's complaints in one line: key, value, what is allowed, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.schemas import SECTIONS, config_groups
from keisei_lightning.system.registry import nearest

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


def no_such_key(key: str, value: object, known: Sequence[str] | None = None) -> str:
    """The line for a key that does not exist: what it is near to, and what there is.

    Args:
        key: with its sections, such as ``parallel.num_worker``.
        value: as given.
        known: keys that there are; None: those of the section in the configuration of a training.
    """
    section, dot, name = key.rpartition(".")
    known = known_keys(section) if known is None else known
    allowed = f"; must be one of {', '.join(known)}" if known else ""
    return f"{key}={value}: no such key{nearest(name, known, prefix=section + dot)}{allowed}"


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """Turn what Hydra raised into one line for the person who typed the command.

    Args:
        error: one of :data:`COMPOSE_ERRORS`.
        overrides: words of the command line, to find the value that belongs to a key.
    """
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        values = {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in overrides)}
        return no_such_key(found[1], values.get(found[1], ""))
    if found := re.search(r"Missing mandatory value: (\S+)", message):
        return f"{found[1]}: is missing; give it on the command line as {found[1]}=VALUE"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", message):
        group, option = found[1], found[2]
        options = re.findall(r"^\t(?!provider=)(\S+)$", message, flags=re.MULTILINE)
        allowed = ", ".join(options)
        if extra := _EXTRAS.get(f"{group}={option}"):
            return f"{group}={option}: is not installed; must be {allowed}, or install keisei-lightning[{extra}]"
        return f"{group}={option}: no such option{nearest(option, options)}; must be one of {allowed}"
    if found := re.search(r"Error merging override \+{0,2}(.*)", message):
        section, _, key = found[1].partition("=")[0].rpartition(".")
        legal = [option.legal("null") for option in SECTIONS.get(section, ()) if option.name == key]
        if legal and (section or key not in SECTIONS):
            return f"{found[1]}: must be {legal[0]}"
        return f"{found[1]}: {_first_line(str(error.__cause__ or error))}"
    if message.startswith("Config group override must be") or isinstance(error, TypeError):
        return _no_option(overrides)
    if isinstance(error, OverrideParseException):
        reason = _first_line(message.partition(f"'{error.override}'\n")[2] or message)
        return f"{error.override}: cannot be read ({reason}); write KEY=VALUE, with brackets or commas in quotes"
    return " ".join(message.split())


def _no_option(overrides: Iterable[str]) -> str:
    """The line for a group that was given no option's name: ``model=null``, ``=5``."""
    for override in overrides:
        group, _, option = override.partition("=")
        options = config_groups().get(group.lstrip("+"), [option])
        if not group:
            return f"{override}: cannot be read (there is no key); write KEY=VALUE"
        if option not in options:
            return f"{override}: no such option; must be one of {', '.join(options)}"
    return "a group was given no option's name; write GROUP=OPTION"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
