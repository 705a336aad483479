"""`keisei usi` as a program: what it has loaded when it answers, how it ends, and that it plays as the library does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_talks import PATIENCE_S, Talk
from policy_checkpoints import write_policy

from keisei_lightning.checkpoint_players import make_search
from keisei_lightning.evaluation import RandomPlayer, Turn, play_match
from keisei_lightning.evaluation.registry import closing_player
from keisei_lightning.evaluation.usi.players import make_usi
from keisei_lightning.games import game_factory
from keisei_lightning.play import GameSession

MAX_PLIES = 60
SHOGI = game_factory("shogi", max_plies=MAX_PLIES)

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policies") / "small.ckpt"
    write_policy(path, game="shogi", game_options={"max_plies": MAX_PLIES})
    return path


@contextmanager
def keisei(*words: str) -> Iterator[tuple[Talk, subprocess.Popen[bytes]]]:
    """Context in which the command runs; it has ended at its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keisei_lightning", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    talk = Talk(os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno()))
    process.stdin.close()
    process.stdout.close()
    try:
        yield talk, process
    finally:
        talk.hang_up()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def libraries_of(process: subprocess.Popen[bytes]) -> str:
    """The files that a process has mapped."""
    return Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_answers_before_torch_is_loaded(checkpoint: Path) -> None:
    with keisei("usi", f"checkpoint={checkpoint}") as (talk, process):
        talk.ask("usi", "usiok")
        assert "libtorch" not in libraries_of(process)
        talk.ask("isready", "readyok")
        assert "libtorch" in libraries_of(process)
        talk.say("quit")
    assert process.returncode == 0


@pytest.mark.slow
def test_it_plays_as_the_player_in_this_process_move_for_move(checkpoint: Path) -> None:
    words = ("usi", f"checkpoint={checkpoint}", "simulations=24")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with keisei(*words) as (talk, _):
            for game in range(2):
                talk.say("usinewgame")
                player = make_search(SHOGI(1).spec, seed=0, name="search", checkpoint=str(checkpoint), simulations=24)
                session, rng = GameSession(SHOGI), np.random.default_rng(game)
                while not session.is_over:
                    if session.mover != game:
                        session.play(int(rng.choice(list(session.legal_moves().values()))))
                        continue
                    moves = " ".join(move.name for move in session.moves)
                    talk.say(f"position startpos{' moves ' if moves else ''}{moves}")
                    turn = Turn(
                        game=session.game,
                        indices=np.zeros(1, np.int64),
                        observation=session.observation,
                        legal=session.legal,
                    )
                    played = session.play(int(player.choose(turn)[0]))
                    assert talk.ask("go btime 0 wtime 0 byoyomi 600000", "bestmove").split()[1] == played.name
                assert len(session.moves) > 20
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_projects_own_client_plays_it_against_itself_and_others(checkpoint: Path) -> None:
    command = f"{sys.executable} -m keisei_lightning usi checkpoint={checkpoint}"
    spec = SHOGI(1).spec
    player = make_usi(spec, seed=0, name="usi", command=command, nodes=8, MultiPV="2")
    other = make_usi(spec, seed=0, name="other", command=command, nodes=2)
    with closing_player(player), closing_player(other):
        for opponent in (RandomPlayer(spec.num_actions), other):
            result = play_match(SHOGI, player, opponent, num_games=2, opening_plies=4, seed=0)
            assert (result.num_games, result.void) == (2, 0)


@pytest.mark.parametrize("how", ["quit", "end of input", "SIGTERM", "closed output"])
def test_it_ends_in_order_with_exit_code_0(checkpoint: Path, how: str) -> None:
    with keisei("usi", f"checkpoint={checkpoint}") as (talk, process):
        talk.ask("isready", "readyok")
        talk.say("position startpos")
        talk.ask("go infinite", "info")
        if how == "quit":
            talk.say("quit")
        elif how == "end of input":
            talk.hang_up()
        elif how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        if how != "closed output":
            assert next(line for line in talk.rest() if not line.startswith("info")).startswith("bestmove ")
        else:
            talk.say("quit")
        process.wait(PATIENCE_S)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_closed_output_ends_it() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "keisei_lightning", "usi"],
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)
    assert process.stdin
    process.stdin.write(b"usi\n")
    process.stdin.flush()  # and is left open
    process.wait(PATIENCE_S)
    process.stdin.close()
    assert process.stderr
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.returncode == 0


def test_a_file_that_is_no_policy_is_told_in_a_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_text("nothing")
    for words, reason in (
        ((f"checkpoint={bad}",), "cannot be read as a checkpoint"),
        (("checkpoint=nowhere.ckpt",), "there is no such file"),
        (("checkpoint=published:go",), "there is no such published policy"),
        (("simulations=-1",), "must be"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "keisei_lightning", "usi", *words], capture_output=True, text=True, input=""
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_installed_file_is_the_engine(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "an engine"
    words = [sys.executable, "-m", "keisei_lightning", "usi", f"checkpoint={checkpoint}", "simulations=3"]
    done = subprocess.run([*words, f"install={file}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    talk = subprocess.run(
        [str(file)], input="usi\nposition startpos\ngo\n", capture_output=True, text=True, cwd=tmp_path
    )
    assert talk.returncode == 0
    assert "option name Simulations type spin default 3 min" in talk.stdout
    assert " nodes 3 " in talk.stdout
    assert "bestmove " in talk.stdout
    assert subprocess.run([*words, f"install={file}"], capture_output=True).returncode == 0  # its own file
    file.write_text("somebody's notes")
    again = subprocess.run([*words, f"install={file}"], capture_output=True, text=True)
    assert again.returncode == 2
    assert file.read_text() == "somebody's notes"


def test_other_games_have_other_protocols(tmp_path: Path) -> None:
    path = tmp_path / "hex.ckpt"
    write_policy(path, game="hex(board_size=4)")
    gtp = subprocess.run(
        [sys.executable, "-m", "keisei_lightning", "engine", f"checkpoint={path}", "protocol=gtp", "simulations=2"],
        input="1 boardsize 4\n2 genmove b\n3 quit\n",
        capture_output=True,
        text=True,
    )
    assert gtp.returncode == 0, gtp.stderr
    assert gtp.stdout.startswith("=1\n\n=2 ")
    assert gtp.stdout.endswith("\n\n=3\n\n")
    ugi = subprocess.run(
        [sys.executable, "-m", "keisei_lightning", "engine", f"checkpoint={path}"],
        input="ugi\nisready\nposition startpos moves a1\ngo nodes 3\n",
        capture_output=True,
        text=True,
    )
    assert ugi.returncode == 0, ugi.stderr
    assert "ugiok\n" in ugi.stdout
    assert "\nreadyok\n" in ugi.stdout
    assert ugi.stdout.splitlines()[-1].startswith("bestmove ")
