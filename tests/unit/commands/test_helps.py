"""Every command tells how it is used, by an example too, and is not slowed by what only its work needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keisei_lightning.commands import main as cli

HEAVY = {"hydra", "lightning", "matplotlib", "numpy", "omegaconf", "rsshogi", "pyspiel", "torch", "torchrl"}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    examples = out.lower().rpartition("example")[2]
    assert f"keisei {command}" in examples


@pytest.mark.process
@pytest.mark.parametrize("words", ["--help", "--version", "games --help", "play --help", "eval --help"])
def test_a_help_loads_nothing_heavy(words: str) -> None:
    program = (
        "import sys; from keisei_lightning.commands.main import main; code = main(sys.argv[1:]); "
        "print(*sorted(name for name in sys.modules if '.' not in name), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()], capture_output=True, text=True, timeout=300, check=True
    )
    assert set(done.stderr.split()) & HEAVY == set()
