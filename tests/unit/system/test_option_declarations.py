"""An option is declared once; what is legal, and how it is said, follows from the declaration."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import Bounds, Options, declared, option


@dataclass(frozen=True, kw_only=True)
class Every(Options):
    """Of every kind."""

    pause_s: float = option(0.5, "Seconds between two.", above=0)
    workers: int | Literal["auto"] = option("auto", "Worker processes.", low=1, high=64)
    mode: Literal["sync", "async"] = option("sync", "How.")
    limit: int | None = option(None, "Most of them.", low=0)
    share: float = option(1.0, "Of all.", above=0, below=2)
    names: list[str] = option(factory=list, sentence="Of players.")
    is_quick: bool = option(False, "Hurry.")
    given: str = option(sentence="Must be given.")
    beside: int = 3


def test_what_is_declared_can_be_read() -> None:
    names = [declaration.name for declaration in declared(Every)]
    assert names == ["pause_s", "workers", "mode", "limit", "share", "names", "is_quick", "given"]
    by_name = {declaration.name: declaration for declaration in declared(Every)}
    assert by_name["pause_s"].sentence == "Seconds between two."
    assert by_name["pause_s"].bounds == Bounds(low=0, open_low=True)
    assert by_name["workers"].choices == ("auto",)
    assert by_name["mode"].choices == ("sync", "async")
    assert by_name["names"].default == []
    assert by_name["given"].default is dataclasses.MISSING
    assert by_name["limit"].may_be_none
    assert by_name["limit"].kinds == (int,)


@pytest.mark.parametrize(
    ("key", "value", "legal"),
    [
        ("pause_s", 0.0, "a number, more than 0"),
        ("pause_s", math.inf, "a number, more than 0"),
        ("pause_s", math.nan, "a number, more than 0"),
        ("pause_s", True, "a number, more than 0"),
        ("workers", 0, "auto, or a whole number, from 1 to 64"),
        ("workers", 1.5, "auto, or a whole number, from 1 to 64"),
        ("workers", "all", "auto, or a whole number, from 1 to 64"),
        ("mode", "later", "one of sync, async"),
        ("mode", None, "one of sync, async"),
        ("limit", -1, "a whole number, 0 or more, or None"),
        ("share", 2.0, "a number, more than 0 and less than 2"),
        ("is_quick", 1, "true or false"),
        ("given", 7, "a word"),
    ],
)
def test_an_illegal_value_is_one_line_with_what_is_legal(key: str, value: object, legal: str) -> None:
    values: dict[str, Any] = {"given": "x", key: value}
    with pytest.raises(ConfigError) as caught:
        Every(**values)
    (line,) = caught.value.errors
    assert line.startswith(f"{key}=")
    assert line.endswith(f": must be {legal}")


def test_all_illegal_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Every(given="x", limit=-3, share=2.0)
    assert [line.partition("=")[0] for line in caught.value.errors] == ["limit", "share"]


def test_legal_values_are_kept() -> None:
    made = Every(given="x", workers=64, limit=None, pause_s=1, mode="async")
    assert (made.workers, made.limit, made.pause_s, made.mode) == (64, None, 1, "async")


def test_an_error_is_written_as_its_reader_writes_values() -> None:
    (limit,) = (declaration for declaration in declared(Every) if declaration.name == "limit")
    line = limit.error(-3, prefix="parallel.", none="null")
    assert line == "parallel.limit=-3: must be a whole number, 0 or more, or null"
