"""The command ``keisei serve`` as a person meets it: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from keisei_lightning.commands import serve as command
from keisei_lightning.commands.main import main as keisei

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it has told its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keisei_lightning", "serve", "open=false", "port=0", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"keisei serves at (http://\S+)\n", line)
            assert found, (line, process.communicate(timeout=120) if process.poll() is not None else "")
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_this_machine_alone_until_a_signal_ends_it(tmp_path: Path, signum: int, code: int) -> None:
    with serving(tmp_path) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(address, timeout=120).status_code == 200
        assert httpx.get(f"{address}api/runs", timeout=120).json()["runs"] == []
        process.send_signal(signum)
        _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.splitlines()[0] == "keisei: folder=results: is not there yet; trainings will be seen once it is"
    assert "Traceback" not in err


@pytest.mark.process
@pytest.mark.slow
def test_beyond_this_machine_it_makes_a_token_and_tells_it_in_the_address(tmp_path: Path) -> None:
    with serving(tmp_path, "host=0.0.0.0") as (_, address):
        token = address.partition("/?token=")[2]
        assert len(token) >= 32
        port = re.findall(r":(\d+)/", address)[0]
        own = f"http://127.0.0.1:{port}/"
        assert httpx.get(own, timeout=120).status_code == 401
        assert httpx.get(own, params={"token": token}, timeout=120).status_code == 303


def test_an_address_that_is_taken_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert keisei(["serve", f"port={port}", "open=false"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(rf"keisei: host=127.0.0.1 port={port}: must be an address to listen at \(.+\)\n", told)


def test_a_file_is_no_folder_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results"
    file.write_text("")
    assert keisei(["serve", f"folder={file}", "open=false"]) == 2
    assert capsys.readouterr().err == f"keisei: folder={file}: is no folder; must be the folder of all runs\n"


def test_without_its_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert keisei(["serve"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "keisei: serve: uvicorn cannot be imported; install them by pip install 'keisei-lightning[serve]'\n"
    )


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("port=70000", "port=70000: must be a whole number, from 0 to 65535"),
        ("token=short", "token=short: must be at least 16 letters, digits, - or _"),
        ("max_games=0", "max_games=0: must be a whole number, from 1 to 10000"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_legal(
    word: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keisei(["serve", word]) == 2
    assert error in capsys.readouterr().err
