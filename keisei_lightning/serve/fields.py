"""What a client has sent, read field by field. A client may be anybody's program."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from keisei_lightning.errors import KeiseiError

__all__ = ["Fields", "RequestError"]


class RequestError(KeiseiError):
    """A request that cannot be done, and why.

    Args:
        status: HTTP's number for it.
        message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Fields:
    """A JSON object whose fields are asked for one by one; one that nobody asks for is an error.

    Args:
        values: the object.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """Read a request's body.

        Raises:
            RequestError: it is no JSON object.
        """
        try:
            values = json.loads(body.decode("utf-8") or "{}", parse_constant=_refuse)
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body cannot be read as JSON ({_line(error)})") from error
        if not isinstance(values, dict):
            raise RequestError(400, f"the body is a {type(values).__name__}; must be a JSON object")
        return cls(values)

    def done(self) -> None:
        """Say that all fields have been asked for.

        Raises:
            RequestError: there are more.
        """
        if self._values:
            name = next(iter(self._values))
            raise RequestError(400, f"{name[:40]}: there is no such field here")

    def text(self, name: str, default: str | None = None, *, longest: int = 200) -> str:
        """A text.

        Raises:
            RequestError: it is missing, none, or too long.
        """
        value = self._values.pop(name, default)
        if not isinstance(value, str) or len(value) > longest:
            self._refuse(name, value, f"a text of at most {longest} characters")
        return value

    def optional_text(self, name: str, *, longest: int = 200) -> str | None:
        """A text, or None where it is missing, null or empty."""
        if self._values.get(name) in (None, ""):
            self._values.pop(name, None)
            return None
        return self.text(name, longest=longest)

    def whole(self, name: str, default: int | None = None, *, low: int, high: int) -> int:
        """A whole number.

        Raises:
            RequestError: it is missing, none, or out of its range.
        """
        value = self._values.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._refuse(name, value, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float | None = None, *, low: float, high: float) -> float:
        """A finite number.

        Raises:
            RequestError: it is missing, none, or out of its range.
        """
        value = self._values.pop(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            self._refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def choice(self, name: str, default: str | None = None, *, choices: Sequence[str]) -> str:
        """One of some words.

        Raises:
            RequestError: it is missing, or another one.
        """
        value = self._values.pop(name, default)
        if not isinstance(value, str) or value not in choices:
            self._refuse(name, value, f"one of {', '.join(choices)}")
        return value

    def _refuse(self, name: str, value: object, legal: str) -> NoReturn:
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        raise RequestError(400, f"{name}={shown}: must be {legal}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
