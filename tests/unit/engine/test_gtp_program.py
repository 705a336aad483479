"""An engine that speaks GTP, for hex and othello."""

from __future__ import annotations

import pytest
from engine_talks import Talk, agent_of, talk_to

from keisei_lightning.engine.gtp import GtpProgram
from keisei_lightning.engine.settings import EngineSettings


def ask(talk: Talk, command: str) -> str:
    """The response to a command: all lines before the empty one."""
    talk.say(command)
    lines = [talk.hear("")]
    while lines[-1]:
        lines.append(talk.hear(""))
    return "\n".join(lines[:-1]).rstrip()


def test_every_command_of_the_standard_is_there() -> None:
    with talk_to(GtpProgram, agent_of("hex")) as talk:
        assert ask(talk, "1 protocol_version") == "=1 2"
        assert ask(talk, "name") == "= keisei-lightning"
        assert ask(talk, "7 known_command genmove") == "=7 true"
        assert ask(talk, "known_command dance") == "= false"
        commands = ask(talk, "list_commands").removeprefix("= ").splitlines()
        assert {"boardsize", "clear_board", "komi", "play", "genmove", "undo", "showboard", "quit"} <= set(commands)
        assert ask(talk, "8 dance") == "?8 unknown command"
        talk.say("", "# a remark")
        assert ask(talk, "komi 0") == "="
        assert ask(talk, "komi x") == "? syntax error"
        assert ask(talk, "9 quit") == "=9"
        assert talk.rest() == []


@pytest.mark.parametrize(("game", "size"), [("othello", 8), ("hex(board_size=5)", 5)])
def test_it_plays_whole_games(game: str, size: int) -> None:
    with talk_to(GtpProgram, agent_of(game), EngineSettings(simulations=4)) as talk:
        assert ask(talk, f"boardsize {size}") == "="
        assert ask(talk, "boardsize 19") == "? unacceptable size"
        assert ask(talk, "clear_board") == "="
        assert ask(talk, "final_score") == "? cannot score"
        for ply in range(size * size + 10):
            if ask(talk, "all_legal") == "=":
                break
            # Passes alternate too.
            answer = ask(talk, f"genmove {'bw'[ply % 2]}")
            assert answer.startswith("= "), answer
        assert ask(talk, "final_score") in ("= B+", "= W+", "= 0")
        assert ask(talk, "genmove b") == "= pass"


def test_moves_are_played_refused_and_taken_back() -> None:
    with talk_to(GtpProgram, agent_of("othello")) as talk:
        assert ask(talk, "undo") == "? cannot undo"
        assert ask(talk, "play w d3") == "? illegal move"
        assert ask(talk, "play b a1") == "? illegal move"
        assert ask(talk, "play b") == "? syntax error"
        assert ask(talk, "play green d3") == "? syntax error"
        board = ask(talk, "showboard")
        assert ask(talk, "play BLACK D3") == "="
        assert ask(talk, "showboard") != board
        assert ask(talk, "undo") == "="
        assert ask(talk, "showboard") == board
        assert ask(talk, "all_legal") == "= d3 c4 f5 e6"


def test_clocks_end_its_searches() -> None:
    with talk_to(GtpProgram, agent_of("hex(board_size=5)"), EngineSettings(network_delay_ms=0)) as talk:
        assert ask(talk, "time_settings 1 0 0") == "="
        assert ask(talk, "genmove b").startswith("= ")
        assert ask(talk, "time_left w 0 0") == "="
        assert ask(talk, "genmove w").startswith("= ")
        assert ask(talk, "time_left b 1 25") == "="
        assert ask(talk, "genmove b").startswith("= ")
        assert ask(talk, "time_settings many 0 0") == "? syntax error"
        assert ask(talk, "time_left green 0 0") == "? syntax error"
        assert ask(talk, "time_settings 0 1 0") == "="  # no limit
        assert ask(talk, "reg_genmove w").startswith("= ")


def test_a_game_without_vertices_is_refused() -> None:
    with talk_to(GtpProgram, agent_of("connect_four")) as talk:
        assert ask(talk, "genmove b") == "? connect_four: GTP is for hex and othello here; use protocol=ugi"
        assert ask(talk, "name") == "= keisei-lightning"
