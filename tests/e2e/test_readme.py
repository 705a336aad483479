"""The README's Python examples, run as they are printed, each as a script of its own; and the refusal that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


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
