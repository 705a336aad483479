"""The TAB key in real shells, each on a terminal of its own."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(keisei -sc install=bash)"'),
    "fish": (["fish", "--no-config", "-i"], "keisei -sc install=fish | source"),
    "zsh": (["zsh", "--no-rcs", "-i"], 'autoload -Uz compinit && compinit -u; eval "$(keisei -sc install=zsh)"'),
}
CTRL_U = "\x15"  # takes the line away
# A session of its own has no terminal that it is controlled by, until it takes one; fish wants that.
ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

pytestmark = pytest.mark.process


class Terminal:
    """A shell as a person has it: what is typed, and what is shown."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._screen, terminal = os.openpty()
        self._shown = b""
        termios.tcsetwinsize(terminal, (24, 200))
        command = [sys.executable, "-c", ON_ITS_TERMINAL, *command]
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        self._shell = subprocess.Popen(command, **streams, cwd=folder, env=environment, start_new_session=True)
        os.close(terminal)

    def type(self, text: str) -> None:
        self._shown = b""
        os.write(self._screen, text.encode())

    def screen_with(self, text: str, timeout_s: float = 300.0) -> str:
        """What is on the screen, as soon as this text is, or after the time that it may take."""
        deadline = time.monotonic() + timeout_s
        while text not in (screen := self._screen_text()) and time.monotonic() < deadline:
            readable, _, _ = select.select([self._screen], [], [], 1.0)
            if readable:
                self._shown += os.read(self._screen, 4096)
        return screen

    def _screen_text(self) -> str:
        """What a dumb terminal shows: shells go back and write over what they have written."""
        lines, column = [""], 0
        for character in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._shown.decode(errors="replace")):
            if character == "\n":
                lines.append("")
            elif character in "\r\b":
                column = 0 if character == "\r" else max(column - 1, 0)
            elif character.isprintable():
                lines[-1] = lines[-1][:column].ljust(column) + character + lines[-1][column + 1 :]
                column += 1
        return "\n".join(lines)

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._screen)


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    """A shell that knows ``keisei`` and has its completion."""
    command, install = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{request.param} is not installed")
    program = tmp_path / "bin" / "keisei"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m keisei_lightning "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }
    terminal = Terminal(command, environment, tmp_path)
    terminal.type(f"{install}; echo in''stalled\n")
    try:
        assert "installed" in terminal.screen_with("installed")
        yield terminal
    finally:
        terminal.close()


def test_the_tab_key_completes_commands_keys_and_values(terminal: Terminal) -> None:
    for typed, shown in (
        ("keisei tr", "keisei train "),
        ("keisei train parallel.num_w", "keisei train parallel.num_workers="),
        ("keisei train parallel.mode=ce", "keisei train parallel.mode=central "),
        ("keisei train model.channels=8 model=ti", "keisei train model.channels=8 model=tiny "),
    ):
        terminal.type(f"{typed}\t")
        assert shown in terminal.screen_with(shown)
        terminal.type(CTRL_U)
