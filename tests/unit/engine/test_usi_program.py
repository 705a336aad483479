"""An engine that speaks USI, in this process: what it answers, and that nothing it hears ends it."""

from __future__ import annotations

import math
import random
import re
import time
from itertools import count
from typing import Any

import pytest
from engine_talks import agent_of, talk_to
from rsshogi.core import Board
from searches import uneven, uniform

from keisei_lightning.agents import Agent
from keisei_lightning.engine.channel import MAX_LINE_BYTES
from keisei_lightning.engine.settings import EngineSettings
from keisei_lightning.engine.uci import centipawns
from keisei_lightning.engine.usi import UsiProgram
from keisei_lightning.errors import ConfigError

SHOGI = agent_of("shogi", max_plies=200)
MATE_IN_ONE = "sfen 4k4/9/4P4/9/9/9/9/9/4K4 b G2r2b3g4s4n4l17p 1"
MATED = "sfen 4k4/4G4/4P4/9/9/9/9/9/4K4 w 2r2b3g4s4n4l17p 1"
DECLARABLE = "sfen 3RRBBGK/3GGGSSS/9/9/9/9/9/9/4k4 b S4N4L18P 1"


def test_it_tells_its_options_and_answers_before_a_policy_is_loaded() -> None:
    loaded = []

    def load(settings: EngineSettings) -> Agent:
        loaded.append(settings.checkpoint)
        return SHOGI

    with talk_to(UsiProgram, load, EngineSettings(simulations=5)) as talk:
        talk.ask("usi", "usiok")
        assert loaded == []
        assert talk.ask("isready", "readyok") == "readyok"
    assert loaded == ["published:shogi"]
    assert "option name Simulations type spin default 5 min -1 max 1000000" in talk.heard
    assert "option name USI_Ponder type check default false" in talk.heard
    assert talk.heard[0].startswith("id name keisei-lightning ")


def test_a_tree_that_is_full_is_told_while_the_search_waits_for_stop() -> None:
    with talk_to(UsiProgram, SHOGI, EngineSettings(hash_mb=1)) as talk:
        talk.say("position startpos")
        told = talk.ask("go infinite", "info string")
        assert told == "info string the tree is full; with more than 1 MB (USI_Hash) the search would go on"
        assert talk.ask("stop", "bestmove").startswith("bestmove ")
        talk.ask("go nodes 40", "bestmove")
        talk.say("position startpos moves 7g7f")
        talk.ask("go movetime 1", "bestmove")
    assert sum(line.startswith("info string") for line in talk.heard) == 1


def test_a_fixed_number_of_positions_is_searched_and_told() -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        talk.say("position startpos moves 7g7f")
        best = talk.ask("go nodes 40", "bestmove")
        info = [line for line in talk.heard if line.startswith("info")][-1]
        found = re.fullmatch(r"info depth (\d+) nodes 40 nps \d+ time \d+ score cp (-?\d+) pv (.+)", info)
        assert found is not None, info
        line = found[3].split()
        assert best.split()[:2] == ["bestmove", line[0]]
        assert best.split()[2:] == (["ponder", line[1]] if len(line) > 1 else [])
        board = Board()
        for move in ["7g7f", *line]:
            board.apply_move(next(each for each in board.legal_moves() if each.to_usi() == move))


def test_several_variations_begin_with_different_moves() -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        talk.say("setoption name MultiPV value 3", "position startpos")
        best = talk.ask("go nodes 60", "bestmove")
    told = [re.search(r" multipv (\d) pv (\S+)", line) for line in talk.heard if " multipv " in line][-3:]
    assert [match[1] for match in told if match] == ["1", "2", "3"]
    moves = [match[2] for match in told if match]
    assert len(set(moves)) == 3
    assert best.split()[1] == moves[0]


def test_searchmoves_are_the_only_ones() -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        assert talk.ask("go nodes 20 searchmoves 9g9f 1g1f", "bestmove").split()[1] in ("9g9f", "1g1f")
        assert talk.ask("go nodes 20 searchmoves 1g1f", "bestmove").split()[1] == "1g1f"


@pytest.mark.parametrize("kernel", [None, False])
def test_ends_of_games_are_answered(kernel: bool | None) -> None:
    with talk_to(UsiProgram, agent_of("shogi", kernel=kernel)) as talk:
        talk.say(f"position {MATED}")
        assert talk.ask("go nodes 10", "bestmove") == "bestmove resign"
        talk.say(f"position {DECLARABLE}")
        assert talk.ask("go nodes 10", "bestmove") == "bestmove win"
        talk.say(f"position {MATE_IN_ONE}")
        assert talk.ask("go nodes 10", "bestmove") == "bestmove G*5b"
        assert any(" score mate + " in line for line in talk.heard)


def test_mates_are_told_as_a_line() -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        talk.say(f"position {MATE_IN_ONE}")
        assert talk.ask("go mate infinite", "checkmate") == "checkmate G*5b"
        talk.say("position startpos")
        assert talk.ask("go mate 1000", "checkmate") == "checkmate nomate"


def test_games_that_the_rules_have_ended_are_played_on() -> None:
    there_and_back = "2h3h 8b7b 3h2h 7b8b "
    with talk_to(UsiProgram, agent_of("shogi", max_plies=10)) as talk:
        for times in (2, 3, 7):  # a fourth occurrence, and more plies than the limit
            talk.say(f"position startpos moves {there_and_back * times}".strip())
            assert re.fullmatch(r"bestmove \d[a-i]\d[a-i].*", talk.ask("go nodes 10", "bestmove"))


def test_it_resigns_below_the_value_that_is_set() -> None:
    lost: Any = lambda observation, legal: (uniform(observation, legal)[0], uniform(observation, legal)[1] - 0.9)  # noqa: E731
    with talk_to(UsiProgram, agent_of("shogi", lost)) as talk:
        assert talk.ask("go nodes 1", "bestmove") != "bestmove resign"
        talk.say("setoption name ResignValue value 600")
        assert talk.ask("go nodes 0", "bestmove") == "bestmove resign"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("position", "must be position startpos"),
        ("position startpos moves 7g7f 7g7f", "is not legal"),
        ("position sfen 9/9/9/9/9/9/9/9/9 b - 1", "impossible"),
        ("position sfen what", "cannot read"),
        ("position nowhere", "must be position startpos"),
    ],
)
def test_a_position_that_cannot_be_read_is_told_and_not_played(text: str, reason: str) -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        assert reason in talk.ask(text, "info string")
        assert talk.ask("go nodes 5", "bestmove") == "bestmove resign"
        talk.say("position startpos")
        assert talk.ask("go nodes 5", "bestmove") != "bestmove resign"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("setoption name Simulations value many", "must be spin default -1 min -1 max 1000000"),
        ("setoption name Simulations value -2", "must be spin"),
        ("setoption name Threads value 0", "must be spin"),
        ("setoption name Mirror value perhaps", "must be check"),
        ("setoption name Device value abacus", "must be string"),
        ("setoption name Simulation value 3", "did you mean"),
        ("setoption", "must be setoption name NAME value VALUE"),
        ("frobnicate", "no such command"),
    ],
)
def test_what_cannot_be_set_is_told(text: str, reason: str) -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        assert reason in talk.ask(text, "info string")
        assert talk.ask("go nodes 5", "bestmove")


def test_open_ended_searches_wait_for_their_command() -> None:
    with talk_to(UsiProgram, SHOGI, EngineSettings(hash_mb=1)) as talk:  # the tree is full long before the stop
        for go in ("go infinite", "go", "go ponder byoyomi 1000", "go nodes 3 infinite"):
            talk.say("position startpos", go)
            assert talk.ask("isready", "readyok")
            assert not any(line.startswith("bestmove") for line in talk.heard)
            assert talk.ask("stop", "bestmove")
            talk.heard.clear()
        talk.say("go ponder byoyomi 10")
        assert talk.ask("ponderhit", "bestmove")
        talk.say("go infinite")
        talk.say("go nodes 3")  # ends what nothing else would
        assert talk.hear("bestmove")
        assert talk.hear("bestmove")


def test_time_is_kept_by_the_clock_from_the_command_on() -> None:
    now = count()

    def clock() -> float:
        return next(now) * 0.001

    def slow(observation: Any, legal: Any) -> Any:
        for _ in range(15):
            next(now)
        return uneven(observation, legal)

    with talk_to(UsiProgram, agent_of("shogi", slow), clock=clock) as talk:
        talk.ask("isready", "readyok")
        for byoyomi_ms in (100, 1000):
            for _ in range(5):
                before = next(now)
                talk.ask(f"go btime 0 wtime 0 byoyomi {byoyomi_ms}", "bestmove")
                assert byoyomi_ms * 0.2 < next(now) - before < byoyomi_ms


def test_a_policy_that_cannot_be_read_leaves_the_one_before() -> None:
    def load(settings: EngineSettings) -> Agent:
        if settings.checkpoint != "published:shogi":
            raise ConfigError(f"checkpoint={settings.checkpoint}: there is no such file")
        return SHOGI

    with talk_to(UsiProgram, load) as talk:
        talk.ask("isready", "readyok")
        talk.say("setoption name Checkpoint value nowhere.ckpt")
        assert talk.ask("isready", "info string") == "info string checkpoint=nowhere.ckpt: there is no such file"
        assert talk.hear("readyok")
        assert talk.ask("go nodes 5", "bestmove") != "bestmove resign"


def test_without_any_policy_it_ends() -> None:
    def converse() -> None:
        with talk_to(UsiProgram, agent_of("tic_tac_toe")) as talk:
            talk.say("isready")
            assert "readyok" not in talk.rest()

    with pytest.raises(ConfigError, match="plays tic_tac_toe; USI is a protocol of shogi alone"):
        converse()


def test_an_evaluator_that_fails_is_told_and_the_next_search_is_made() -> None:
    fails = [False]

    def moody(observation: Any, legal: Any) -> Any:
        if fails[0]:
            raise ValueError("no idea")
        return uneven(observation, legal)

    with talk_to(UsiProgram, agent_of("shogi", moody)) as talk:
        talk.ask("isready", "readyok")
        fails[0] = True
        talk.say("position startpos")
        assert talk.ask("go nodes 5", "bestmove") == "bestmove resign"
        assert talk.hear("info string") == "info string ValueError: no idea"
        fails[0] = False
        assert talk.ask("go nodes 5", "bestmove") != "bestmove resign"


@pytest.mark.parametrize("end", ["quit", "hang up"])
@pytest.mark.parametrize("go", ["go infinite", "go ponder", "go nodes 3", "stop"])
def test_it_ends_in_order(end: str, go: str) -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        talk.ask("isready", "readyok")
        talk.say(go)
        if end == "quit":
            talk.say("quit")
        else:
            talk.hang_up()
        assert sum(line.startswith("bestmove") for line in talk.rest()) == (go != "stop")


def test_scores_grow_with_the_odds() -> None:
    assert centipawns(0.5) == 0
    assert centipawns(1 / (1 + math.exp(-1))) == 600
    assert centipawns(0.25) == -centipawns(0.75) == round(600 * math.log(1 / 3))
    assert (centipawns(0.0), centipawns(1.0)) == (-4144, 4144)


WORDS = [
    *("usi", "isready", "usinewgame", "stop", "ponderhit", "gameover win", "gameover", "position startpos", "quit?"),
    *("position startpos moves 7g7f", f"position {MATED}", f"position {DECLARABLE}", "position sfen", "go", "go mate"),
    *(
        "go infinite",
        "go ponder",
        "go nodes 3",
        "go nodes",
        "go nodes -1",
        "go byoyomi 1",
        "go movetime x",
        "go mate 1",
    ),
    *("go btime 1 wtime 1 binc 0 winc 0", "go depth 0", "go searchmoves 9i9i", "go btime 99999999999999999999 nodes 2"),
    *(
        "setoption name USI_Hash value 1",
        "setoption name MultiPV value 100",
        "setoption name",
        "setoption name  value ",
    ),
    *(
        "setoption name MaxPlies value 3",
        "setoption name Temperature value 100",
        "position startpos moves",
        "\t\t",
        "\0",
    ),
]


def garbage(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind < 5:
        return rng.choice(WORDS).encode()
    if kind == 5:
        return rng.randbytes(rng.randrange(60)).replace(b"quit", b"")
    if kind == 6:  # a command that is cut, doubled or mixed with another one
        text = rng.choice(WORDS) + rng.choice(WORDS)
        return text[rng.randrange(len(text)) :].encode() + rng.randbytes(2)
    return b"position startpos moves " + b"7g7f " * rng.randrange(2000)


@pytest.mark.slow
def test_five_hundred_malformed_sessions_are_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.engine.thinker._WARM_UP", 1)  # a session shall be short
    rng = random.Random(0)
    agent = agent_of("shogi", uniform)
    for session in range(500):
        with talk_to(UsiProgram, agent) as talk:
            data = b"".join(garbage(rng) + rng.choice([b"\n", b"\r\n", b"\n\n"]) for _ in range(rng.randrange(1, 12)))
            talk.send(data)
            talk.say("stop", "setoption name MaxPlies value 0", "setoption name Temperature value 0")
            talk.say("position startpos", "go nodes 2 searchmoves 7g7f", "quit")
            said = talk.rest()
        answers = [line for line in said if line.startswith("bestmove")]
        assert answers, session
        assert answers[-1].startswith("bestmove 7g7f"), (session, data)
        assert all(re.match(r"(id|option|info|bestmove|checkmate|readyok|usiok|$)", line) for line in said), said


def test_a_huge_line_is_dropped() -> None:
    with talk_to(UsiProgram, SHOGI) as talk:
        talk.send(b"position " + b"x" * (2 * MAX_LINE_BYTES) + b"\n")
        assert talk.hear("info string") == "info string a line is too long, and dropped"
        assert talk.ask("go nodes 2", "bestmove")


def test_a_load_that_takes_long_keeps_the_line_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.engine.uci._KEEP_ALIVE_S", 0.01)

    def load(settings: EngineSettings) -> Agent:
        time.sleep(0.1)
        return SHOGI

    with talk_to(UsiProgram, load) as talk:
        talk.ask("isready", "readyok")
        assert "" in talk.heard
