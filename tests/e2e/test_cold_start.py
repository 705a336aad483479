"""Nobody waits for torch to be told no, or how to ask: what is loaded when a command answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_bad_configurations import BAD

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"torch", "lightning", "torchrl", "tensordict"}
GAMES = {"pyspiel", "rsshogi"}
OTHERS = {"matplotlib", "scipy"}

pytestmark = pytest.mark.process

# Types one command line after the other, and tells which libraries are loaded after each.
DRIVER = """
import contextlib, io, json, sys
from keisei_lightning.commands.main import main
ended = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code or 0
    loaded = sorted({name.partition(".")[0] for name in sys.modules})
    ended.append({"code": code, "out": out.getvalue(), "err": err.getvalue(), "loaded": loaded})
json.dump(ended, sys.stdout)
"""

HELP = [
    ["--help"],
    ["--version"],
    ["-sc", "install=bash"],
    ["eval", "--help"],
    ["export", "--help"],
    ["bench", "--help"],
    *(["bench", name, "--help"] for name in ("collect", "learn", "profile", "rules", "tune", "weights")),
    ["train", "--help"],
    ["train", "--help", "experiment=shogi", "model=large"],
]

# What only an import of torch can tell: what a network's own class takes, a GPU, and what is in a whole checkpoint.
NEEDS_TORCH = ("model._target_=torch", "parallel.worker_device=cuda:99", "ckpt_path=other_game.ckpt")

BAD_TRAINING = [
    # Words with a space or a control character of their own are a list there, and are typed by that test alone.
    *(
        words
        for words, _ in BAD
        if isinstance(words, str) and not words.startswith(NEEDS_TORCH) and words != "logger=wandb"
    ),
    "parallel.num_workers=5000",
    "ckpt_path=nonsense.ckpt",
    "ckpt_path=flipped.ckpt",
    "name=torn ckpt_path=last",  # there are checkpoints, and none is whole
    "evaluation.opponents=[alpha_beta(depth=x)]",
    "evaluation.opponents=[mate_in_one(wings=2)]",
    "evaluation.opponents=[usi(command=nowhere,nodes=1)]",
    "evaluation.opponents=[usi(command=sh)]",
    "env=tic_tac_toe env.max_plies=null evaluation.opponents=[mate_in_one]",
    "evaluation.opponents=[random,nobody]",
    "evaluation.ladder=nobody",
    "env=connect_four env.game=connect_four(wings=2)",
    "model.channels=33 model.equivariant=true",
    # A GPU, a checkpoint or a third party's class is not looked at while there is a cheaper fault.
    "parallel.worker_device=cuda:0 ppo.gamma=2",
    "ckpt_path=flipped.ckpt evaluation.opponents=[tactics]",
    "model._target_=torch.nn.Linear ppo.gamma=2",
]

BAD_EVALUATIONS = [
    "",
    "gamez=4",
    "checkpoint=missing.ckpt",
    "checkpoint=truncated.ckpt",
    "checkpoint=flipped.ckpt games=3",
    "checkpoint=flipped.ckpt opponents=[randon]",
    "checkpoint=flipped.ckpt opponents=[tactics(x=1)]",
    "checkpoint=flipped.ckpt opponents=[alpha_beta(depth=x)]",
    "checkpoint=flipped.ckpt output_dir=notes.txt",
    "game=nosuch round_robin=true",
    "game=clobber round_robin=true symmetric=true",
    "game=tic_tac_toe round_robin=true opponents=[greedy_capture]",
]

BAD_EXPORTS = [
    "",
    "checkpoint=missing.ckpt to=a.onnx",
    "checkpoint=truncated.ckpt to=a.onnx",
    "checkpoint=published:nosuch to=a.pt2",
    "checkpoint=published:hex to=a.txt",
    "checkpoint=published:hex to=missing/a.onnx",
    "checkpoint=published:hex to=a.onnx positions=0",
]

BAD_BENCHES = [
    "",
    "nosuch",
    "collect model=huge",
    "collect games=0",
    "learn game=nosuch",
    "rules plies=many",
    "tune seconds=0",
    "tune game=backgammon",
    "weights rounds=-1",
    "weights --rounds 3",
    "profile iterations=0",
    "profile ppo.epoch=3",
    "profile parallel.num_workers=5000",
    "profile env=tic_tac_toe env.max_plies=null evaluation.opponents=[mate_in_one]",
]

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no checkpoints, each in its own way."""
    folder = tmp_path_factory.mktemp("typed_here")
    with zipfile.ZipFile(folder / "flipped.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"weights" * 1000)
    whole = (folder / "flipped.ckpt").read_bytes()
    (folder / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.ckpt").write_bytes(whole[:100] + b"!" + whole[101:])
    (folder / "notes.txt").write_text("no checkpoint, and no folder either")
    torn = folder / "results" / "torn" / "last.ckpt"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(whole[:100] + b"!" + whole[101:])
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> Callable[[str], dict[str, Answer]]:
    """Answers to all command lines of a table, typed in one process of its own."""

    def typed(command: str, table: Sequence[str]) -> dict[str, Answer]:
        lines = [[command, *words.split()] for words in table]
        return dict(zip(table, answered(lines, folder), strict=True))

    tables = {"train": BAD_TRAINING, "eval": BAD_EVALUATIONS, "export": BAD_EXPORTS, "bench": BAD_BENCHES}
    known: dict[str, dict[str, Answer]] = {}

    def of(command: str) -> dict[str, Answer]:
        if command not in known:
            known[command] = typed(command, tables[command])
        return known[command]

    return of


def answered(lines: Sequence[Sequence[str]], folder: Path) -> list[Answer]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(lines),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    told: list[Answer] = json.loads(done.stdout)
    return told


def test_help_texts_load_neither_networks_nor_games(folder: Path) -> None:
    for words, answer in zip(HELP, answered(HELP, folder), strict=True):
        assert answer["code"] == 0, (words, answer)
        assert len(answer["out"]) > 4
        assert answer["err"] == ""
        assert (NETWORKS | GAMES | OTHERS) & set(answer["loaded"]) == set(), words


def test_the_list_of_games_loads_no_network(folder: Path) -> None:
    (answer,) = answered([["games"]], folder)
    assert answer["code"] == 0
    assert "connect_four" in answer["out"].split()
    assert (NETWORKS | OTHERS) & set(answer["loaded"]) == set()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        *(("train", words) for words in BAD_TRAINING),
        *(("eval", words) for words in BAD_EVALUATIONS),
        *(("export", words) for words in BAD_EXPORTS),
        *(("bench", words) for words in BAD_BENCHES),
    ],
)
def test_what_needs_no_network_to_be_refused_is_refused_without_loading_one(
    command: str, words: str, answers: Callable[[str], dict[str, Answer]]
) -> None:
    answer = answers(command)[words]
    assert answer["code"] == 2, answer["err"]
    assert answer["out"] == ""
    assert answer["err"].startswith("keisei: ")
    assert "Traceback" not in answer["err"]
    assert (NETWORKS | OTHERS) & set(answer["loaded"]) == set()


def test_the_checks_with_and_without_torch_are_told_apart(folder: Path) -> None:
    """What the tests above would find if a check loaded torch: the driver sees it."""
    (answer,) = answered([["train", "parallel.worker_device=cuda:99"]], folder)
    assert answer["code"] == 2
    assert "torch" in answer["loaded"]
