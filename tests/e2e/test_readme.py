"""The README's Python examples, run as they are printed; its commands, up to where they would start; its refusal."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_usi_engine
import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
SHELL_BLOCKS = [
    text
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    if language in ("console", "")
]
COMMANDS = [
    words
    for line in "".join(SHELL_BLOCKS).splitlines()
    if re.match(r"(\$ )?(keisei|python train\.py|make)( |$)", line)
    for words in [shlex.split(line.removeprefix("$ "), comments=True)]
]

# Types one command line after the other; what they would do is noted, and not done.
DRIVER = """
import importlib, json, sys
from keisei_lightning import app
from keisei_lightning.commands import main as cli
from keisei_lightning.commands.bench.options import BENCHES
from keisei_lightning.commands.evaluate import run as evaluation

started = []
def train(config):
    started.append(config.cfg.name)
    return 0.5
app.run = train
evaluation.evaluate = lambda options, names, command: started.append(command)
for name in BENCHES:
    bench = importlib.import_module(f"keisei_lightning.commands.bench.{name}")
    bench.run = lambda options, name=name: started.append(name)

told = []
for words in json.load(sys.stdin):
    started.clear()
    sys.stdout, before = sys.stderr, sys.stdout
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stdout = before
    told.append({"code": code, "started": list(started)})
json.dump(told, sys.stdout)
"""


def test_the_readme_has_its_examples_and_the_own_trainer_one_fits_in_25_lines() -> None:
    (own_trainer,) = [example for example in EXAMPLES if "import Trainer" in example]
    assert len(EXAMPLES) == 4
    assert len([line for line in own_trainer.splitlines() if line.strip()]) <= 25
    assert "hydra" not in own_trainer


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=["own_trainer", "torchrl_loop", "own_game", "own_network"])
def test_an_example_of_the_readme_runs_as_it_is_printed(example: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
@pytest.mark.slow
def test_the_refusal_that_the_readme_shows_is_what_the_screen_shows() -> None:
    (command, line), *others = re.findall(r"^\$ python (train\.py .*)\n(keisei: .*)$", README.read_text(), re.MULTILINE)
    assert not others
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=README.parent, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2
    # How many there may be, and why, is this machine's.
    said = re.sub(r"\d+$", r"\\d+", re.escape(line.partition(" (")[0]))
    assert re.match(said + r" \(", done.stderr), done.stderr


def answers(lines: list[list[str]], folder: Path) -> list[dict[str, Any]]:
    """Exit code of each command line, and what it would have started, where all files that they name are there."""
    for word in (word for line in lines for word in line):
        for name in re.findall(r"[\w./]+\.ckpt|(?<=checkpoint=)PATH", word):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.make_archive(str(file), "zip", root_dir=Path(__file__).parent, base_dir="runs.py")
            Path(f"{file}.zip").rename(file)
    engine = folder / "fairy-stockfish"
    engine.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(fake_usi_engine.__file__)}\n")
    engine.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(lines),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(README.parent), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return [{**answer, "stderr": done.stderr} for answer in told]


@pytest.mark.process
@pytest.mark.slow
def test_every_command_that_the_readme_shows_would_start(tmp_path: Path) -> None:
    lines = []
    for program, *words in COMMANDS:
        if program in ("keisei", "python") and "parallel.num_workers=5000" not in words:  # the refusal, see below
            of_train = ["train", *words[1:]] if program == "python" else words
            lines.append([word for word in of_train if word != "ckpt_path=last"])  # there is no run before this one
    assert len(lines) > 10
    for line, answer in zip(lines, answers(lines, tmp_path), strict=True):
        assert answer["code"] == 0, (line, answer["stderr"])
        assert answer["started"] or "--help" in line, line


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "make"], ids=" ".join)
def test_every_target_that_the_readme_shows_is_in_the_makefile(words: list[str]) -> None:
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]], cwd=README.parent, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
