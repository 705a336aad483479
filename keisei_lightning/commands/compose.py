"""The language of the command line, one for all commands: Hydra's overrides, ``KEY=VALUE``.

``keisei train`` composes the YAML files of ``conf``; ``keisei eval`` and each bench compose the options that a
dataclass declares (:mod:`keisei_lightning.system.options`). This module imports no torch, so that a mistyped command is
told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    declarations = declared(cls)
    line = _Words(declarations, takes_rest=rest is not None)
    line.read(words)
    values = line.compose(options.__name__)
    if errors := [*line.errors, *_value_errors(declarations, values)]:
        raise ConfigError(errors)
    return options(**values, **({} if rest is None else {rest: tuple(line.rest)}))


class _Words:
    """The words of a command line, sorted.

    Args:
        declarations: the options that they may set.
        takes_rest: words whose keys are not declared are no errors.

    Attributes:
        overrides: for Hydra.
        rest: words whose keys are not declared.
        errors: a line for each word that cannot be used.
    """

    def __init__(self, declarations: Sequence[Declaration], *, takes_rest: bool) -> None:
        self.overrides: list[str] = []
        self.rest: list[str] = []
        self.errors: list[str] = []
        self._declarations = declarations
        self._by_name = {declaration.name: declaration for declaration in declarations}
        self._takes_rest = takes_rest

    def read(self, words: Sequence[str]) -> None:
        """Sort words; flags, as former versions had them, are errors that tell today's spelling."""
        left = list(words)
        while left:
            word = left.pop(0)
            if not word.startswith("--"):
                self._read(word)
                continue
            flag, equals, value = word.partition("=")
            values = [value] if equals else []
            while not equals and left and "=" not in left[0] and not left[0].startswith("-"):
                values.append(left.pop(0))
            given = word if equals else " ".join([flag, *values])
            self.errors.append(f"{given}: {self._spelling_now(flag.removeprefix('--').replace('-', '_'), values)}")

    def _spelling_now(self, name: str, values: Sequence[str]) -> str:
        positive = name.removeprefix("no_")
        declaration = self._by_name.get(positive)
        if declaration is None:
            return f"no such flag; options are written KEY=VALUE, with KEY one of {', '.join(self._by_name)}"
        value = ",".join(values) or "VALUE"
        if declaration.kinds == (bool,):
            value = "true" if positive == name else "false"
        elif _is_a(list, declaration):
            value = f"[{value}]"
        return f"is written {positive}={value} now"

    def _read(self, word: str) -> None:
        (quoted,) = quote_texts([word])
        try:
            (override,) = OverridesParser.create().parse_overrides([quoted])
        except HydraException as error:
            self.errors.append(explain(error, [word]))
            return
        name, dot, _ = override.key_or_group.partition(".")
        declaration = self._by_name.get(name)
        if declaration is None and self._takes_rest:
            self.rest.append(word)
        elif override.is_delete() or override.package is not None:
            self.errors.append(f"{word}: cannot be read; write KEY=VALUE")
        elif declaration is None or (dot and not _is_a(dict, declaration)):
            key, _, value = word.lstrip("+").partition("=")
            self.errors.append(no_such_key(key, value, list(self._by_name)))
        elif override.is_sweep_override():
            self.errors.append(f"{word}: must be {declaration.legal('null')}")
        else:
            self.overrides.append(_for_hydra(quoted.lstrip("+"), override, declaration))

    def compose(self, name: str) -> dict[str, Any]:
        """Values of all options; those of words that Hydra refuses stay as they are declared.

        Args:
            name: of the schema.

        Raises:
            ConfigError: an interpolation cannot be resolved.
        """
        ConfigStore.instance().store(name=name, node=schema_of(name, self._declarations))
        before = GlobalHydra.instance().hydra  # of an application of the caller's own
        GlobalHydra.instance().clear()
        try:
            with initialize(config_path=None, version_base="1.3"):
                try:
                    cfg = compose(name, overrides=self.overrides)
                except COMPOSE_ERRORS:
                    cfg = compose(name, overrides=[word for word in self.overrides if self._is_of_its_type(name, word)])
        finally:
            GlobalHydra.instance().hydra = before
        try:
            values: Any = OmegaConf.to_container(cfg, resolve=True)
        except OmegaConfBaseException:
            from keisei_lightning.config.validation import unresolved_errors  # more than most commands need

            raise ConfigError([*self.errors, *unresolved_errors(cfg)]) from None
        return dict(values)

    def _is_of_its_type(self, name: str, word: str) -> bool:
        """Whether Hydra takes a word; if it does not, that is an error."""
        try:
            compose(name, overrides=[word])
        except COMPOSE_ERRORS:
            word = word.lstrip("+")
            declaration = self._by_name[word.partition("=")[0].partition(".")[0]]
            self.errors.append(f"{word}: must be {declaration.legal('null')}")
            return False
        return True


def _for_hydra(word: str, override: Override, declaration: Declaration) -> str:
    """The word as Hydra wants it for an option of this kind."""
    if _is_a(dict, declaration):
        return f"++{word}"  # its keys are not declared
    key, _, value = word.partition("=")
    if _is_a(list, declaration) and not isinstance(override.value(), list | NoneType) and not value.startswith("${"):
        return f"{key}=[{value}]"
    return word


def _is_a(kind: type, declaration: Declaration) -> bool:
    return any(get_origin(one) is kind for one in declaration.kinds)


def _value_errors(declarations: Sequence[Declaration], values: Mapping[str, Any]) -> Iterator[str]:
    for declaration in declarations:
        value = values[declaration.name]
        if error := declaration.error(value, none="null"):
            yield error
        elif value == []:
            yield f"{declaration.name}=[]: must hold one or more"
