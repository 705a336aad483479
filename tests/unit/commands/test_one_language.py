"""``keisei eval`` and each bench speak Hydra's language, from what their options declare; so does ``keisei train``."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml

from keisei_lightning.commands import main as cli
from keisei_lightning.commands.bench.options import BENCHES
from keisei_lightning.commands.compose import compose_options
from keisei_lightning.commands.doctor import DoctorOptions
from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.commands.runs.options import VERBS
from keisei_lightning.config.reference import as_yaml
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.options import Declaration, declared

COMMANDS: dict[str, type] = {
    "eval": EvalOptions,
    "doctor": DoctorOptions,
    **{f"bench {name}": bench.options for name, bench in BENCHES.items()},
    **{f"runs {name}": verb.options for name, verb in VERBS.items()},
}
KEYS = [(command, option) for command, options in COMMANDS.items() for option in declared(options)]
IDS = [f"{command} {option.name}" for command, option in KEYS]


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def words_of(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def bad_values(option: Declaration) -> list[str]:
    """Of another type, out of range, no choice, no list."""
    values = []
    if {int, float, bool, list[int]} & set(option.kinds):
        values.append("perhaps")
    if option.choices:
        values += ["nosuch", f"[{option.choices[0]},nosuch]"]
    if option.bounds is not None:
        values.append(str(option.bounds.low if option.bounds.open_low else option.bounds.low - 1))
    if get_origin(option.kinds[0]) is list:
        values += ["[]", "null"]
    if get_origin(option.kinds[0]) is dict:
        values += ["word", "[1]"]
    if option.pattern:
        values.append("")
    return values or ["[1,2]"]


@pytest.mark.parametrize(("command", "option"), KEYS, ids=IDS)
def test_help_shows_each_key_with_its_default_what_it_does_and_what_is_legal(
    command: str, option: Declaration, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    out = words_of(capsys.readouterr().out)
    assert len(option.sentence) > 5
    assert f" {option.name}={as_yaml(option.default)} {option.sentence} ({option.legal('null')})" in out


@pytest.mark.parametrize(("command", "option"), KEYS, ids=IDS)
@pytest.mark.slow
def test_a_bad_value_of_any_key_is_one_line_and_exit_code_2(
    command: str, option: Declaration, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in bad_values(option):
        assert cli.main([*command.split(), f"{option.name}={value}"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert re.match(rf"keisei: {option.name}=.*: must ", err), (value, err)
        assert value == "[]" or option.legal("null") in err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_configuration_is_shown_and_nothing_is_run(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = COMMANDS[command]
    assert cli.main([*command.split(), "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert {key: value for key, value in shown.items() if key != "training"} == {
        option.name: option.default for option in declared(options)
    }
    assert cli.main([*command.split(), "--cfg=job", "--resolve"]) == 0
    capsys.readouterr()
    assert cli.main([*command.split(), "--cfg", "hydra"]) == 2
    assert capsys.readouterr().err == "keisei: --cfg hydra: must be --cfg job\n"


def test_what_is_shown_is_what_would_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["workers=2", "mode=[workers,central]", "write=~/x.json", "kernel=false"]
    assert cli.main(["bench", "collect", "--cfg", "job", *words]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["workers"], shown["mode"], shown["kernel"]) == ([2], ["workers", "central"], False)
    assert shown["write"] == str(Path("~/x.json").expanduser())
    assert cli.main(["bench", "profile", "ppo.gamma=0.5", "iterations=3", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["iterations"], shown["training"]["ppo"]["gamma"]) == (3, 0.5)
    assert shown["training"]["trainer"]["max_epochs"] == 4


@pytest.mark.parametrize("words", ["weights --wings", "rules --no-kernel", "profile experiment=smoke --iterations=3"])
def test_a_flag_is_one_line_that_tells_how_options_are_written(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"keisei: {words.split()[-1]}: no such flag; options are written KEY=VALUE, with KEY one of ")


def test_the_words_of_a_profile_that_are_not_its_own_are_the_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    options = compose_options(
        BENCHES["profile"].options, ["experiment=smoke", "iterations=2", "+env.options.x=1"], rest="overrides"
    )
    assert vars(options)["overrides"] == ("experiment=smoke", "+env.options.x=1")
    assert cli.main(["bench", "profile", "ppo.epoch=3"]) == 2
    assert capsys.readouterr().err.startswith("keisei: ppo.epoch=3: no such key (did you mean ppo.epochs?)")


def test_an_option_is_declared_in_one_place() -> None:
    """A new one shows, is read and is checked without a word anywhere else."""
    from keisei_lightning.commands.help_texts import options_help
    from keisei_lightning.system.options import option

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wider(EvalOptions):
        pauses: list[int] = option(sentence="Seconds between matches.", factory=lambda: [1, 2], low=0, high=60)

    assert "pauses=[1, 2]       Seconds between matches. (a list of whole numbers, each from 0 to 60)" in options_help(
        Wider
    )
    made: Any = compose_options(Wider, ["pauses=[3,4]"])
    assert made == Wider(pauses=[3, 4])
    with pytest.raises(ConfigError) as caught:
        compose_options(Wider, ["pauses=[3,61]", "games=3"])
    assert caught.value.errors == (
        "games=3: must be an even number, from 2 to 100000",
        "pauses=[3,61]: must be a list of whole numbers, each from 0 to 60",
    )


@pytest.mark.slow
def test_every_bench_has_a_module_that_runs_it() -> None:
    for name in BENCHES:
        assert callable(importlib.import_module(f"keisei_lightning.commands.bench.{name}").run)
