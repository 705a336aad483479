"""Games that pages show are made by the program: ``python tests/transcripts.py docs/how-to/play.md`` writes them anew.

A transcript is a ``console`` block whose command is followed by what it prints. What a person typed in it stands behind
its prompts, so that the block itself says what is to be typed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["figures_masked", "play_again", "transcripts"]

ROOT = Path(__file__).resolve().parents[1]

_BLOCK = re.compile(r"^```console\n(\$ keisei play[^\n]*\n[^$`][^`]*)```$", re.MULTILINE)
_TYPED = re.compile(r"^(?:move \d+, [^>\n]*|game over|number or name, or quit)> (.*)$", re.MULTILINE)


def transcripts(page: Path) -> Iterator[str]:
    """The blocks of a page that show a game."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def play_again(block: str) -> str:
    """What the program shows now for a block's command and what is typed in it."""
    command, _, shown = block.partition("\n")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "keisei_lightning", *shlex.split(command)[2:]],
            input="".join(f"{line}\n" for line in _TYPED.findall(shown)),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
    return f"{command}\n{done.stdout}"


def figures_masked(text: str) -> str:
    """A transcript without the figures of its hints, which another processor computes a little differently."""
    head = r"(?<=^move  policy  network  visits  value\n)"
    return re.sub(head + r"(\S+).*\n(?:.*%.*\n)*", r"\1 ...\n", text, flags=re.MULTILINE)


def _rewrite(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    page.write_text(_BLOCK.sub(lambda found: f"```console\n{play_again(found[1])}```", text), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        _rewrite(Path(name))
