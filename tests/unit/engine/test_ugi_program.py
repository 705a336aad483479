"""An engine that speaks UGI, for any game."""

from __future__ import annotations

import pytest
from engine_talks import agent_of, talk_to

from keisei_lightning.engine.ugi import UgiProgram


@pytest.mark.parametrize(
    "game", ["connect_four", "hex(board_size=4)", "othello", "breakthrough", "tic_tac_toe", "shogi"]
)
def test_it_plays_whole_games_of_every_game_against_itself(game: str) -> None:
    options = {"max_plies": 12} if game in ("shogi", "othello", "breakthrough") else {}
    moves: list[str] = []
    with talk_to(UgiProgram, agent_of(game, **options)) as talk:
        talk.ask("ugi", "ugiok")
        talk.ask("isready", "readyok")
        while True:
            talk.say(f"position startpos{' moves ' if moves else ''}{' '.join(moves)}")
            is_over = talk.ask("query gameover", "response") == "response true"
            result = talk.ask("query result", "response")
            assert (result == "response none") == (not is_over)
            if is_over:
                break
            legal = talk.ask("query moves", "response").split()[1:]
            best = talk.ask("go nodes 8", "bestmove").split()[1]
            assert best in legal
            moves.append(best)
        assert result in ("response p1win", "response p2win", "response draw")
        assert talk.ask("go nodes 8", "bestmove") == "bestmove none"


def test_it_wins_where_it_can_and_says_whose_turn_it_is() -> None:
    with talk_to(UgiProgram, agent_of("connect_four")) as talk:
        assert talk.ask("query p1turn", "response") == "response true"
        talk.say("position startpos moves x0 o1 x0 o1 x0 o1")
        position = talk.ask("query position", "response").removeprefix("response ")
        assert talk.ask("go nodes 50", "bestmove") == "bestmove x0"
        assert any(" score mate + " in line for line in talk.heard)
        talk.say("position startpos moves x0")
        assert talk.ask("query p1turn", "response") == "response false"
        talk.say(f"position fen {position} moves x0")
        assert talk.ask("query result", "response") == "response p1win"
        talk.ask("query board", "info string")


@pytest.mark.parametrize(
    "text",
    ["position startpos moves x9", "position", "position fen", "position fen 9 9 9", "query", "query age", "what"],
)
def test_what_cannot_be_read_is_told(text: str) -> None:
    with talk_to(UgiProgram, agent_of("connect_four")) as talk:
        assert talk.ask(text, "info string")
        talk.say("position startpos")
        assert talk.ask("go nodes 4", "bestmove") != "bestmove none"


def test_time_and_stops_are_obeyed() -> None:
    with talk_to(UgiProgram, agent_of("connect_four")) as talk:
        assert talk.ask("go p1time 500 p2time 500 p1inc 10 p2inc 10", "bestmove")
        assert talk.ask("go movetime 20", "bestmove")
        talk.say("go infinite")
        assert talk.ask("stop", "bestmove")
