"""Engines behind pipes: what they answer, what they do wrong, and that nothing of them stays behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_usi_engine import FAULTS
from fakes import counting_game, turn_of

from keisei_lightning.errors import ConfigError, EngineError, GameError
from keisei_lightning.evaluation import RESIGN, RandomPlayer, Turn, play_match
from keisei_lightning.evaluation.registry import closing_player, make_player
from keisei_lightning.evaluation.usi.players import MAX_CONSECUTIVE_FAULTS, UsiPlayer, make_fairy_stockfish, make_usi
from keisei_lightning.games import NO_MOVE, game_factory
from keisei_lightning.games.shogi.codec import NUM_ACTIONS
from keisei_lightning.games.shogi.game import Shogi

TESTS = Path(__file__).resolve().parents[1]
FAKE = [sys.executable, str(TESTS / "fake_usi_engine.py")]
START = "position sfen lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"
SHOGI = game_factory("shogi", max_plies=200)
FAIRY = shutil.which("fairy-stockfish", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/games"]))
# Answers must be late where that is tested, and nowhere else: a loaded machine takes its time for the first one.
PATIENT_S, IMPATIENT_S = 60.0, 2.0
GONE_S = 60.0

pytestmark = pytest.mark.process
needs_fairy_stockfish = pytest.mark.skipif(FAIRY is None, reason="fairy-stockfish is not installed")

Fake = Callable[..., UsiPlayer]


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


@pytest.fixture
def fake(diary: Path) -> Iterator[Fake]:
    """Makes players of the fake engine, and closes them."""
    players: list[UsiPlayer] = []

    def make(*arguments: str, timeout_s: float = PATIENT_S, startup_s: float = PATIENT_S, **more: object) -> UsiPlayer:
        player = UsiPlayer(
            [*FAKE, "--diary", str(diary), *arguments],
            go="go nodes 1",
            answer_timeout_s=timeout_s,
            startup_timeout_s=startup_s,
            name="fake",
            **more,  # type: ignore[arg-type]
        )
        players.append(player)
        return player

    yield make
    for player in players:
        player.close()


def moves_of(game: Shogi, player: UsiPlayer, indices: list[int] | None = None) -> list[str]:
    """What a player answers, by name."""
    turn = turn_of(game, indices)
    return [
        game.action_name(index, action) if action >= 0 else {NO_MOVE: "void", RESIGN: "resigns"}[action]
        for index, action in zip(turn.indices.tolist(), player.choose(turn).tolist(), strict=True)
    ]


def lives(diary: Path) -> list[int]:
    """Process numbers of the engines that have lived."""
    return [int(line.split()[1]) for line in diary.read_text().splitlines() if line.startswith("start")]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, within a grace time; a zombie (of whoever adopted it) has."""
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


# The conversation


def test_an_engine_gets_its_options_and_every_board_with_its_history(fake: Fake, diary: Path) -> None:
    game, player = Shogi(2), fake(options={"skill_level": -5, "STYLE": "very wild", "Ponder": False, "Clear": True})
    assert moves_of(game, player) == ["1g1f", "1g1f"]
    game.step(np.array([game.action_of(0, "1g1f"), NO_MOVE]))
    assert moves_of(game, player, [0]) == ["1a1b"]
    player.close()
    asked = [START, "go nodes 1", START, "go nodes 1", f"{START} moves 1g1f", "go nodes 1"]
    options = [
        "setoption name Skill Level value -5",
        "setoption name Style value very wild",
        "setoption name Ponder value false",
        "setoption name Clear",
    ]
    assert diary.read_text().splitlines()[1:] == ["usi", *options, "isready", "usinewgame", *asked, "quit"]


def test_engines_share_the_boards_and_only_as_many_are_started_as_are_needed(fake: Fake, diary: Path) -> None:
    game, player = Shogi(12), fake("--think-s", "0.25", processes=3)
    game.step(np.array([game.action_of(0, "7g7f"), *11 * [NO_MOVE]]))
    assert moves_of(game, player, [3]) == ["1g1f"]
    assert len(lives(diary)) == 1
    assert moves_of(game, player) == ["1a1b", *11 * ["1g1f"]]
    assert len(set(lives(diary))) == 3
    assert diary.read_text().count("go nodes 1") == 13


def test_finished_boards_are_not_asked_about(fake: Fake, diary: Path) -> None:
    game, player = Shogi(2), fake()
    game.set_position(0, "8k/9/8P/9/9/9/9/9/4K4 b G 1")
    game.step(np.array([game.action_of(0, "G*1b"), NO_MOVE]))
    assert moves_of(game, player, [0]) == ["void"]
    assert not diary.exists()
    assert moves_of(game, player) == ["void", "1g1f"]


def test_a_match_against_an_engine_is_counted_and_leaves_no_process(fake: Fake, diary: Path) -> None:
    player = fake("--noise", processes=2)
    game = game_factory("shogi", max_plies=16)
    result = play_match(game, player, RandomPlayer(NUM_ACTIONS, 3), num_games=6, opening_plies=4, seed=2)
    assert (result.num_games, result.void) == (6, 0)
    player.close()
    assert all(is_gone(pid) for pid in lives(diary))


def test_a_resignation_is_returned_as_it_is(fake: Fake) -> None:
    assert moves_of(Shogi(2), fake("--fault", "resign", "--at", "2")) == ["1g1f", "resigns"]


def test_a_resignation_counts_as_a_loss(fake: Fake) -> None:
    player = fake("--fault", "resign", "--at", "0")
    result = play_match(SHOGI, player, RandomPlayer(NUM_ACTIONS), num_games=4, seed=0)
    assert (result.losses, result.outcomes) == (4, {"resignation": 4})


# Faults

WHAT_IS_SAID = {
    "crash": "the engine ended with exit status 7; it last wrote: readyok / info depth 1 / bestmove 1g1f ponder 1a1b; "
    "it last wrote to its error output: out of luck",
    "killed": "the engine ended by SIGKILL",
    "half a line": "the engine ended with exit status 0; it last wrote: info depth 1 / bestmove 1g1f ponder 1a1b / "
    "bestmove 1g1f; ",
    "last words": "the engine ended with exit status 1; it last wrote: info depth 1 / bestmove 1g1f ponder 1a1b / "
    "info string Error! no memory left; the game on board 1",
    "silence": "the engine sends no bestmove within 2 s",
    "illegal move": "the engine answers '5e5d', which is no legal move in lnsgkgsnl/",
    "unreadable": "which is no legal move in",
    "win": "the engine answers 'win', which is no legal move in",
    "none": "the engine answers 'none', which is no legal move in",
    "gossip": "the engine sends no bestmove within 2 s",
}


@pytest.mark.parametrize("fault", sorted(WHAT_IS_SAID))
def test_a_fault_voids_the_game_at_hand_and_a_new_engine_answers_for_the_next(
    fault: str, fake: Fake, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    late = fault in ("silence", "gossip")
    player = fake("--fault", fault, "--at", "2", "--lives", "1", timeout_s=IMPATIENT_S if late else PATIENT_S)
    with caplog.at_level(logging.WARNING):
        assert moves_of(Shogi(4), player, [3, 1, 2]) == ["1g1f", "void", "1g1f"]
    message = caplog.messages[0]
    assert message.startswith("player fake: ")
    assert WHAT_IS_SAID[fault] in message
    assert message.endswith("; the game on board 1 is void")
    assert len(caplog.messages) == 1
    first, second = lives(diary)
    assert is_gone(first)
    assert psutil.pid_exists(second)


def test_every_fault_of_the_fake_engine_has_a_test() -> None:
    assert set(FAULTS) == {*WHAT_IS_SAID, "resign", "answer and leave", "answer twice"}


def test_an_engine_that_ends_after_its_answer_voids_no_game(
    fake: Fake, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    game, player = Shogi(1), fake("--fault", "answer and leave", "--lives", "1")
    assert moves_of(game, player) == ["1g1f"]
    os.waitid(os.P_PID, lives(diary)[0], os.WEXITED | os.WNOWAIT)  # all its threads; the player reaps it
    assert moves_of(game, player) == ["1g1f"]
    assert caplog.messages == [
        "player fake: the engine ended with exit status 0; it last wrote: usiok / readyok / bestmove 1g1f"
    ]


def test_an_unasked_answer_is_ignored(fake: Fake, diary: Path) -> None:
    game, player = Shogi(1), fake("--fault", "answer twice")
    assert moves_of(game, player) == ["1g1f"]
    while "misbehaved" not in diary.read_text():
        time.sleep(0.01)
    game.step(np.array([game.action_of(0, "1g1f")]))
    assert moves_of(game, player) == ["1a1b"]


def test_a_slow_start_is_waited_for(fake: Fake) -> None:
    assert moves_of(Shogi(1), fake("--start", "slow", timeout_s=60.0)) == ["1g1f"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--start", "never"), "the engine sends no usiok within 2 s"),
        (
            ("--start", "crash"),
            "the engine ended with exit status 1; it last wrote to its error output: no network file",
        ),
        (("--start", "exit when ready"), "the engine ended with exit status 0; it last wrote: option what is this / "),
        (("--fault", "illegal move", "--at", "0"), "the engine answers '5e5d', which is no legal move in"),
    ],
)
def test_an_engine_that_only_fails_is_an_error_after_three_faults(
    arguments: tuple[str, ...], said: str, fake: Fake, diary: Path
) -> None:
    startup_s = IMPATIENT_S if "never" in arguments else PATIENT_S
    with pytest.raises(EngineError) as caught:
        moves_of(Shogi(9), fake(*arguments, startup_s=startup_s))
    assert str(caught.value).startswith("player fake: 3 consecutive faults; the last: ")
    assert said in str(caught.value)
    assert len(lives(diary)) == MAX_CONSECUTIVE_FAULTS == 3


def test_faults_with_legal_answers_between_them_are_no_error(fake: Fake) -> None:
    moves = moves_of(Shogi(9), fake("--fault", "crash", "--at", "2"))
    assert moves == ["1g1f", "void"] * 4 + ["1g1f"]


def test_an_engine_that_vanished_from_the_disk_is_an_error(tmp_path: Path) -> None:
    player = UsiPlayer([str(tmp_path / "no such engine")], go="go nodes 1")
    message = r"3 consecutive faults; the last: the engine cannot be started: .*No such file"
    with pytest.raises(EngineError, match=message):
        player.choose(turn_of(Shogi(1)))


# The end of engines


def test_a_stubborn_engine_is_killed_with_a_warning(fake: Fake, diary: Path, caplog: pytest.LogCaptureFixture) -> None:
    player = fake("--stubborn")
    assert moves_of(Shogi(1), player) == ["1g1f"]
    player.close()
    (pid,) = lives(diary)
    assert caplog.messages == [f"player fake: the engine (process {pid}) does not quit and is terminated"]
    assert not psutil.pid_exists(pid)


def test_closing_may_be_repeated_and_a_closed_player_can_play_again(fake: Fake, diary: Path) -> None:
    game, player = Shogi(1), fake()
    player.close()
    assert moves_of(game, player) == ["1g1f"]
    player.close()
    player.close()
    assert moves_of(game, player) == ["1g1f"]
    assert len(lives(diary)) == 2


def test_an_engine_ends_with_its_player(fake: Fake, diary: Path) -> None:
    player = UsiPlayer([*FAKE, "--diary", str(diary)], go="go nodes 1")
    assert moves_of(Shogi(1), player) == ["1g1f"]
    (pid,) = lives(diary)
    del player
    assert not psutil.pid_exists(pid)


def test_an_interrupted_question_leaves_no_engine_that_has_yet_to_answer(fake: Fake, diary: Path) -> None:
    game, player = Shogi(2), fake("--fault", "silence", "--lives", "1")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 2.0)
        with pytest.raises(KeyboardInterrupt):
            player.choose(turn_of(game))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert is_gone(lives(diary)[0])
    assert moves_of(game, player) == ["1g1f", "1g1f"]


PARENT = """
import sys
import time
sys.path[:0] = [{here!r}, {tests!r}]
from fakes import turn_of
from test_usi_players import Shogi, UsiPlayer
player = UsiPlayer({command!r}, go={go!r})
turn = turn_of(Shogi(1))
player.choose(turn)
print("ready", flush=True)
player._go = {last_go!r}
player.choose(turn)
time.sleep(600)
"""


def engine_of_a_killed_parent_ends(command: list[str], last_go: str) -> bool:
    """Whether an engine ends with its parent, which is killed while the engine works on its second answer, or idles."""
    script = PARENT.format(
        here=str(Path(__file__).parent), tests=str(TESTS), command=command, go="go nodes 10", last_go=last_go
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        with parent.stdout:
            assert parent.stdout.readline() == b"ready\n"
        (engine,) = psutil.Process(parent.pid).children()
        time.sleep(0.3)
    finally:
        parent.kill()
        parent.wait()
    return is_gone(engine.pid)


@pytest.mark.slow
def test_an_engine_does_not_outlive_a_killed_parent() -> None:
    assert engine_of_a_killed_parent_ends(FAKE, "go nodes 10")


# Options


def refusal(**options: object) -> str:
    """The one line that refuses a player's options."""
    with pytest.raises(ConfigError) as caught:
        make_usi(Shogi(1).spec, seed=0, name="usi(...)", **{"command": " ".join(FAKE), "nodes": 1, **options}).start()  # type: ignore[arg-type]
    (line,) = caught.value.errors
    return line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"nodes": 0}, "nodes=0: must be a whole number, 1 or more, or None"),
        ({"depth": 2.5}, "depth=2.5: must be a whole number, 1 or more, or None"),
        ({"movetime_ms": True}, "movetime_ms=True: must be a whole number, 1 or more, or None"),
        ({"processes": 0}, "processes=0: must be a whole number, 1 or more"),
        ({"timeout_s": 0}, "timeout_s=0: must be a number, more than 0"),
        ({"startup_timeout_s": float("inf")}, "startup_timeout_s=inf: must be a number, more than 0"),
        ({"nodes": None}, "one of nodes, depth and movetime_ms must be given, or the engine thinks without end"),
        ({"command": ""}, "command='': must be the engine's program, with arguments where it needs some"),
        ({"command": "nowhere -x"}, "command='nowhere -x': must be an executable program"),
        ({"command": "'x"}, 'command="\'x": cannot be read: No closing quotation'),
        (
            {"Skil": 3},
            "Skil=3: the engine has no such option; it has Book, Clear, Ponder, Skill Level, Style, UCI_Variant",
        ),
        ({"Skill_Level": 21}, "Skill_Level=21: must be a whole number from -20 to 20"),
        ({"Skill_Level": "x"}, "Skill_Level=x: must be a whole number from -20 to 20"),
        ({"Style": "wild"}, "Style=wild: must be one of calm, very wild"),
        ({"Ponder": 1}, "Ponder=1: must be true or false"),
    ],
)
def test_an_option_that_cannot_work_is_refused_in_one_line(options: dict[str, object], line: str) -> None:
    assert refusal(**options) == f"player usi(...): {line}"


def test_a_program_that_does_not_speak_usi_is_refused_in_one_line() -> None:
    command = f"{sys.executable} -c 'input(); raise SystemExit(3)'"
    assert refusal(command=command).endswith(": the engine ended with exit status 3")
    assert refusal(command=f"{sys.executable} -c 'input(); input()'", startup_timeout_s=0.5).endswith(
        ": the engine sends no usiok within 0.5 s"
    )


def test_an_engine_gets_its_hash_size_without_having_declared_the_option(diary: Path) -> None:
    command = " ".join([*FAKE, "--diary", str(diary)])
    player = make_usi(Shogi(1).spec, seed=0, name="one", command=command, depth=3, movetime_ms=50, USI_Hash=16)
    assert player.name == "one"
    assert not diary.exists()  # nothing was started to make it
    player.start()
    player.start()
    assert moves_of(Shogi(1), player) == ["1g1f"]
    assert len(lives(diary)) == 1
    player.close()
    said = diary.read_text().splitlines()
    assert "setoption name USI_Hash value 16" in said
    assert "go depth 3 movetime 50" in said


def test_an_engine_is_a_player_by_name(diary: Path) -> None:
    command = " ".join([*FAKE, "--diary", str(diary)])
    name = f"usi(command='{command}',nodes=7,Skill_Level=3,USI_Ponder=true,Book=none,USI_Hash=0256)"
    with closing_player(make_player(name, Shogi(1).spec)) as player:
        assert isinstance(player, UsiPlayer)
        assert (player.name, moves_of(Shogi(1), player)) == (name, ["1g1f"])
    said = diary.read_text().splitlines()
    assert {"setoption name Skill Level value 3", "go nodes 7", "quit"} <= set(said)
    # As they were written: neither True nor None nor 256.
    options = ["USI_Ponder value true", "Book value none", "USI_Hash value 0256"]
    assert [line for line in said if line.startswith("setoption")][1:] == [f"setoption name {text}" for text in options]


def test_a_command_that_is_longer_than_a_pipe_holds_arrives_whole(fake: Fake, diary: Path) -> None:
    path = "9" * 300_000
    assert moves_of(Shogi(1), fake(options={"Book": path})) == ["1g1f"]
    assert f"setoption name Book value {path}" in diary.read_text().splitlines()


@pytest.mark.parametrize("make", [make_usi, make_fairy_stockfish])
def test_other_games_and_other_boards_are_refused(make: Callable[..., UsiPlayer], fake: Fake) -> None:
    with pytest.raises(ConfigError, match=r"^player me: game=counting: must be shogi$"):
        make(counting_game()(1).spec, seed=0, name="me", command="x")
    turn = turn_of(Shogi(1))
    with pytest.raises(GameError, match="plays on boards of Shogi only"):
        fake().choose(
            Turn(game=counting_game()(1), indices=turn.indices, observation=turn.observation, legal=turn.legal)
        )


def test_a_missing_fairy_stockfish_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigError) as caught:
        make_fairy_stockfish(Shogi(1).spec, seed=0, name="fairy_stockfish", skill=-21)
    assert caught.value.errors == (
        "player fairy_stockfish: skill=-21: must be a whole number from -20 to 20",
        "player fairy_stockfish: there is no program fairy-stockfish: install it (apt-get install fairy-stockfish), "
        "or give its path by command=",
    )


# The real one


@needs_fairy_stockfish
def test_fairy_stockfish_plays_twenty_legal_games_and_wins_them() -> None:
    player = make_fairy_stockfish(Shogi(1).spec, seed=0, name="fairy", nodes=300)
    try:
        result = play_match(SHOGI, player, RandomPlayer(NUM_ACTIONS, 5), num_games=20, opening_plies=4, seed=0)
    finally:
        player.close()
    assert (result.void, result.repeated) == (0, 0)
    assert result.wins == 20


@needs_fairy_stockfish
def test_skill_levels_of_fairy_stockfish_differ() -> None:
    strong = make_fairy_stockfish(Shogi(1).spec, seed=0, name="strong", skill=20, nodes=300)
    weak = make_fairy_stockfish(Shogi(1).spec, seed=0, name="weak", skill=-10, nodes=300)
    try:
        result = play_match(SHOGI, strong, weak, num_games=10, opening_plies=4, seed=0)
    finally:
        strong.close()
        weak.close()
    assert (result.void, result.wins >= 9) == (0, True)


@needs_fairy_stockfish
def test_the_limit_is_the_engines_own_option_and_wrong_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="Threads=0: must be a whole number from 1 to 512"):
        make_fairy_stockfish(Shogi(1).spec, seed=0, name="fairy", Threads="0").start()


@needs_fairy_stockfish
@pytest.mark.slow
def test_fairy_stockfish_does_not_outlive_a_killed_parent() -> None:
    assert FAIRY is not None
    assert engine_of_a_killed_parent_ends([FAIRY], "go movetime 60000")
