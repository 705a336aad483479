"""The language of the command line, one for all commands: Hydra's overrides, ``KEY=VALUE``.

``keisei train`` composes the YAML files of ``conf``; ``keisei eval`` and each bench compose the options that a
dataclass declares (:mod:`keisei_lightning.system.options`). This module imports no torch, so that a mistyped command is
told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, get_origin

from hydra import compose, initialize, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain, no_such_key
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.config.schemas import config_dir, register_configs, schema_of
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import Declaration, declared

__all__ = ["compose_options", "compose_training"]

T = TypeVar("T")


def compose_training(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration of ``keisei train`` with these overrides; it is not validated.

    Args:
        overrides: words of a command line.
        with_hydra: with Hydra's own section.

    Raises:
        HydraException: it cannot be put together; also the others of
            :data:`~keisei_lightning.config.compose_errors.COMPOSE_ERRORS`.
    """
    register_configs()
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3", job_name="train"):
        return compose("config", overrides=quote_texts(overrides), return_hydra_config=with_hydra)


def compose_options(options: type[T], words: Sequence[str], *, rest: str | None = None) -> T:
    """The options of a command.

    Args:
        options: the dataclass that declares them.
        words: of the command line, such as ``games=200``; the last one of a key counts. A list of one value needs no
            brackets.
        rest: a field that gets the words whose keys are not declared; None: there must be none.

    Raises:
        ConfigError: with a line for each word that cannot be read, names no key, or has a value that is not legal.
    """
    cls: type = options
    known = {declaration.name: declaration for declaration in declared(cls)}
    overrides: list[tuple[str, str]] = []  # what Hydra is given, and the word as it was typed
    left: list[str] = []
    errors: list[str] = []
    for word in words:
        try:
            override = _for_hydra(word, known, takes_rest=rest is not None)
        except ConfigError as error:
            errors += error.errors
            continue
        if override is None:
            left.append(word)
        else:
            overrides.append((override, word))
    values = _composed(options.__name__, known, overrides, errors)
    for declaration in known.values():
        if error_line := declaration.error(values[declaration.name], none="null"):
            errors.append(error_line)
        elif values[declaration.name] == []:
            errors.append(f"{declaration.name}=[]: must hold one or more")
    if errors:
        raise ConfigError(errors)
    return options(**values, **({} if rest is None else {rest: tuple(left)}))


def _for_hydra(word: str, known: Mapping[str, Declaration], *, takes_rest: bool) -> str | None:
    """A word as Hydra wants it for an option of its kind; None: it belongs to the rest.

    Raises:
        ConfigError: it cannot be read, or names no key.
    """
    if word.startswith("-"):
        raise ConfigError(f"{word}: no such flag; options are written KEY=VALUE, with KEY one of {', '.join(known)}")
    (quoted,) = quote_texts([word])
    try:
        (override,) = OverridesParser.create().parse_overrides([quoted])
    except HydraException as error:
        raise ConfigError(explain(error, [word])) from error
    name, dot, _ = override.key_or_group.partition(".")
    declaration = known.get(name)
    if declaration is None and takes_rest:
        return None
    if override.is_delete() or override.package is not None:
        raise ConfigError(f"{word}: cannot be read; write KEY=VALUE")
    quoted = quoted.lstrip("+")
    key, _, value = quoted.partition("=")
    if declaration is None or (dot and not _is_a(dict, declaration)):
        raise ConfigError(no_such_key(key, value, list(known)))
    if override.is_sweep_override():
        raise ConfigError(f"{word}: must be {declaration.legal('null')}")
    if _is_a(dict, declaration):
        return f"++{quoted}"  # its keys are not declared
    if _is_a(list, declaration) and not isinstance(override.value(), list | NoneType) and not value.startswith("${"):
        return f"{key}=[{value}]"
    return quoted


def _composed(
    name: str, known: Mapping[str, Declaration], overrides: Sequence[tuple[str, str]], errors: list[str]
) -> dict[str, Any]:
    """Values of all options; what Hydra refuses is an error, and stays as it is declared.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    ConfigStore.instance().store(name=name, node=schema_of(name, known.values()))
    before = GlobalHydra.instance().hydra  # of an application of the caller's own
    GlobalHydra.instance().clear()
    try:
        with initialize(config_path=None, version_base="1.3"):
            try:
                cfg = compose(name, overrides=[override for override, _ in overrides])
            except COMPOSE_ERRORS:
                legal = []
                for override, word in overrides:
                    try:
                        compose(name, overrides=[override])
                    except COMPOSE_ERRORS:
                        key = override.lstrip("+").partition("=")[0].partition(".")[0]
                        errors.append(f"{word.lstrip('+')}: must be {known[key].legal('null')}")
                    else:
                        legal.append(override)
                cfg = compose(name, overrides=legal)
    finally:
        GlobalHydra.instance().hydra = before
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        from keisei_lightning.config.validation import unresolved_errors  # more than most commands need

        raise ConfigError([*errors, *unresolved_errors(cfg)]) from None
    return dict(values)


def _is_a(kind: type, declaration: Declaration) -> bool:
    return any(get_origin(one) is kind for one in declaration.kinds)
