"""What an option is called, does and may be stands once: all that is shown or checked of it follows from there."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write

import keisei_lightning
from keisei_lightning.commands.train_help import help_text
from keisei_lightning.config import schemas
from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.option_checks import option_errors
from keisei_lightning.config.reference import as_yaml, reference
from keisei_lightning.config.schemas import SCHEMAS, SECTIONS, config_dir, register_configs
from keisei_lightning.models.options import NetworkOptions
from keisei_lightning.parallel.options import (
    BatchOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
)
from keisei_lightning.system.options import Declaration, declared
from keisei_lightning.training.options import (
    CheckpointOptions,
    EvaluationOptions,
    MinibatchOptions,
    PPOOptions,
    SnapshotOptions,
    WeightSyncOptions,
)

PACKAGE = Path(keisei_lightning.__file__).parent
DECLARED_IN: dict[str, tuple[type, ...]] = {
    "": (schemas.RunOptions,),
    "env": (schemas.EnvOptions,),
    "model": (NetworkOptions,),
    "ppo": (PPOOptions, MinibatchOptions),
    "parallel": (CollectorOptions, WorkerOptions, SupervisionOptions),
    "opponents": (schemas.OpponentMode, OpponentOptions, SnapshotOptions),
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
each_key = pytest.mark.parametrize(
    ("section", "option"), KEYS, ids=[f"{section}.{option.name}" for section, option in KEYS]
)


def name_of(section: str, option: Declaration) -> str:
    return f"{section}.{option.name}" if section else option.name


@pytest.fixture(scope="module")
def config() -> Iterator[DictConfig]:
    register_configs()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield compose("config", overrides=["output_dir=results/test", "parallel=serial"])
    GlobalHydra.instance().clear()


@pytest.fixture(scope="module")
def help_lines() -> str:
    register_configs()
    GlobalHydra.instance().clear()
    return " ".join(help_text([]).split())


def errors_with(config: DictConfig, key: str, value: Any) -> list[str]:
    """Errors of this key, of a configuration with this value."""
    changed = config.copy()
    with read_write(changed), open_dict(changed):
        OmegaConf.update(changed, key, value)
        return [line for line in option_errors(changed) if line.startswith(f"{key}=") and "must be" in line]


def test_every_section_is_made_of_what_its_components_declare() -> None:
    assert SECTIONS.keys() == DECLARED_IN.keys()
    for section, classes in DECLARED_IN.items():
        assert [each.name for each in SECTIONS[section]] == [each.name for cls in classes for each in declared(cls)]


@each_key
def test_the_schema_has_the_declared_type_and_default(section: str, option: Declaration) -> None:
    schema = {"": schemas.Config, "checkpoint": schemas.CheckpointConfig, "model": None}.get(
        section, SCHEMAS.get(section)
    )
    for one in [SCHEMAS["resnet"], SCHEMAS["mlp"]] if schema is None else [schema]:
        (field,) = (field for field in dataclasses.fields(one) if field.name == option.name)
        assert field.type == Union[(*option.kinds, *([None] if option.may_be_none else []))]
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = MISSING if option.default is dataclasses.MISSING else option.default
        if section != "model":  # whose default is each file's own
            assert made == OTHER_DEFAULTS.get(name_of(section, option), default)


@each_key
def test_each_end_of_the_bounds_is_checked_from_both_sides(
    section: str, option: Declaration, config: DictConfig
) -> None:
    if option.bounds is None or option.pattern:
        return
    key, bounds, step = name_of(section, option), option.bounds, 1e-9 if float in option.kinds else 1
    step = 2 if option.is_even else step
    for end, is_open, outside in ((bounds.low, bounds.open_low, -step), (bounds.high, bounds.open_high, step)):
        if abs(end) == float("inf"):
            continue
        end = end if float in option.kinds else int(end)
        at_end = [line for line in errors_with(config, key, end) if option.legal("null") in line]
        assert bool(at_end) == is_open
        assert not [line for line in errors_with(config, key, end - outside) if option.legal("null") in line]
        (line,) = errors_with(config, key, end + outside)
        assert line.endswith(f": must be {option.legal('null')}".replace("4294967295", "4294967295"))


@each_key
def test_each_choice_is_legal_and_any_other_word_is_one_line(
    section: str, option: Declaration, config: DictConfig
) -> None:
    key = name_of(section, option)
    for word in option.choices:
        assert not [line for line in errors_with(config, key, word) if option.legal("null") in line]
    if option.choices or (option.pattern and str in option.kinds):
        assert errors_with(config, key, "nothing-like-it") == [f"{key}=nothing-like-it: must be {option.legal('null')}"]


@each_key
def test_a_value_of_another_type_is_one_line_that_says_what_is_legal(section: str, option: Declaration) -> None:
    if set(option.kinds) <= {int, float, bool} and section not in ("model", "trainer"):
        word = f"{name_of(section, option)}=some"
        with initialize_config_dir(str(config_dir()), version_base="1.3"), pytest.raises(COMPOSE_ERRORS) as caught:
            compose("config", overrides=[word])
        assert explain(caught.value, [word]) == f"{word}: must be {SECTIONS_BY_KEY[word[:-5]].legal('null')}"


SECTIONS_BY_KEY = {name_of(section, each): each for section, options in SECTIONS.items() for each in options}


@each_key
def test_the_reference_says_what_is_declared(section: str, option: Declaration) -> None:
    key = name_of(section, option)
    (found,) = (each for part in reference() for each in part.keys if each.name == key)
    default = OTHER_DEFAULTS.get(key, option.default)
    assert found.default == ("" if default is dataclasses.MISSING else as_yaml(default))
    assert found.legal == SECTIONS_BY_KEY[key].legal("null")
    assert found.sentence == option.sentence


@each_key
def test_the_help_has_the_sentence_and_what_is_legal(section: str, option: Declaration, help_lines: str) -> None:
    key = name_of(section, option)
    assert re.search(
        rf"(^|\s){re.escape(key)}=.{{0,120}}?\s{re.escape(option.sentence)} "
        rf"\({re.escape(SECTIONS_BY_KEY[key].legal('null'))}\)",
        help_lines,
    )


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
print(*[key for section in reference() for key in section.keys if key.name == "weight_sync.beak"])
print("torch" in sys.modules)
"""


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
    assert out.endswith(
        "0 2 2 2 Key(name='weight_sync.beak', default='3', legal='a whole number, from 1 to 9', "
        "sentence='Length of the beak.') False"
    )
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
        assert len(option.sentence) > 15, option.name
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
    declarations = r"\boption\("
    for _, option in KEYS:
        if len(option.choices) < 2:
            continue
        quoted = r",\s*".join(f'"{re.escape(word)}"' for word in option.choices)
        where = {name for name, text in sources.items() if re.search(quoted, text)}
        assert all(re.search(declarations, sources[name]) for name in where), (option.name, where)
