"""What the TAB key offers, word by word."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei_lightning.commands import main as cli
from keisei_lightning.commands.completion import candidates
from keisei_lightning.config.schemas import config_groups

COMMANDS = list(cli.COMMANDS)


def offered(line: str) -> list[str]:
    return candidates(line, COMMANDS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("keisei tr", ["train "]),
        ("keisei train parallel.num", ["parallel.num_agents=", "parallel.num_workers="]),
        ("keisei train mod", ["model.", "model="]),
        ("keisei train model=", ["model=large ", "model=medium ", "model=mlp ", "model=small ", "model=tiny "]),
        ("keisei train -m model=s", ["model=small "]),
        ("keisei train parallel.mode=", [f"parallel.mode={mode} " for mode in ("central", "ray", "serial", "workers")]),
        ("keisei train trainer.detect_anomaly=", ["trainer.detect_anomaly=false ", "trainer.detect_anomaly=true "]),
        ("keisei train ppo.epochs=", ["ppo.epochs=2 "]),
        ("keisei train experiment=connect_four ppo.ep", ["ppo.epochs="]),
        ("keisei train experiment=connect_four env.game=", ["env.game=connect_four "]),
        ("keisei train env.game=hex(board_size=5) env.game=h", ["env.game=hex(board_size=5) "]),
        ("keisei train +hparams", ["+hparams_search="]),
        ("keisei train ++trainer.max_t", ["++trainer.max_time="]),
        ("keisei train hydra.sweeper.max", ["hydra.sweeper.max_batch_size="]),
        ("keisei train ppo.gama=1 model=s", ["model=small "]),  # what stands before may be wrong
        ("keisei train ppo.gama=1 ppo.ga", ["ppo.gamma="]),
        ("keisei train 'env.game=hex(", []),
        ("keisei train nosuch.", []),
        ("keisei bench pr", ["profile "]),
        ("keisei bench profile model=s", ["model=small "]),
        ("keisei bench profile it", ["iterations="]),
        ("keisei bench profile experiment=smoke ppo.ep", ["ppo.epochs="]),
        ("keisei bench scale broadcast=", ["broadcast=star ", "broadcast=tree "]),
        ("keisei bench scale model=s", ["model=small "]),
        ("keisei bench tune model=s", ["model=small "]),
        ("keisei bench tune se", ["seconds=", "seed="]),
        ("keisei bench collect schedule=", ["schedule=async ", "schedule=sync "]),
        ("keisei bench nosuch m", []),
        ("keisei eval gre", ["greedy="]),
        ("keisei eval greedy=t", ["greedy=true "]),
        ("keisei eval games=", ["games=400 "]),
        ("keisei export for", ["format="]),
        ("keisei export format=t", ["format=torch_export "]),
        ("keisei play sid", ["side="]),
        ("keisei play side=s", ["side=second "]),
        ("keisei games ", []),
        ("", []),
    ],
)
def test_a_word_goes_on_as_it_may(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_after_the_program_come_the_commands() -> None:
    assert offered("keisei ") == sorted(f"{command} " for command in COMMANDS)


def test_an_empty_word_may_become_any_group_section_or_key() -> None:
    words = offered("keisei train ")
    assert {f"{group}=" for group in config_groups()} <= set(words)
    assert {"ppo.", "parallel.", "trainer.", "seed=", "ckpt_path=", "hydra."} <= set(words)
    assert not any(word.startswith("_") for word in words)


def test_files_are_offered_for_keys_that_want_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "last.ckpt").touch()
    (tmp_path / ".hidden").mkdir()
    assert offered("keisei train ckpt_path=") == ["ckpt_path=runs/"]
    assert offered("keisei eval checkpoint=runs/") == ["checkpoint=runs/last.ckpt ", "checkpoint=runs/one/"]
    assert offered("keisei train ckpt_path=nowhere/") == []


@pytest.mark.parametrize("words", [["-sc"], ["-sc", "install=tcsh"], ["-sc", "query=bash", "x"], ["train", "-sc"]])
def test_what_it_takes_is_told_in_a_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith(": must be install=SHELL, uninstall=SHELL or query=SHELL with SHELL one of bash, fish, zsh\n")


def test_the_cursor_may_stand_within_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "keisei tr model=small")
    monkeypatch.setenv("COMP_POINT", "9")
    assert cli.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out == "train \n"


def test_runs_and_doctor_offer_their_words_and_keys() -> None:
    assert offered("keisei runs com") == ["compare "]
    assert offered("keisei runs plot last wh") == ["what="]
    assert offered("keisei runs plot last x=m") == ["x=minutes "]
    assert offered("keisei runs nosuch ") == []
    assert offered("keisei doctor j") == ["json="]
