"""Hydra's complaints in one line: key, value, what is allowed, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config import SCHEMAS, CheckpointConfig, Config

__all__ = ["COMPOSE_ERRORS", "explain", "known_keys", "no_such_key", "quote_games"]

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException)
"""What Hydra and OmegaConf raise for a configuration that cannot be put together."""

_HYDRA_FUNCTIONS = ("bool", "choice", "float", "glob", "int", "interval", "range", "shuffle", "sort", "str", "tag")


def quote_games(overrides: Sequence[str]) -> list[str]:
    """Put quotation marks around OpenSpiel strings, whose brackets Hydra would read as a function call.

    Args:
        overrides: words of a command line, such as ``env.game=hex(board_size=5)`` (the shell takes its quotes away).

    Returns:
        The same words, with ``env.game="hex(board_size=5)"``.
    """
    quoted = []
    for override in overrides:
        found = re.fullmatch(r"(\+{0,2}env\.game)=((\w+)\(.*\))", override)
        if found and found[3] not in _HYDRA_FUNCTIONS:
            override = f'{found[1]}="{found[2]}"'
        quoted.append(override)
    return quoted


def known_keys(section: str) -> tuple[str, ...]:
    """Keys that a section of the configuration may have.

    Args:
        section: such as ``parallel``; empty for the top level.

    Returns:
        Names; empty where any key is allowed (a third party's section, or one that is passed on as it is).
    """
    if section == "checkpoint":
        return tuple(field.name for field in fields(CheckpointConfig))
    if section == "":
        return tuple(field.name for field in fields(Config))
    schema = SCHEMAS.get("resnet" if section == "model" else section)
    return () if schema is None else tuple(field.name for field in fields(schema) if not field.name.startswith("_"))


def no_such_key(key: str, value: object) -> str:
    """The line for a key that does not exist: what it is near to, and what there is.

    Args:
        key: with its sections, such as ``parallel.num_worker``.
        value: as given.
    """
    section, _, name = key.rpartition(".")
    known = known_keys(section)
    near = _nearest(name, known)
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
        near = _nearest(option, options)
        hint = f" (did you mean {near}?)" if near else ""
        return f"{group}={option}: no such option{hint}; must be one of {', '.join(options)}"
    if found := re.search(r"Error merging override \+{0,2}(.*)", message):
        cause = error.__cause__ or error
        return f"{found[1]}: {_first_line(str(cause))}"
    if isinstance(error, OverrideParseException):
        reason = _first_line(message.partition(f"'{error.override}'\n")[2] or message)
        return f"{error.override}: cannot be read ({reason}); write KEY=VALUE, with brackets or commas in quotes"
    return _one_line(message)


def _value_of(key: str, overrides: Iterable[str]) -> str:
    for override in overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+~") == key:
            return value
    return ""


def _nearest(word: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())
