"""Options of USI engines: what an engine declares, and the commands that set them.

An engine declares ``option name N type T default D min L max H var A var B``, and ignores what it does not know. So
values are checked against the declaration before they are sent, as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from keisei_lightning.errors import ConfigError

__all__ = ["UsiOption", "option_commands"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UsiOption:
    """An option that an engine declares.

    Attributes:
        name: in the engine's own spelling.
        kind: ``check``, ``spin``, ``combo``, ``button``, ``string`` or ``filename``.
        low: smallest value of a ``spin``.
        high: largest value of a ``spin``.
        choices: values of a ``combo``.
    """

    name: str
    kind: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> UsiOption | None:
        """Parse ``name N type T default D min L max H var A var B``; None where the text is something else."""
        found = re.match(r"name (.+?) type (\S+)(.*)", text)
        if not found:
            return None
        name, kind, rest = found.groups()
        low, high = (re.search(rf"\b{word} (-?\d+)", rest) for word in ("min", "max"))
        return cls(
            name=name,
            kind=kind,
            low=int(low[1]) if low else None,
            high=int(high[1]) if high else None,
            choices=tuple(re.findall(r"\bvar (.+?)(?= var |$)", rest)),
        )

    def refusal(self, text: str) -> str:
        """What is wrong with a value; empty where nothing is."""
        if self.kind == "button" and text.lower() != "true":
            return "must be true: it is a button, which is pressed or not named"
        if self.kind == "check" and text.lower() not in ("true", "false"):
            return "must be true or false"
        if self.kind == "spin" and not self._holds(text):
            bounds = (("from", self.low), ("to", self.high))
            return " ".join(["must be a whole number", *(f"{word} {end}" for word, end in bounds if end is not None)])
        if self.kind == "combo" and self.choices and self._choice(text) is None:
            return f"must be one of {', '.join(self.choices)}"
        if re.search(r"[\r\n]", text):
            return "must be one line"
        return ""

    def command(self, text: str) -> str:
        """The ``setoption`` command that sets the option to a value."""
        if self.kind == "button":
            return f"setoption name {self.name}"
        if self.kind == "check":
            text = text.lower()
        elif self.kind == "combo":
            text = self._choice(text) or text
        return f"setoption name {self.name} value {text or '<empty>'}"

    def _holds(self, text: str) -> bool:
        """Whether a number lies between the ends of a ``spin``."""
        if not re.fullmatch(r"-?[0-9]{1,18}", text):  # no engine counts further
            return False
        return (self.low is None or int(text) >= self.low) and (self.high is None or int(text) <= self.high)

    def _choice(self, text: str) -> str | None:
        """A value of a ``combo`` in the engine's own spelling; case does not matter."""
        return next((choice for choice in self.choices if choice.casefold() == text.casefold()), None)


def option_commands(options: Mapping[str, object], declared: Sequence[UsiOption]) -> list[str]:
    """The ``setoption`` commands, in the order of the options.

    Args:
        options: values (str, number or bool) by name; the case of names, and "_" for " ", do not matter.
        declared: the options that the engine has declared.

    Raises:
        ConfigError: the engine has no such option or does not allow its value; a line for each.
    """
    known = {_canonical(option.name): option for option in (*_ALWAYS_THERE, *declared)}
    commands, errors = [], []
    for key, value in options.items():
        option = known.get(_canonical(key))
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if option is None:
            names = ", ".join(sorted(option.name for option in declared)) or "none"
            errors.append(f"{key}={text}: the engine has no such option; it has {names}")
        elif not isinstance(value, str | int | float):
            errors.append(f"{key}={text}: must be a text, a number, true or false")
        elif reason := option.refusal(text):
            errors.append(f"{key}={text}: {reason}")
        else:
            commands.append(option.command(text))
    if errors:
        raise ConfigError(errors)
    return commands


def _canonical(name: str) -> str:
    """One spelling for all spellings of an option's name: engines mix those of UCI and USI."""
    return re.sub("^usi ", "uci ", name.casefold().replace("_", " "))


# The protocol gives every engine these options, declared or not.
_ALWAYS_THERE: Final = (UsiOption(name="USI_Hash", kind="spin", low=1), UsiOption(name="USI_Ponder", kind="check"))
