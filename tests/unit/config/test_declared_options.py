"""What an option is called, does and may be stands once: all that is shown or checked of it follows from there."""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write

import keisei_lightning
from keisei_lightning.commands.train_help import help_text
from keisei_lightning.config import schemas
from keisei_lightning.config.compose_errors import explain
from keisei_lightning.config.option_checks import declared_errors, option_errors
from keisei_lightning.config.reference import as_yaml, reference
from keisei_lightning.config.schemas import SCHEMAS, SECTIONS, config_dir, register_configs
from keisei_lightning.models.options import NetworkOptions
from keisei_lightning.parallel.options import (
    BatchOptions,
    ClusterOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
)
from keisei_lightning.system.options import Declaration, declared, spelled
from keisei_lightning.training.options import (
    CheckpointOptions,
    EvaluationOptions,
    LeagueOptions,
    MinibatchOptions,
    PPOOptions,
    SearchTargetOptions,
    SnapshotOptions,
    WeightSyncOptions,
)

PACKAGE = Path(keisei_lightning.__file__).parent
DECLARED_IN: dict[str, tuple[type, ...]] = {
    "": (schemas.RunOptions,),
    "env": (schemas.EnvOptions,),
    "model": (NetworkOptions,),
    "ppo": (PPOOptions, MinibatchOptions),
    "search_targets": (SearchTargetOptions,),
    "parallel": (CollectorOptions, WorkerOptions, SupervisionOptions, ClusterOptions),
    "opponents": (schemas.OpponentMode, OpponentOptions, SnapshotOptions, LeagueOptions),
    "weight_sync": (WeightSyncOptions,),
    "trainer": (schemas.TrainerOptions,),
    "logger": (schemas.LoggerOptions,),
    "evaluation": (EvaluationOptions,),
    "checkpoint": (CheckpointOptions,),
}
OTHER_DEFAULTS = {"parallel.num_workers": "auto", "ppo.final_learning_rate": 3e-4, "evaluation.num_games": 200}
"""Recipes that do not begin where the component alone does."""

KEYS = [
    (section, declaration)
    for section, classes in DECLARED_IN.items()
    for cls in classes
    for declaration in declared(cls)
    if section or declaration.name not in SECTIONS
]
each_section = pytest.mark.parametrize("section", DECLARED_IN, ids=[name or "run" for name in DECLARED_IN])


def options_of(section: str) -> list[Declaration]:
    return [option for name, option in KEYS if name == section]


def name_of(section: str, option: Declaration) -> str:
    return f"{section}.{option.name}" if section else option.name


@pytest.fixture(scope="module")
def config() -> DictConfig:
    register_configs()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("config", overrides=["output_dir=results/test", "parallel=serial"])


def errors_with(config: DictConfig, key: str, value: Any) -> list[str]:
    """What is said of a configuration with this value."""
    changed = config.copy()
    with read_write(changed), open_dict(changed):
        OmegaConf.update(changed, key, value)
        return list(declared_errors(changed))


def test_every_section_is_made_of_what_its_components_declare() -> None:
    assert SECTIONS.keys() == DECLARED_IN.keys()
    for section, classes in DECLARED_IN.items():
        assert [each.name for each in SECTIONS[section]] == [each.name for cls in classes for each in declared(cls)]


@each_section
def test_the_schema_has_the_declared_types_and_defaults(section: str) -> None:
    own = {"": [schemas.Config], "checkpoint": [schemas.CheckpointConfig], "model": [SCHEMAS["resnet"], SCHEMAS["mlp"]]}
    for schema in own.get(section) or [SCHEMAS[section]]:
        fields = {field.name: field for field in dataclasses.fields(schema)}
        for option in options_of(section):
            field = fields[option.name]
            assert field.type == Union[(*option.kinds, *([None] if option.may_be_none else []))]
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            default = MISSING if option.default is dataclasses.MISSING else option.default
            if section != "model":  # whose default is each file's own
                assert made == OTHER_DEFAULTS.get(name_of(section, option), default)


@each_section
def test_each_end_of_the_bounds_is_checked_from_both_sides(section: str, config: DictConfig) -> None:
    for option in SECTIONS[section]:
        if option.bounds is None:
            continue
        key, bounds = name_of(section, option), option.bounds
        step: float = 1e-9 if float in option.kinds else 2 if option.is_even else 1
        for end, is_open, outwards in ((bounds.low, bounds.open_low, -step), (bounds.high, bounds.open_high, step)):
            if math.isinf(end):
                continue
            end = end if float in option.kinds else int(end)
            assert bool(errors_with(config, key, end)) == is_open
            assert errors_with(config, key, end - outwards) == []
            (line,) = errors_with(config, key, end + outwards)
            assert line == f"{key}={spelled(end + outwards)}: must be {option.legal('null')}"


@each_section
def test_each_choice_is_legal_and_any_other_word_is_one_line(section: str, config: DictConfig) -> None:
    for option in SECTIONS[section]:
        key = name_of(section, option)
        for word in option.choices:
            assert errors_with(config, key, word) == []
        if option.choices or (option.pattern and str in option.kinds):
            assert errors_with(config, key, "no-such") == [f"{key}=no-such: must be {option.legal('null')}"]
        if option.may_be_none:
            assert errors_with(config, key, None) == []


def test_a_value_of_another_type_is_one_line_that_says_what_is_legal() -> None:
    for section, options in SECTIONS.items():
        for option in options:
            if section or option.name not in SECTIONS:
                word = f"{name_of(section, option)}=some"
                refused = ConfigCompositionException(
                    f"Error merging override {word}"
                )  # as Hydra does it: test_config.py
                assert explain(refused, [word]) == f"{word}: must be {option.legal('null')}"


def test_a_configuration_is_checked_with_what_is_declared(config: DictConfig) -> None:
    changed = config.copy()
    with read_write(changed):
        changed.ppo.gamma = 2.0
        changed.parallel.heartbeat_s = 0.1
        assert option_errors(changed) == list(declared_errors(changed))
    assert len(option_errors(changed)) == 2


def test_the_reference_says_what_is_declared() -> None:
    shown = {key.name: key for part in reference() for key in part.keys}
    assert list(shown) == [name_of(section, option) for section, option in KEYS]
    for section, option in KEYS:
        key = shown[name_of(section, option)]
        default = OTHER_DEFAULTS.get(key.name, option.default)
        assert as_yaml(key.default) == ("" if default is dataclasses.MISSING else as_yaml(default))
        assert key.sentence == option.sentence
    for section, options in SECTIONS.items():
        for option in options:
            if section or option.name not in SECTIONS:
                assert shown[name_of(section, option)].legal("null") == option.legal("null")


def test_the_help_has_each_key_with_its_value_its_sentence_and_what_is_legal() -> None:
    register_configs()
    text = " ".join(help_text(["ppo.epochs=7"]).split())
    assert " ppo.epochs=7 Shuffled passes" in text
    for section, options in SECTIONS.items():
        for option in options:
            if section or option.name not in SECTIONS:
                said = f"{option.sentence} ({option.legal('null')})"
                assert re.search(rf" {re.escape(name_of(section, option))}=.{{0,100}}? {re.escape(said)}", text), said


ADDED = """
import dataclasses, sys
from dataclasses import dataclass
from keisei_lightning.system.options import option
from keisei_lightning.training import options

@dataclass(frozen=True, kw_only=True)
class WeightSyncOptions(options.WeightSyncOptions):
    beak: int = option(3, "Length of the beak.", low=1, high=9)

options.WeightSyncOptions = WeightSyncOptions  # as if it had been declared there

from keisei_lightning.commands.train import main
from keisei_lightning.config.reference import reference

print(main(["--help"]), main(["weight_sync.beak=10"]), main(["weight_sync.beak=x"]), main(["weight_sync.beek=2"]))
print(*[(key.name, key.default, key.legal()) for section in reference() for key in section.keys if "beak" in key.name])
print("torch" in sys.modules)
"""


@pytest.mark.slow
def test_an_option_that_is_added_in_one_place_is_everywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ADDED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    out = " ".join(done.stdout.split())
    assert "weight_sync.beak=3 Length of the beak. (a whole number, from 1 to 9)" in out
    assert out.endswith("0 2 2 2 ('weight_sync.beak', 3, 'a whole number, from 1 to 9') False")
    assert done.stderr.splitlines() == [
        "keisei: weight_sync.beak=10: must be a whole number, from 1 to 9",
        "keisei: weight_sync.beak=x: must be a whole number, from 1 to 9",
        "keisei: weight_sync.beek=2: no such key (did you mean weight_sync.beak?); must be one of every_n_steps, beak",
    ]


def texts() -> Iterator[tuple[Path, str]]:
    """All string constants of the package; neighbours that Python joins are one."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file.relative_to(PACKAGE), " ".join(node.value.split())


def test_the_sentence_of_an_option_stands_once() -> None:
    every = list(texts())
    for option in [option for _, option in KEYS] + list(declared(BatchOptions)):
        assert len(option.sentence) > 10, option.name
        where = [file for file, text in every if option.sentence in text]
        assert len(where) == 1, (option.name, where)


def test_bounds_and_choices_are_declared_and_not_listed_again() -> None:
    sources = {
        str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))
    }
    assert {name for name, text in sources.items() if re.search(r"\bBounds\(", text)} == {
        "config/schemas.py",  # Lightning takes seeds of 32 bits
        "system/options.py",
    }
    assert [
        name for name, text in sources.items() if re.search(r"\bcheck\w*\(locals\(\)|errors\(locals\(\)", text)
    ] == []
    listed = [
        (name, {item.value for item in node.elts if isinstance(item, ast.Constant)})
        for name, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Tuple | ast.List | ast.Set)
    ]
    for _, option in KEYS:
        if len(option.choices) > 1:
            where = [name for name, words in listed if words == set(option.choices)]
            assert len(where) == 1, (option.name, where)
