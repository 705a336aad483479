"""A game as a conversation: lines that are typed, and what is answered. No screen, no file and no network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import uniform

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import RandomPlayer
from keisei_lightning.games import NO_MOVE, game_factory
from keisei_lightning.games.turns import RESIGN, Turn
from keisei_lightning.play import Analyst, Dialogue, GameSession, PlayerOpponent, PolicyOpponent, Seats, StrengthOptions
from keisei_lightning.play.dialogue import COMMANDS, Hint, Load, Quit, Reply, Save
from keisei_lightning.play.opponents import Choice
from keisei_lightning.play.seats import Side
from keisei_lightning.search import SearchOptions

CONNECT_FOUR, TIC_TAC_TOE, SHOGI = map(game_factory, ("connect_four", "tic_tac_toe", "shogi"))


def always() -> bool:
    return True


class FirstMove:
    """Plays the first legal move, or what it is told to."""

    name = "first move"

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)

    def choose(self, session: GameSession, going: Callable[[], bool]) -> Choice:
        return Choice(self.answers.pop(0) if self.answers else next(iter(session.legal_moves().values())))


def policy(factory: Callable[..., object] = CONNECT_FOUR, **strength: float) -> PolicyOpponent:
    options = StrengthOptions(**{"simulations": 16} | strength)  # type: ignore[arg-type]
    return PolicyOpponent(Analyst(uniform, factory, SearchOptions()), "net", options, np.random.default_rng(1))  # type: ignore[arg-type]


def dialogue(side: Side = "first", *, factory=CONNECT_FOUR, start: str | None = None, **keywords: bool) -> Dialogue:  # type: ignore[no-untyped-def]
    seats = Seats(policy(factory), FirstMove(), side)
    return Dialogue(GameSession(factory, start=start), factory, seats, **keywords)


def text_of(reply: Reply) -> str:
    return "\n".join(line.text for line in reply.lines)


def answer(of: Dialogue) -> str:
    """Let the opponents move until a line is to be typed; what they show."""
    shown = []
    while (opponent := of.opponent) is not None:
        shown += [line.text for line in of.moved(opponent.choose(of.session, always))]
    return "\n".join(shown)


def names_of(of: Dialogue) -> list[str]:
    return [move.name for move in of.session.moves]


def test_a_move_is_answered_by_the_opponents_and_the_board_is_drawn_once() -> None:
    game = dialogue()
    *board, title, _ = [line.text for line in game.greeting()]
    assert title == "connect_four: you (first) against first move"
    assert board == [line.text for line in game.board()]
    assert game.greeting(board=False)[0].text == title
    assert game.prompt == "move 1, you> "
    assert text_of(game.enter("3")) == "you play x3"
    assert "first move plays o0" in answer(game)
    assert names_of(game) == ["x3", "o0"]
    assert game.prompt == "move 3, you> "


def test_a_bad_line_changes_nothing_and_says_what_there_is() -> None:
    game = dialogue()
    for line, said in [
        ("9", "9: is no legal move and no command; `moves` lists the moves, `help` the commands"),
        ("x", "x: may be x0, x1, x2, x3, x4, x5, x6; type more of it"),
        ("s", "s: may be side, switch, strength, save; type more of it"),
        ("hint now", "hint now: nothing may follow hint"),
        ("undo", "undo: there is no move of yours to take back"),
        ("undo 2", "undo 2: there is no move of yours to take back"),
        ("undo x", "undo x: must be 1 or more"),
        ("undo -1", "undo -1: must be 1 or more"),
        ("undo 0", "undo 0: must be 1 or more"),
        ("undo ²", "undo ²: must be 1 or more"),
        ("side third", "side third: must be one of first, second, both, none"),
        ("strength 7", "strength 7: must be KEY=VALUE with KEY one of simulations, seconds, temperature"),
        ("strength simulations=-1", "simulations=-1: must be a whole number, from 0 to 10000000"),
        ("strength temperature=nan", "temperature=nan: must be a number, from 0 to 100"),
        ("strength seconds=0", "seconds=0: must be a number, more than 0, or None"),
        ("save", "save: FILE is missing; must be given as save FILE"),
        ("load ", "load: FILE is missing; must be given as load FILE"),
        ("\x1b[31mred", r"\x1b[31mred: is no legal move"),
        ("y" * 1000, "y" * 40 + "...: is no legal move"),
        ("\udcff", r"\udcff: is no legal move"),
    ]:
        reply = game.enter(line)
        assert reply.effect is None
        assert " ".join(text_of(reply).split()).startswith(said), line
        assert {each.style for each in reply.lines} == {"error"}
        assert all(len(each.text) < 80 for each in reply.lines)
    assert game.session.moves == []


@pytest.mark.parametrize("side", ["first", "second"])
def test_undo_takes_back_the_persons_own_move_and_the_answer(side: Side) -> None:
    game = dialogue(side)
    answer(game)
    for move in ("3", "4", "5"):
        game.enter(move)
        answer(game)
    played = names_of(game)
    game.enter("undo")
    assert (names_of(game), game.opponent) == (played[: 4 if side == "first" else 5], None)
    game.enter("un 2")
    assert names_of(game) == played[: 0 if side == "first" else 1]
    assert "no move of yours" in text_of(game.enter("undo"))


def test_two_persons_and_a_watcher_take_back_single_moves() -> None:
    game = dialogue("both")
    for move in ("3", "4", "undo"):
        game.enter(move)
    assert names_of(game) == ["x3"]
    assert game.prompt == "move 2, the second player> "
    watched = dialogue("none")
    for _ in range(4):
        watched.moved(watched.opponent.choose(watched.session, always))  # type: ignore[union-attr]
    watched.is_paused = True
    assert (watched.opponent, watched.prompt) == (None, "move 5, paused> ")
    assert "it is net's move; `go` lets it play, `side` takes its seat" in " ".join(
        text_of(watched.enter("x3")).split()
    )
    watched.enter("undo")
    assert len(watched.session.moves) == 3
    for go in ("go", ""):
        watched.is_paused = True
        watched.enter(go)
        assert watched.opponent is not None


def test_who_gives_up_has_lost_and_may_think_better_of_it() -> None:
    game = dialogue()
    assert "First move (the second player)" not in text_of(game.enter("resign"))
    assert text_of(game.enter("board")).endswith("first move (the second player) wins by resignation after 0 moves.")
    assert (game.session.result, game.prompt, game.opponent) == (0.0, "game over> ", None)
    for line in ("resign", "3", "hint", "moves"):
        assert "the game is over" in text_of(game.enter(line))
    game.enter("undo")
    assert (game.session.result, game.prompt) == (None, "move 1, you> ")
    game.enter("3")
    game.enter("new")
    assert game.session.moves == []


def test_a_whole_game_is_won_and_another_one_follows() -> None:
    game = dialogue()
    for move in ("3", "4", "5"):
        game.enter(move)
        answer(game)
    said = text_of(game.enter("6"))
    assert said.splitlines()[0] == "you play x6"
    assert said.splitlines()[-1] == "You (the first player) win after 7 moves."
    assert "begins another one" in text_of(game.enter("x1"))
    game.enter("switch")
    game.enter("new")
    assert "first move plays x0" in answer(game)
    assert game.prompt == "move 2, you> "


def test_seats_are_taken_and_exchanged_in_mid_game() -> None:
    game = dialogue()
    assert text_of(game.enter("side")) == "you (first) against first move"
    assert text_of(game.enter("side none")) == "net (first) against first move"
    assert text_of(game.enter("switch")) == "first move (first) against net"
    assert text_of(game.enter("side both")) == "two persons"
    assert text_of(game.enter("side second")) == "you (second) against first move"
    assert game.opponent is not None


def test_the_strength_of_the_policy_changes_in_mid_game() -> None:
    game = dialogue()
    assert text_of(game.enter("strength")) == "simulations=16 seconds=null temperature=0"
    assert text_of(game.enter("strength simulations=5 seconds=0.5 temperature=1")) == (
        "simulations=5 seconds=0.5 temperature=1"
    )
    assert text_of(game.enter("strength seconds=null")) == "simulations=5 seconds=null temperature=1"
    assert game.seats.policy is not None
    analysis = game.seats.policy.analyse(game.session, always)
    assert analysis.visits == 5


def test_effects_are_asked_for_and_not_done() -> None:
    game = dialogue()
    assert game.enter("save a b.json").effect == Save("a b.json")
    assert game.enter("LOAD x.json").effect == Load("x.json")
    assert game.enter("hint").effect == Hint()
    assert [game.enter(word).effect for word in ("quit", "q", "exit")] == [Quit()] * 3
    assert game.session.moves == []


def test_a_hint_shows_the_best_moves_with_their_figures_and_the_play_that_is_expected() -> None:
    game = dialogue(factory=TIC_TAC_TOE)
    for move in ("1,1", "2,2", "0,1"):
        game.session.play_name(f"{'xo'[len(game.session.moves) % 2]}({move})")
    game.enter("side second")
    game.enter("strength simulations=300")
    assert game.seats.policy is not None
    lines = [line.text for line in game.advise(game.seats.policy.analyse(game.session, always))]
    assert lines[0].split() == ["move", "policy", "network", "visits", "value"]
    assert lines[1].split()[0] == "o(2,1)"  # the only one that does not lose
    assert lines[1].split()[2] == "16.7%"
    assert lines[6].startswith("value ")  # behind a head and five moves
    assert "for you (" in lines[6]
    assert "; expects o(2,1) " in lines[6]
    game.enter("strength simulations=0")
    (row,) = [line.text for line in game.advise(game.seats.policy.analyse(game.session, always))][1:2]
    assert row.split() == ["o(0,0)", "16.7%", "16.7%", "0"]


def test_hints_and_evaluations_are_shown_if_they_are_asked_for() -> None:
    game = dialogue(hints=True)
    assert game.wants_hint
    assert text_of(game.enter("hints")) == "hints: not shown before your moves"
    assert not game.wants_hint
    game.enter("side none")
    for wanted in (False, True):
        assert game.seats.policy is not None
        while game.opponent is not game.seats.policy:
            game.moved(game.opponent.choose(game.session, always))  # type: ignore[union-attr]
        lines = [line.text for line in game.moved(game.seats.policy.choose(game.session, always))]
        assert any(line.startswith("value ") and " for net (" in line for line in lines) is wanted
        game.enter("evaluation")


def test_without_a_policy_there_are_no_hints_and_nobody_to_play_against() -> None:
    game = Dialogue(GameSession(TIC_TAC_TOE), TIC_TAC_TOE, Seats(None, None, "both"))
    for line in ("hint", "hints", "strength", "side first"):
        assert game.enter(line).lines[0].style == "error"
    with pytest.raises(ConfigError, match="side=none: must be both"):
        Seats(None, None, "none")


def test_an_opponent_that_resigns_has_lost_and_one_without_a_move_waits() -> None:
    game = Dialogue(GameSession(TIC_TAC_TOE), TIC_TAC_TOE, Seats(None, FirstMove(RESIGN), "second"))
    assert answer(game).splitlines()[0] == "first move resigns"
    assert game.session.result == 0.0

    class Silent(RandomPlayer):
        def choose(self, turn: Turn) -> np.ndarray:
            return np.full(len(turn.indices), NO_MOVE)

    silent = PlayerOpponent(Silent(9, seed=1, name="silent"))
    game = Dialogue(GameSession(TIC_TAC_TOE), TIC_TAC_TOE, Seats(None, silent, "second"))
    with pytest.raises(GameError, match="silent: has no move") as caught:
        silent.choose(game.session, always)
    assert game.failed(caught.value)[0].style == "error"
    assert game.opponent is None
    game.enter("go")
    assert game.opponent is silent


def test_a_registered_player_and_a_policy_play_a_whole_game() -> None:
    seats = Seats(policy(TIC_TAC_TOE, temperature=1), PlayerOpponent(RandomPlayer(9, seed=3)), "none")
    game = Dialogue(GameSession(TIC_TAC_TOE), TIC_TAC_TOE, seats)
    answer(game)
    assert game.session.is_over
    assert game.session.result is not None


def test_thinking_ends_when_it_is_asked_to_and_its_best_move_counts() -> None:
    asked = iter([True, True, False])
    opponent = policy(simulations=1_000_000)
    choice = opponent.choose(GameSession(CONNECT_FOUR), lambda: next(asked))
    assert choice.analysis is not None
    assert 0 < choice.analysis.visits < 1_000_000
    assert choice.action == choice.analysis.moves[0].action


def test_shogi_is_played_by_drops_and_promotions_from_a_position() -> None:
    game = dialogue("both", factory=SHOGI, start="4k4/9/4P4/9/9/9/9/9/4K4 b G 1")
    assert "G*5b" in text_of(game.enter("moves"))
    game.enter("5c5b")  # not promoted: a move of its own
    assert names_of(game) == ["5c5b"]
    game.enter("undo")
    assert text_of(game.enter("g*5b")).splitlines()[0] == "the first player plays G*5b"
    assert text_of(game.enter("board")).endswith("The first player wins by checkmate after 1 move.")
    game.enter("new")
    assert game.session.start == "4k4/9/4P4/9/9/9/9/9/4K4 b G 1"
    game.enter("5c5b+")
    assert names_of(game) == ["5c5b+"]


def test_a_board_is_drawn_in_ascii_too() -> None:
    board = next(line for line in dialogue("both", factory=SHOGI).board() if line.style == "board")
    assert not board.text.isascii()
    assert board.ascii_text.isascii()
    assert board.ascii_text.splitlines()[1] == " .  r  .  .  .  .  .  b  ."
    assert len(board.ascii_text.splitlines()) == 10


def test_the_help_names_every_command_and_each_is_there() -> None:
    game = dialogue()
    lines = [line.text for line in game.enter("?").lines]
    assert all(len(line) < 80 for line in lines)
    for command in COMMANDS:
        assert any(line.startswith(command) for line in lines)
        assert game.enter(f"{command} x" if command in ("save", "load") else command) is not None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.text(), st.sampled_from([*COMMANDS, "undo 2", "side both", "1", "2,2"])), max_size=8))
def test_nothing_that_is_typed_is_an_exception(lines: list[str]) -> None:
    game = dialogue("both", factory=TIC_TAC_TOE)
    for line in lines:
        game.enter(line)
        again = GameSession.from_json(TIC_TAC_TOE, game.session.to_json())
        assert (again.moves, again.outcome) == (game.session.moves, game.session.outcome)
