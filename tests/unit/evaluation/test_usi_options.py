"""What an engine declares, what is refused, and what is sent."""

from __future__ import annotations

import pytest

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.usi.options import UsiOption, option_commands

DECLARED = [
    option
    for line in (
        "name Skill Level type spin default 20 min -20 max 20",
        "name MultiPV type spin default 1 min 1",
        "name Style type combo default Calm var Calm var Very Wild",
        "name Clear Hash type button",
        "name Ponder type check default false",
        "name BookFile type string default <empty>",
        "name EvalFile type filename default nn.bin",
        "what is this",
    )
    if (option := UsiOption.parse(line)) is not None
]


def test_declarations_are_read() -> None:
    assert [option.name for option in DECLARED] == [
        *("Skill Level", "MultiPV", "Style", "Clear Hash", "Ponder", "BookFile", "EvalFile")
    ]
    assert DECLARED[0] == UsiOption(name="Skill Level", kind="spin", low=-20, high=20)
    assert DECLARED[2] == UsiOption(name="Style", kind="combo", choices=("Calm", "Very Wild"))


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("skill_level", "-5", "Skill Level value -5"),
        ("Skill Level", -5, "Skill Level value -5"),
        ("Style", "very wild", "Style value Very Wild"),
        ("clear_hash", "true", "Clear Hash"),
        ("clear_hash", True, "Clear Hash"),
        ("Ponder", True, "Ponder value true"),
        ("Ponder", "False", "Ponder value false"),
        ("BookFile", "none", "BookFile value none"),
        ("BookFile", "null", "BookFile value null"),
        ("BookFile", "True", "BookFile value True"),
        ("BookFile", "", "BookFile value <empty>"),
        ("EvalFile", "a b/nn.bin", "EvalFile value a b/nn.bin"),
        # The protocol has these for every engine; so they have a kind, too.
        ("USI_Ponder", "true", "USI_Ponder value true"),
        ("USI_Ponder", True, "USI_Ponder value true"),
        ("usi_hash", "16", "USI_Hash value 16"),
    ],
)
def test_what_is_written_is_sent(key: str, value: object, command: str) -> None:
    assert option_commands({key: value}, DECLARED) == [f"setoption name {command}"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("Skill_Level", "21", "must be a whole number from -20 to 20"),
        ("Skill_Level", "9" * 5000, "must be a whole number from -20 to 20"),
        ("Skill_Level", "2.5", "must be a whole number from -20 to 20"),
        ("MultiPV", "0", "must be a whole number from 1"),
        ("Style", "wild", "must be one of Calm, Very Wild"),
        ("Clear_Hash", "false", "must be true: it is a button, which is pressed or not named"),
        ("Ponder", "1", "must be true or false"),
        ("Ponder", "none", "must be true or false"),
        ("BookFile", "a\nquit", "must be one line"),
        ("BookFile", "a\n", "must be one line"),
        ("BookFile", None, "must be a text, a number, true or false"),
        ("USI_Ponder", "yes", "must be true or false"),
        ("USI_Hash", "0", "must be a whole number from 1"),
        (
            "Skil",
            "3",
            "the engine has no such option; it has BookFile, Clear Hash, EvalFile, MultiPV, Ponder, Skill Level, Style",
        ),
    ],
)
def test_what_the_engine_would_ignore_is_refused(key: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        option_commands({key: value}, DECLARED)
    assert caught.value.errors == (f"{key}={value}: {reason}",)


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        option_commands({"Ponder": "x", "Skill_Level": "3", "a": "b"}, [])
    assert caught.value.errors == tuple(
        f"{option}: the engine has no such option; it has none" for option in ("Ponder=x", "Skill_Level=3", "a=b")
    )
