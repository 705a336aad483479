"""The language of the command line, one for all commands: Hydra's overrides, ``KEY=VALUE``.

``keisei train`` composes the YAML files of ``conf``; ``keisei eval`` and each bench compose the options that a
dataclass declares (:mod:`keisei_lightning.system.options`). This module imports no torch, so that a mistyped command is
told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar, get_origin

from hydra import compose, initialize, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.config.schemas import config_dir, register_configs, schema_of
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import Declaration, declared, errors_of, nearest

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
    declarations = declared(cls)
    reading = _Reading({declaration.name: declaration for declaration in declarations}, [], [], [])
    for word in reading.without_flags(words):
        reading.add(word, has_rest=rest is not None)
    values = reading.composed(schema_of(options.__name__, declarations))
    result = options(**values, **({} if rest is None else {rest: tuple(reading.others)}))
    errors = [*reading.errors, *errors_of(result, none="null"), *_empty_lists(result)]
    if errors:
        raise ConfigError(errors)
    return result


@dataclass(frozen=True, slots=True)
class _Reading:
    """The words of one command line, as far as they have been read."""

    known: Mapping[str, Declaration]
    overrides: list[str]
    others: list[str]
    errors: list[str]

    def without_flags(self, words: Sequence[str]) -> Iterator[str]:
        """The words that are no flags; a flag, as former versions had them, is an error that tells today's spelling."""
        left = list(words)
        while left:
            word = left.pop(0)
            if not word.startswith("--"):
                yield word
                continue
            flag, equals, value = word.partition("=")
            values = [value] if equals else []
            while not equals and left and "=" not in left[0] and not left[0].startswith("-"):
                values.append(left.pop(0))
            given = " ".join([word] if equals else [flag, *values])
            self.errors.append(self._flag_error(given, flag.removeprefix("--").replace("-", "_"), values))

    def _flag_error(self, given: str, name: str, values: Sequence[str]) -> str:
        if name.startswith("no_") and name.removeprefix("no_") in self.known:
            return f"{given}: is written {name.removeprefix('no_')}=false now"
        declaration = self.known.get(name)
        if declaration is None:
            return f"{given}: no such flag; options are written KEY=VALUE, with KEY one of {', '.join(self.known)}"
        value = "true" if declaration.kinds == (bool,) else ",".join(values) or "VALUE"
        return f"{given}: is written {name}={f'[{value}]' if _is_a(list, declaration) else value} now"

    def add(self, word: str, *, has_rest: bool) -> None:
        """Read one word."""
        (quoted,) = quote_texts([word])
        try:
            (override,) = OverridesParser.create().parse_overrides([quoted])
        except HydraException as unreadable:
            self.errors.append(explain(unreadable, [word]))
            return
        name, dot, _ = override.key_or_group.partition(".")
        declaration = self.known.get(name)
        if declaration is None and has_rest:
            self.others.append(word)
        elif error := self._word_error(word, override, name):
            self.errors.append(error)
        elif declaration is None or (dot and not _is_a(dict, declaration)):
            self.errors.append(_no_such_key(word, name, list(self.known)))
        else:
            self.overrides.append(_as_declared(quoted.lstrip("+"), override, declaration))

    def _word_error(self, word: str, override: Override, name: str) -> str | None:
        if override.is_delete() or override.package is not None:
            return f"{word}: cannot be read; write KEY=VALUE"
        if override.is_sweep_override() and name in self.known:
            return f"{word}: must be {self.known[name].legal('null')}"
        return None

    def composed(self, schema: type) -> dict[str, Any]:
        """Values of all options; those of words that Hydra refuses are left as they are declared."""
        store, before = ConfigStore.instance(), GlobalHydra.instance().hydra
        store.store(name=schema.__name__, node=schema)
        GlobalHydra.instance().clear()
        try:
            with initialize(config_path=None, version_base="1.3"):
                return self._composed(schema.__name__)
        finally:
            GlobalHydra.instance().hydra = before

    def _composed(self, name: str) -> dict[str, Any]:
        try:
            cfg = compose(name, overrides=self.overrides)
        except COMPOSE_ERRORS:
            good = [word for word in self.overrides if not self._is_refused(name, word)]
            cfg = compose(name, overrides=good)
        try:
            values: Any = OmegaConf.to_container(cfg, resolve=True)
        except OmegaConfBaseException:
            from keisei_lightning.config.validation import unresolved_errors

            self.errors.extend(unresolved_errors(cfg))
            raise ConfigError(self.errors) from None
        return dict(values)

    def _is_refused(self, name: str, word: str) -> bool:
        """Whether Hydra refuses a word, as its value is of another type."""
        try:
            compose(name, overrides=[word])
        except COMPOSE_ERRORS:
            text = word.lstrip("+")
            declaration = self.known[text.partition("=")[0].partition(".")[0]]
            self.errors.append(f"{text}: must be {declaration.legal('null')}")
            return True
        return False


def _as_declared(text: str, override: Override, declaration: Declaration) -> str:
    """The word as Hydra wants it for an option of this kind."""
    if _is_a(dict, declaration):
        return f"++{text}"  # its keys are not declared
    key, _, value = text.partition("=")
    if _is_a(list, declaration) and not isinstance(override.value(), list | NoneType) and not value.startswith("${"):
        return f"{key}=[{value}]"
    return text


def _is_a(kind: type, declaration: Declaration) -> bool:
    return any(get_origin(one) is kind for one in declaration.kinds)


def _no_such_key(word: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    hint = f" (did you mean {near}?)" if near not in (None, name) else ""
    return f"{word}: no such key{hint}; must be one of {', '.join(known)}"


def _empty_lists(options: Any) -> Iterator[str]:
    for declaration in declared(options.__class__):
        if getattr(options, declaration.name) == []:
            yield f"{declaration.name}=[]: must hold one or more"
