"""Paths, names, games and players on a command line are taken as they were typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from keisei_lightning.config.quoting import quote_texts, resume_command


def read(word: str) -> Any:
    """The value as Hydra and OmegaConf read it."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return OmegaConf.create({"value": override.value()}).value


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("env.game=hex(board_size=5)", 'env.game="hex(board_size=5)"'),
        ("+env.game=hex(board_size=5)", '+env.game="hex(board_size=5)"'),
        ("env.game=misere(game=tic_tac_toe())", 'env.game="misere(game=tic_tac_toe())"'),
        ("opponents=[random,alpha_beta(depth=5)]", 'opponents=[random,"alpha_beta(depth=5)"]'),
        ("evaluation.opponents=[a(b=1), c(d=2,e=3)]", 'evaluation.opponents=["a(b=1)","c(d=2,e=3)"]'),
        ("opponents=[random,epoch=3-step=9.ckpt]", 'opponents=[random,"epoch=3-step=9.ckpt"]'),
        ("opponents=epoch=3-step=9.ckpt", 'opponents="epoch=3-step=9.ckpt"'),
        ("opponents=[a,'b,c.ckpt']", "opponents=[a,'b,c.ckpt']"),
        ("opponents=[usi(command='x -y, z',nodes=3),b]", "opponents=[\"usi(command='x -y, z',nodes=3)\",b]"),
        ("opponents=[]", "opponents=[]"),
        ("ckpt_path=epoch=3-step=9.ckpt", 'ckpt_path="epoch=3-step=9.ckpt"'),
        ("checkpoint=a=1/b,c.ckpt", 'checkpoint="a=1/b,c.ckpt"'),
        ("results_dir=[a]{b}(c)", 'results_dir="[a]{b}(c)"'),
        ("name=it's", 'name="it\'s"'),
        ('name=say "x"', "name='say \"x\"'"),
        ("name=1e3", 'name="1e3"'),
        ("name=2026_11", 'name="2026_11"'),
        ("name=true", 'name="true"'),
        ("output_dir=a\\b=c\\", 'output_dir="a\\b=c\\\\"'),
    ],
)
def test_what_hydra_would_take_apart_gets_quotation_marks(word: str, quoted: str) -> None:
    assert quote_texts([word]) == [quoted]
    OverridesParser.create().parse_overrides([quoted])


@pytest.mark.parametrize(
    "word",
    [
        "env.game=choice(hex,chess)",
        "ppo.gamma=1",
        "-m",
        "ckpt_path=null",
        "ckpt_path=",
        "ckpt_path=last",
        r"ckpt_path=epoch\=3.ckpt",
        "ckpt_path='a=b.ckpt'",
        "ckpt_path=a b.ckpt",
        "results_dir=${oc.env:HOME}/x",
        'opponents=[random,"alpha_beta(depth=5)"]',
        "opponents=snapshots",
        "opponents=random,tactics",
        "env.game=hex,shogi",
        "model={kind:mlp,channels:8}",
    ],
)
def test_other_words_stay_as_they_are(word: str) -> None:
    assert quote_texts([word]) == [word]


def test_the_commas_of_a_sweep_stay() -> None:
    words = ["-m", "ckpt_path=a=1.ckpt,b.ckpt", "env.game=hex(board_size=5),shogi", "opponents=[a,b],[c=.ckpt]"]
    assert quote_texts(words) == [
        "-m",
        'ckpt_path="a=1.ckpt",b.ckpt',
        'env.game="hex(board_size=5)",shogi',
        'opponents=[a,b],["c=.ckpt"]',
    ]


@pytest.mark.parametrize("key", ["ckpt_path", "checkpoint", "results_dir", "output_dir", "hydra.run.dir"])
def test_a_tilde_is_the_home_folder_where_a_path_is_meant(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quote_texts([f"{key}=~/runs"]) == [f"{key}={tmp_path}/runs"]
    assert quote_texts([f"{key}=~"]) == [f"{key}={tmp_path}"]
    assert read(quote_texts([f"{key}=~/a=b,c"])[0]) == f"{tmp_path}/a=b,c"


def test_opponents_that_are_files_may_begin_with_a_tilde_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(quote_texts(["opponents=[~/a.ckpt,random]"])[0]) == [f"{tmp_path}/a.ckpt", "random"]
    assert quote_texts(["-m", "results_dir=~/a,~/b"])[1] == f"results_dir={tmp_path}/a,{tmp_path}/b"


TEXTS = st.text(st.sampled_from("ab1.=,:;'\"\\/ ~$*?!&|<>()[]{}#-_@%+\té"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_any_text_comes_back_from_a_shell_and_hydra_as_it_was(text: str) -> None:
    (word,) = shlex.split(resume_command(text, 8))[:1]
    assert quote_texts([word]) == [word]
    assert read(word) == text


@settings(max_examples=60, deadline=None)
@given(text=TEXTS.filter(lambda text: text[0] not in "'\"~" and text == text.strip() and "\\" not in text))
def test_any_path_may_be_typed_as_it_is(text: str) -> None:
    if "${" not in text and "(" not in text:
        assert read(quote_texts([f"ckpt_path={text}"])[0]) == text


@pytest.fixture
def overrides() -> Iterator[Callable[[str, list[str]], None]]:
    """Pretends to be in a run that Hydra has started."""
    before, program = HydraConfig.instance().cfg, sys.argv[0]

    def begin(program: str, task: list[str]) -> None:
        sys.argv[0] = program
        HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"overrides": {"task": task}}})  # type: ignore[assignment]

    yield begin
    HydraConfig.instance().cfg, sys.argv[0] = before, program


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/keisei", "keisei train"),
        ("train.py", "python train.py"),
        ("my runs/own_app.py", "python 'my runs/own_app.py'"),
        ("/lib/keisei_lightning/__main__.py", "keisei train"),
    ],
)
def test_the_command_that_resumes_is_the_present_one_with_the_checkpoint(
    program: str, command: str, overrides: Callable[[str, list[str]], None]
) -> None:
    overrides(program, ["experiment=smoke", 'env.game="hex(board_size=5)"', "ckpt_path=a", "trainer.max_epochs=4"])
    assert resume_command("my runs/epoch=3.ckpt", 8) == (
        f"{command} experiment=smoke 'env.game=\"hex(board_size=5)\"' "
        "'ckpt_path=\"my runs/epoch=3.ckpt\"' trainer.max_epochs=8"
    )


def test_a_job_of_a_sweep_is_resumed_alone(overrides: Callable[[str, list[str]], None]) -> None:
    overrides("train.py", ["hparams_search=optuna", "callbacks.pruning.monitor=x", "seed=3", "callbacks.pruning2.x=1"])
    assert resume_command("b.ckpt", 8) == (
        "python train.py seed=3 callbacks.pruning2.x=1 ckpt_path=b.ckpt trainer.max_epochs=8"
    )


def test_in_an_application_that_has_the_run_in_a_section_its_keys_are_named_so(
    overrides: Callable[[str, list[str]], None],
) -> None:
    overrides("app.py", ["title=mine", "self_play.ckpt_path=a"])
    assert resume_command("b.ckpt", 8, "self_play.") == (
        "python app.py title=mine self_play.ckpt_path=b.ckpt self_play.trainer.max_epochs=8"
    )


def test_outside_of_hydra_only_its_two_words_are_told() -> None:
    assert resume_command("results/last.ckpt", 8) == "ckpt_path=results/last.ckpt trainer.max_epochs=8"
