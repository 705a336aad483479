"""Nobody reads what is printed any more, or never did: the command goes on, and its exit code is its own."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei_lightning.commands import main as cli
from keisei_lightning.commands import train as launch
from keisei_lightning.system.console import Output, print_table, say, standard_output
from keisei_lightning.system.stopping import Stopped

ROOT = Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def broken() -> Iterator[io.TextIOWrapper]:
    """A pipe that nobody reads, as standard output."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        yield stream  # closing it raises, if what is in its buffer can go nowhere


@contextlib.contextmanager
def full() -> Iterator[None]:
    """A full disk, as standard output."""
    with open("/dev/full", "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        yield


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Hydra sets up the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


class TestOutput:
    def test_what_nobody_reads_is_dropped(self) -> None:
        with broken() as stream, standard_output() as out:
            sys.stdout.write("one\n")
            sys.stdout.flush()
            sys.stdout.write("two\n")
            print_table("three", {"a": 1})
            assert sys.stdout is not stream
        assert isinstance(out.failure, BrokenPipeError)

    def test_a_full_disk_is_told_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        with full(), standard_output():
            for _ in range(3):
                sys.stdout.write("x" * 10_000)
        assert capsys.readouterr().err == (
            "keisei: standard output: No space left on device; what was printed after that is lost\n"
        )

    def test_what_an_encoding_lacks_is_written_with_escapes(self) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        out = Output(stream)
        out.write("将棋 \udcff\n")
        out.flush()
        assert stream.buffer.getvalue() == b"\\u5c06\\u68cb \\udcff\n"  # type: ignore[attr-defined]

    def test_control_characters_of_a_name_are_shown_as_escapes(self, capsys: pytest.CaptureFixture[str]) -> None:
        say("name=a\nb: bad", "\x1b[31mred\udcff")
        assert capsys.readouterr().err == "keisei: name=a\\nb: bad\nkeisei: \\x1b[31mred\\udcff\n"


class TestCommands:
    @pytest.mark.slow
    def test_a_sweep_into_head_runs_all_of_its_jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seeds: list[int] = []

        def run(config: Any) -> float:
            print_table("done", {"seed": config.cfg.seed})
            seeds.append(config.cfg.seed)
            return 0.5

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("keisei_lightning.app.run", run)
        with broken():
            assert launch.main(["experiment=smoke", "-m", "seed=1,2,3"]) == 0
        assert seeds == [1, 2, 3]

    @pytest.mark.slow
    def test_ctrl_c_to_a_run_and_to_its_tee_is_130(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        def run(config: Any) -> float:
            print_table("stopped", {"checkpoint": "last.ckpt"})
            raise Stopped(2)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("keisei_lightning.app.run", run)
        with broken():
            assert launch.main(["experiment=smoke"]) == 130
        assert capsys.readouterr().err == "keisei: stopped by SIGINT\n"

    def test_what_a_closed_pipe_has_not_read_is_no_failure(self) -> None:
        with broken():
            assert cli.main(["--help"]) == 0

    @pytest.mark.parametrize("words", [["--help"], ["games"]])
    def test_what_a_full_disk_has_not_taken_is_one(self, words: list[str]) -> None:
        with full():
            assert cli.main(words) == 1


@pytest.mark.process
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_not_taken_for_files(closed: tuple[int, ...], tmp_path: Path) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    program = f"""
import os, sys
from keisei_lightning.system.console import standard_output
with standard_output():
    file = os.open({str(tmp_path / "file")!r}, os.O_CREAT | os.O_WRONLY)
    print("printed"); print("printed", file=sys.stderr); sys.stdin.read()
    os.write(file, f"{{file > 2}}".encode())
"""
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(open(os.devnull))
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=null,
            capture_output=True,
            check=True,
            preexec_fn=close,
        )
    assert (tmp_path / "file").read_text() == "True"
