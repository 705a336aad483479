"""``keisei play`` as a person has it: whole games on a terminal, and games that are scripted through a pipe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from policy_checkpoints import write_policy
from terminal_screen import PATIENCE_S, ROOT, Screen
from transcripts import figures_masked, play_again, transcripts

from keisei_lightning.games import game_factory
from keisei_lightning.play import GameSession

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONNECT_FOUR, TIC_TAC_TOE = game_factory("connect_four"), game_factory("tic_tac_toe")


def follow(session: GameSession, shown: str) -> None:
    """Make the moves on a board of one's own that a screen has shown."""
    for name in re.findall(r" plays? (\S+)\n", shown):
        session.play_name(name)


def play_to_the_end(screen: Screen, session: GameSession) -> str:
    """Type the first legal move by its number until the game is over; what is said then."""
    while True:
        screen.type(str(next(iter(session.legal_moves())))[1:].strip("()"))
        shown = screen.read_until(r"(move \d+, you|game over)> ")
        follow(session, shown)
        if session.is_over:
            assert shown.endswith("game over> ")
            return shown


def test_tab_completes_games_moves_commands_and_files(tmp_path: Path) -> None:
    with Screen(["play"], tmp_path) as screen:
        screen.read_until("quit> ")
        screen.type("conn\t")
        assert "connect_four" in screen.read_until("move 1, you> ")
        screen.press("sa\t")
        screen.read_until("save")
        screen.type(" one.json")
        screen.read_until("saved as one.json")
        screen.read_until("move 1, you> ")
        screen.type("loa\t o\t")
        screen.read_until("load one.json")
        screen.read_until("move 1, you> ")
        screen.press("x\t\t")  # there are several: they are shown
        assert re.search(r"x0\s+x1\s+x2", screen.read_until("x6"))
        screen.type("3")
        screen.read_until("you play x3")
        screen.read_until("move 3, you> ")
        screen.type("q\t")
        assert screen.end() == 0


def test_a_whole_game_on_a_terminal_with_everything_that_one_may_type(tmp_path: Path) -> None:
    with Screen(["play", "evaluation=true", "save=kept.json"], tmp_path) as screen:
        assert "2  connect_four" in screen.read_until("quit> ")
        screen.type("connect")
        assert "connect_four: you (first) against connect_four" in screen.read_until("move 1, you> ")

        session = GameSession(CONNECT_FOUR)
        screen.type("9")
        assert "9: is no legal move" in screen.read_until("move 1, you> ")
        screen.type("3")
        shown = screen.read_until("move 3, you> ")
        assert re.search(r"value [+-]\d\.\d\d for connect_four \(\d+%\)", shown)
        screen.type("hint")
        shown = screen.read_until("move 3, you> ")
        assert re.search(r"^x\d +\d+\.\d%", shown, re.MULTILINE)
        screen.type("undo")
        screen.read_until("move 1, you> ")
        screen.type("x2")
        follow(session, screen.read_until("move 3, you> "))
        screen.type("save first.json")
        assert "saved as first.json" in screen.read_until("move 3, you> ")
        said = play_to_the_end(screen, session)
        assert re.search(r"(wins?|A draw) after \d+ moves\.|win after", said)
        assert GameSession.from_json(CONNECT_FOUR, (tmp_path / "kept.json").read_text()).moves == session.moves

        screen.type("load first.json")
        screen.read_until("move 3, you> ")
        first = GameSession.from_json(CONNECT_FOUR, (tmp_path / "first.json").read_text())
        assert first.moves == session.moves[:2]
        screen.type("strength simulations=10000000")
        screen.read_until("move 3, you> ")
        screen.type("4")
        screen.read_until("connect_four thinks; Ctrl-C: move now")
        screen.interrupt()
        assert "connect_four plays o" in screen.read_until("move 5, you> ")
        screen.type("resign")
        assert "connect_four (the second player) wins by resignation after 4 moves." in screen.read_until("over> ")
        screen.type("quit")
        assert screen.end() == 0
    assert (tmp_path / "kept-2.json").exists()
    assert "Traceback" not in screen.shown


def test_tic_tac_toe_against_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    write_policy(tmp_path / "own.ckpt")
    words = ["play", "checkpoint=own.ckpt", "side=second", "seed=1", "temperature=1", "hints=true"]
    with Screen(words, tmp_path, {"NO_COLOR": "1"}) as screen:
        session = GameSession(TIC_TAC_TOE)
        shown = screen.read_until(r"move 2, you> ")
        follow(session, shown)
        assert re.search(r"move +policy +network +visits +value\n", shown)
        play_to_the_end(screen, session)
        screen.type("new")
        screen.read_until("move 2, you> ")
        screen.type("switch")
        screen.read_until(r"move 3, you> ")
        screen.interrupt()
        assert screen.end() == 130
    assert screen.shown.endswith("keisei: stopped by SIGINT\n")
    assert max(map(len, screen.shown.splitlines())) <= 80


def test_the_end_of_input_ends_the_game_in_order(tmp_path: Path) -> None:
    with Screen(["play", "game=tic_tac_toe", "opponent=random", "seed=3"], tmp_path) as screen:
        screen.read_until("move 1, you> ")
        screen.type("1,1")
        screen.read_until("move 3, you> ")
        assert screen.end(end_of_input=True) == 0
    assert "Traceback" not in screen.shown


def piped(words: list[str], lines: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "keisei_lightning", "play", *words],
        input="".join(f"{line}\n" for line in lines).encode(),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_shogi_is_scripted_by_drops_and_promotions_where_only_ascii_can_be_shown(tmp_path: Path) -> None:
    words = ["checkpoint=published:shogi", "position=4k4/9/4P4/9/9/9/9/9/4K4 b G 1", "simulations=16"]
    lines = ["5c5b+", "hint", "undo", "p*5e", "g*5b", "save mate.kifu", "save mate.json", "new", "resign", "quit"]
    done = piped(words, lines, tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    out = done.stdout.decode("ascii")
    assert "\x1b" not in out
    assert "shogi plays 5a5b" in out  # it takes what was promoted
    assert "p*5e: is no legal move" in out
    assert "you play G*5b" in out
    assert "You (the first player) win by checkmate after 1 move." in out
    assert "shogi (the second player) wins by resignation after 0 moves." in out
    assert " .  .  .  .  k  .  .  .  .\n .  .  .  .  .  .  .  .  .\n .  .  .  .  P  .  .  .  ." in out
    assert "G*5b" in (tmp_path / "mate.json").read_text(encoding="utf-8")
    assert (tmp_path / "mate.kifu").read_text(encoding="utf-8").startswith("先手")


def test_a_policy_plays_itself_until_it_is_stopped(tmp_path: Path) -> None:
    words = ["play", "checkpoint=published:connect_four", "side=none", "simulations=10000000"]
    with Screen(words, tmp_path) as screen:
        screen.read_until("thinks")
        screen.interrupt()
        screen.read_until("move 2, paused> ")
        screen.type("go")
        screen.read_until("thinks")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 143
    assert screen.shown.endswith("keisei: stopped by SIGTERM\n")


def test_the_games_that_pages_show_are_what_the_program_shows() -> None:
    shown = [block for page in PAGES for block in transcripts(page)]
    assert shown
    for block in shown:
        assert figures_masked(play_again(block)) == figures_masked(block), (
            "`python tests/transcripts.py PAGE` renews it"
        )
