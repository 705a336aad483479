"""What the pages show is run: Python blocks as they are printed, commands up to where they would start.

README, the pages of ``docs`` and the other pages at the top of the repository. A block says by its language what it
is: ``python``, ``console`` (commands after ``$``, and what they print), ``toml``, or ``text`` for a drawing or an
output. Pages of results have no blocks: a command there is a record of what was run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_usi_engine
import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SHOWING = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "RESULTS.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LANGUAGES = {"python", "console", "toml", "text"}
SHOWN_FILE = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)  # the site has the file in its place
MAX_LINES_OF_A_WAY_IN = 15


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def fenced(page: Path) -> Iterator[Block]:
    name = page.relative_to(ROOT).as_posix()
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        yield Block(name, language, text)


BLOCKS = [block for page in SHOWING for block in fenced(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
COMMANDS = [
    (block.page, shlex.split(line.removeprefix("$ "), comments=True))
    for block in BLOCKS
    if block.language == "console"
    for line in block.text.replace("\\\n", " ").splitlines()
    if line.startswith("$ ")
]

# Runs one block after the other, each as a program of its own.
RUN_BLOCKS = """
import json, sys
for page, text in json.load(sys.stdin):
    print(page, file=sys.stderr)
    exec(compile(text, page, "exec"), {"__name__": "__main__"})
"""

# Runs examples up to where they have understood their command line; `--cfg job` shows what Hydra understood.
RUN_EXAMPLES = """
import argparse, json, os, runpy, sys
parse = argparse.ArgumentParser.parse_args
def only_parse(self, *args, **kwargs):
    parse(self, *args, **kwargs)
    sys.exit(0)
for program, *words in json.load(sys.stdin):
    is_hydra = program.endswith("app.py")
    argparse.ArgumentParser.parse_args = parse if is_hydra else only_parse
    sys.path[0] = os.path.dirname(program)
    sys.argv = [program, *words, *(["--cfg", "job"] if is_hydra else [])]
    print(sys.argv, file=sys.stderr)
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
"""

# Types one command line after the other; what they would do is noted, and not done.
DRIVER = """
import importlib, json, sys
from dataclasses import replace
from keisei_lightning import app, make_game, register_game
from keisei_lightning.commands import doctor, engine_process, export, main as cli, runs, train as command, usi
from keisei_lightning.commands.bench.options import BENCHES
from keisei_lightning.commands.convert import run as converting
from keisei_lightning.commands.evaluate import run as evaluation
from keisei_lightning.commands.positions import run as packing
from keisei_lightning.commands.play import run as playing
from keisei_lightning.commands.serve import run as serving

register_game("my_game", lambda num_games, **options: make_game("tic_tac_toe", num_games))
started = []
def train(config):
    started.append(config.cfg.name)
    return 0.5
app.run = train
command.run_ranks = lambda function, num_ranks: started.append(num_ranks) or 0.5
evaluation.evaluate = lambda options, names, command: started.append(command)
export.main = replace(export.main, run=lambda options: started.append(options.to))
converting.convert = packing.write_positions = lambda options: started.append(str(options))
playing.play = lambda options: started.append("play")
doctor.main = replace(doctor.main, run=lambda options: started.append("doctor"))
engine_process.check_checkpoint = lambda checkpoint: started.append(checkpoint)
engine_process.run_engine = lambda program, options: started.append(options.checkpoint or "published:shogi")
usi._install = lambda options, file: started.append(str(file))
runs._run = lambda name, options: started.append(name)
serving.serve = lambda options: started.append(options.port)
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


def run(program: str, given: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of this module in ``folder``, with JSON on its standard input."""
    return subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(given),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


# ---- blocks


def test_every_block_says_what_it_is() -> None:
    assert {(block.page, block.language) for block in BLOCKS if block.language not in LANGUAGES} == set()
    assert not [block for block in BLOCKS if block.page.startswith("docs/results/")]


def test_the_ways_in_of_the_readme_fit_in_15_lines_each() -> None:
    trainer, loop = [block.text for block in PYTHON if block.page == "README.md"]
    assert "import Trainer" in trainer
    assert "hydra" not in trainer
    assert "ClipPPOLoss" in loop
    for text in (trainer, loop):
        assert len([line for line in text.splitlines() if line.strip()]) <= MAX_LINES_OF_A_WAY_IN
    commands = [words for page, words in COMMANDS if page == "README.md" and words[0] == "keisei"]
    assert len(commands) <= MAX_LINES_OF_A_WAY_IN


@pytest.mark.process
@pytest.mark.slow
def test_the_python_of_every_page_runs_as_it_is_printed(tmp_path: Path) -> None:
    assert len(PYTHON) > 8
    done = run(RUN_BLOCKS, [(block.page, block.text) for block in PYTHON], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_every_example_is_shown_by_one_page() -> None:
    shown = [name for page in SHOWING for name in SHOWN_FILE.findall(page.read_text(encoding="utf-8"))]
    files = [file for kind in ("*.py", "*.yaml") for file in (ROOT / "examples").rglob(kind)]
    assert sorted(shown) == sorted(file.relative_to(ROOT).as_posix() for file in files)


def test_entry_points_that_pages_show_are_ours() -> None:
    groups = [tomllib.loads(block.text)["project"]["entry-points"] for block in BLOCKS if block.language == "toml"]
    assert {group for tables in groups for group in tables} >= {"keisei_lightning.games", "keisei_lightning.networks"}
    assert all(group.startswith("keisei_lightning.") for tables in groups for group in tables)


# ---- commands


@pytest.mark.process
@pytest.mark.slow
def test_the_refusal_that_the_readme_shows_is_what_the_screen_shows() -> None:
    (command, line), *others = re.findall(r"^\$ keisei (train .*)\n(keisei: .*)$", README.read_text(), re.MULTILINE)
    assert not others
    done = subprocess.run(
        [sys.executable, "-m", "keisei_lightning", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
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
        for name in re.findall(r"(?<=model=)[\w./]+\.onnx", word):
            (folder / name).touch()
    engine = folder / "fairy-stockfish"
    engine.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(fake_usi_engine.__file__)}\n")
    engine.chmod(0o755)
    done = run(DRIVER, lines, folder)
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return [{**answer, "stderr": done.stderr} for answer in told]


@pytest.mark.process
@pytest.mark.slow
def test_every_command_of_ours_that_a_page_shows_would_start(tmp_path: Path) -> None:
    lines = []
    for _, (program, *words) in COMMANDS:
        is_ours = program == "keisei" or "train.py" in words
        if is_ours and "parallel.num_workers=5000" not in words:  # the refusal, see above
            of_keisei = words if program == "keisei" else ["train", *words[words.index("train.py") + 1 :]]
            # There is no run before this one to resume from, or to play against; that this works is tested elsewhere.
            line = [word for word in of_keisei if not re.match(r"ckpt_path=|opponents\.members=.*\.ckpt", word)]
            if any(word.startswith("hydra/launcher=") for word in line):  # it starts processes: test_sweep_launchers.py
                line = [*(word.partition(",")[0] for word in line if word != "-m"), "--cfg", "hydra"]
            lines.append(line)
    assert len(lines) > 25
    for line, answer in zip(lines, answers(lines, tmp_path), strict=True):
        assert answer["code"] == 0, (line, answer["stderr"])
        only_tells = {"--help", "--cfg"} & {*line} or line == ["games"]
        assert bool(answer["started"]) != bool(only_tells), line


@pytest.mark.process
@pytest.mark.slow
def test_every_example_takes_the_command_lines_that_the_pages_show(tmp_path: Path) -> None:
    lines = [[str(ROOT / words[1]), *words[2:]] for _, words in COMMANDS if words[1:2] and "examples/" in words[1]]
    assert {Path(line[0]).name for line in lines} >= {"app.py", "own_game.py", "torchrl_loop.py"}
    done = run(RUN_EXAMPLES, lines, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [words for _, words in COMMANDS if words[0] == "make"], ids=" ".join)
def test_every_target_that_a_page_shows_is_in_the_makefile(words: list[str]) -> None:
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [words for _, words in COMMANDS if words[0] in ("pip", "uv")], ids=" ".join)
def test_what_a_page_says_to_install_is_this_package(words: list[str]) -> None:
    """Building and installing it is tested by ``test_installed.py``."""
    install, *rest = words[words.index("install") :]
    assert (install, rest[-1].partition("[")[0]) == ("install", ".")
    assert set(re.findall(r"\w+", rest[-1])) <= EXTRAS.keys()
    assert rest[:-1] in ([], ["-e"])


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for _, words in COMMANDS if words[0] == "ray"], ids=" ".join)
def test_every_command_of_rays_that_a_page_shows_is_one(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    _, name, *rest = words
    context = cli.commands[name].make_context(name, rest)  # it fails on an unknown option
    assert context.args == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for _, words in COMMANDS if words[0] == "torchrun"], ids=" ".join)
def test_every_launch_by_torchrun_that_a_page_shows_is_one(words: list[str]) -> None:
    """That ranks of torchrun train is tested by ``test_ddp_runs.py``."""
    from torch.distributed.run import get_args_parser

    assert get_args_parser().parse_args(words[1:]).training_script == "train.py"  # it fails on an unknown option


def test_every_command_is_of_a_kind_that_is_run() -> None:
    for page, words in COMMANDS:
        known = words[0] in ("keisei", "make", "pip", "uv", "ray", "torchrun") or words[1].startswith(
            ("train.py", "examples/")
        )
        assert known, (page, words)
