"""A game as a conversation: what a person types, and what the game answers. Nothing is read or printed here.

::

    while the dialogue goes on:
        an opponent is to move:  opponent.choose(session, ...) --> Dialogue.moved()  --> lines to show
        a person is to move:     a line that was typed         --> Dialogue.enter()  --> lines, and what is to be done
                                                                   (an effect: a file, a hint, the end)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keisei_lightning.errors import ConfigError, GameError, KeiseiError
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.games.turns import RESIGN
from keisei_lightning.play.analysis import Analysis
from keisei_lightning.play.effects import Effect, Hint, Load, Quit, Reply, Save
from keisei_lightning.play.opponents import Choice, Opponent
from keisei_lightning.play.seats import SIDES, Seats
from keisei_lightning.play.session import GameSession
from keisei_lightning.play.strength import change_strength
from keisei_lightning.play.typed_moves import find_moves
from keisei_lightning.play.words import (
    Line,
    analysis_lines,
    board_lines,
    evaluation_line,
    list_lines,
    plain,
    result_line,
)

__all__ = ["COMMANDS", "Dialogue", "Effect", "Hint", "Load", "Quit", "Reply", "Save"]

COMMANDS: Final = {
    "hint": ("", "the policy's best moves, and the play that it expects"),
    "moves": ("", "all legal moves, with the numbers that choose them"),
    "board": ("", "draw the board again; so does an empty line"),
    "undo": ("[N]", "take your last move back, and the answer to it; or N"),
    "side": ("[SIDE]", "the seats that you have: first, second, both or none"),
    "switch": ("", "exchange the seats"),
    "strength": ("[KEY=VALUE]", "how the policy chooses: simulations, seconds, temperature"),
    "evaluation": ("", "show what the policy thinks after its moves, or not"),
    "hints": ("", "show a hint before your moves, or not"),
    "save": ("FILE", "write the game: .json, .txt, or a format of the game"),
    "load": ("FILE", "continue a saved game"),
    "resign": ("", "give up"),
    "new": ("", "another game with the same players"),
    "go": ("", "play on, after Ctrl-C; so does an empty line"),
    "help": ("", "this list"),
    "quit": ("", "end; what you did not save is not kept"),
}
"""What may be typed in place of a move: what may follow it, and what it does."""

_ALIASES: Final = {"?": "help", "exit": "quit"}
_SHOWN: Final = 8
_TYPED: Final = 40


class Dialogue:
    """The conversation of one game after another.

    Args:
        session: the game.
        factory: makes further ones.
        seats: who plays.
        evaluation: show what a policy thinks after each of its moves.
        hints: show a hint before each move of a person.

    Attributes:
        session: the game.
        seats: who plays.
        factory: makes further games.
        is_paused: opponents wait until a person says ``go``.
    """

    def __init__(
        self,
        session: GameSession,
        factory: GameFactory,
        seats: Seats,
        *,
        evaluation: bool = False,
        hints: bool = False,
    ) -> None:
        self.session, self.seats = session, seats
        self.factory, self._start = factory, session.start
        self._shows_evaluation, self._shows_hints = evaluation, hints
        self.is_paused = False

    # ---- what is to come

    @property
    def opponent(self) -> Opponent | None:
        """Who is to choose a move now; None: a line is to be typed."""
        if self.session.is_over or self.is_paused:
            return None
        return self._to_move

    @property
    def prompt(self) -> str:
        """What a line is asked for with."""
        if self.session.is_over:
            return "game over> "
        what = "paused" if self.is_paused else self._name
        return f"move {len(self.session.moves) + 1}, {what}> "

    @property
    def wants_hint(self) -> bool:
        """Whether a hint is to be shown before the next line is asked for."""
        return (
            self._shows_hints and self.opponent is None and not self.session.is_over and self.seats.policy is not None
        )

    @property
    def _to_move(self) -> Opponent | None:
        return self.seats.opponents[self.session.mover]

    @property
    def _name(self) -> str:
        return self.seats.names[self.session.mover]

    # ---- what happens

    def greeting(self, *, board: bool = True) -> list[Line]:
        """What is shown first.

        Args:
            board: draw it too.
        """
        title = f"{self.session.game.spec.name}: {self.seats}"
        how = "Type a move, or: moves, hint, undo, save FILE, help, quit."
        return [*(self.board() if board else []), Line(title, "title"), Line(how)]

    def board(self) -> list[Line]:
        """The board, and how the game ended if it has."""
        ending = plain(result_line(self.session, self.seats.names), style="title") if self.session.is_over else []
        return [Line(""), *board_lines(self.session), *ending]

    def moved(self, choice: Choice) -> list[Line]:
        """Make the move of the opponent whose turn it is.

        Args:
            choice: what it answered.

        Raises:
            GameError: the move is not legal.
        """
        name = self._name
        if choice.action == RESIGN:
            self.session.resign()
            return [Line(f"{name} resigns"), *self.board()]
        move = self.session.play(choice.action)
        lines = [Line(f"{name} plays {move.name}", "title")]
        if self._shows_evaluation and choice.analysis is not None:
            lines += plain(evaluation_line(choice.analysis, name), style="note")
        return [*lines, *self.board()]

    def failed(self, error: KeiseiError) -> list[Line]:
        """The opponent whose turn it is has no move: its error is shown, and it waits."""
        self.is_paused = True
        return [*_error(error), *plain("`go` asks again; `undo`, `side`, `save` and the others work.", style="note")]

    def advise(self, analysis: Analysis) -> list[Line]:
        """A hint.

        Args:
            analysis: of the board.
        """
        return analysis_lines(analysis, self._name)

    def resume(self, session: GameSession) -> list[Line]:
        """Continue another game with the same players.

        Args:
            session: of the same kind of game.
        """
        self.session, self._start, self.is_paused = session, session.start, False
        return self.board()

    def enter(self, text: str) -> Reply:
        """Take a line that was typed. Nothing that is typed is an exception.

        Args:
            text: a move, or one of :data:`COMMANDS`.
        """
        text = text.strip()
        try:
            return self._enter(text)
        except KeiseiError as error:
            return Reply(_error(error))

    def _enter(self, text: str) -> Reply:
        if not text:
            return self._go("") if self.is_paused else Reply(self.board())
        names = list(self.session.legal_moves())
        word, _, rest = text.partition(" ")
        word = _ALIASES.get(word.lower(), word.lower())
        if text not in names and word in COMMANDS:
            return self._run(word, rest.strip())
        moves = find_moves(text, names)
        commands = [command for command in COMMANDS if command.startswith(word)]
        if len(moves) == 1 and (text in names or not commands):
            return self._play(moves[0])
        if len(commands) == 1 and not moves:
            return self._run(commands[0], rest.strip())
        shown = _short(text)
        if moves or commands:
            raise GameError(f"{shown}: may be {_some([*moves, *commands])}; type more of it")
        if self.session.is_over:
            raise GameError(f"{shown}: the game is over; `new` begins another one, `undo` takes back, `quit` ends")
        raise GameError(f"{shown}: is no legal move and no command; `moves` lists the moves, `help` the commands")

    def _run(self, command: str, rest: str) -> Reply:
        argument, _ = COMMANDS[command]
        if rest and not argument:
            raise GameError(f"{command} {_short(rest)}: nothing may follow {command}")
        if not rest and argument == "FILE":
            raise GameError(f"{command}: FILE is missing; must be given as {command} FILE")
        act: Callable[[str], Reply] = getattr(self, f"_{command}")
        return act(rest)

    def _play(self, name: str) -> Reply:
        if self._to_move is not None:
            raise GameError(f"{name}: it is {self._name}'s move; `go` lets it play, `side` takes its seat")
        lines = plain(f"you play {name}" if self._name == "you" else f"{self._name} plays {name}")
        self.session.play_name(name)
        return Reply([*lines, *self.board()] if self.opponent is None else lines)

    # ---- commands

    def _hint(self, _: str) -> Reply:
        if self.seats.policy is None:
            raise GameError("hint: there is no policy to ask; checkpoint=FILE names one when `keisei play` is started")
        if self.session.is_over:
            raise GameError("hint: the game is over")
        return Reply(effect=Hint())

    def _moves(self, _: str) -> Reply:
        names = list(self.session.legal_moves())
        return Reply(list_lines(names) if names else _error(GameError("moves: there are none, the game is over")))

    def _board(self, _: str) -> Reply:
        return Reply(self.board())

    def _undo(self, rest: str) -> Reply:
        if rest and not (rest.isascii() and rest.isdecimal() and int(rest[:9]) > 0):
            raise GameError(f"undo {_short(rest)}: must be 1 or more")
        if self.session.is_resigned:
            self.session.undo(0)
            return Reply(self.board())
        left, persons = len(self.session.moves), self.seats.opponents.count(None)
        for _ in range(int(rest[:9] or 1)):
            seats = [move.seat for move in self.session.moves[:left]]
            own = [at for at, seat in enumerate(seats) if not persons or self.seats.opponents[seat] is None]
            if not own:
                raise GameError(f"undo{f' {rest}' if rest else ''}: there is no move of yours to take back")
            left = own[-1]
        self.session.undo(len(self.session.moves) - left)
        return Reply(self.board())

    def _side(self, rest: str) -> Reply:
        if rest:
            side = next((side for side in SIDES if side == rest.lower()), None)
            if side is None:
                raise GameError(f"side {_short(rest)}: must be one of {', '.join(SIDES)}")
            self.seats.take(side)
        return Reply([Line(str(self.seats))])

    def _switch(self, _: str) -> Reply:
        self.seats.switch()
        return self._side("")

    def _strength(self, rest: str) -> Reply:
        policy = self.seats.policy
        if policy is None:
            raise GameError("strength: there is no policy; an opponent's strength is set when `keisei play` is started")
        if rest:
            policy.strength = change_strength(policy.strength, rest)
        return Reply([Line(str(policy.strength))])

    def _evaluation(self, _: str) -> Reply:
        self._shows_evaluation = not self._shows_evaluation
        return Reply([Line(f"evaluation: {_shown(self._shows_evaluation)} after moves of the policy")])

    def _hints(self, _: str) -> Reply:
        if self.seats.policy is None:
            return self._hint("")
        self._shows_hints = not self._shows_hints
        return Reply([Line(f"hints: {_shown(self._shows_hints)} before your moves")])

    def _save(self, rest: str) -> Reply:
        return Reply(effect=Save(rest))

    def _load(self, rest: str) -> Reply:
        return Reply(effect=Load(rest))

    def _resign(self, _: str) -> Reply:
        self.session.resign()
        return Reply(self.board())

    def _new(self, _: str) -> Reply:
        return Reply(self.resume(GameSession(self.factory, start=self._start)))

    def _go(self, _: str) -> Reply:
        self.is_paused = False
        return Reply()

    def _help(self, _: str) -> Reply:
        lines = plain("A move is typed by its name, by a part of it that is clear, or by its number in `moves`.")
        lines += [Line(f"{f'{command} {argument}':<21}{text}") for command, (argument, text) in COMMANDS.items()]
        return Reply(lines)

    def _quit(self, _: str) -> Reply:
        return Reply(effect=Quit())


def _shown(is_shown: bool) -> str:
    return "shown" if is_shown else "not shown"


def _error(error: KeiseiError) -> list[Line]:
    texts = error.errors if isinstance(error, ConfigError) else (str(error),)
    return plain(*(" ".join(text.split()) for text in texts), style="error")


def _short(text: str) -> str:
    """What was typed, for a message: without control characters, and not longer than is readable."""
    clean = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return clean if len(clean) <= _TYPED else f"{clean[:_TYPED]}..."


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
