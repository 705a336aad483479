"""Make the game and its players, and let them play until somebody has seen enough."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from keisei_lightning.agents import Agent, load_agent
from keisei_lightning.commands.play.checks import named_game
from keisei_lightning.commands.play.completion import beginning_with, suggestions
from keisei_lightning.commands.play.files import free_name, read_game, read_session, write_session
from keisei_lightning.commands.play.menu import choose_policy, policy_of_game
from keisei_lightning.commands.play.options import PlayOptions
from keisei_lightning.commands.play.terminal import Interrupts, Terminal, wants_colour
from keisei_lightning.errors import ConfigError, GameError, KeiseiError
from keisei_lightning.evaluation.registry import closing_player, make_player, player_errors, start_player
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.play import Dialogue, GameSession, PlayerOpponent, PolicyOpponent, Seats, StrengthOptions
from keisei_lightning.play.dialogue import Hint, Load, Quit, Save
from keisei_lightning.play.opponents import Opponent
from keisei_lightning.play.seats import Side
from keisei_lightning.play.words import Line, board_lines, plain
from keisei_lightning.published import PREFIX, is_published, published_card, published_names
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.system.console import quiet_libraries
from keisei_lightning.system.paths import one_line

__all__ = ["play"]

_SEED_BITS: Final = 2**31
T = TypeVar("T")


def play(options: PlayOptions) -> None:
    """Play games until the person ends.

    Args:
        options: read from the command line, and checked
            (:func:`~keisei_lightning.commands.play.checks.check_options`).

    Raises:
        ConfigError: something cannot work; nothing was played.
        Stopped: a signal ended it.
    """
    quiet_libraries()
    if options.device not in ("auto", "cpu"):
        from keisei_lightning.policies import device_of  # only then torch is imported before anything is shown

        device_of(options.device)
    terminal = Terminal(colour=wants_colour(options.colour))
    with Interrupts() as interrupts, ExitStack() as stack:
        game = _choose_game(options, terminal)
        if game is None:
            return
        random = np.random.default_rng(options.seed)
        session = _session(options, game.factory)
        policy = None if game.agent is None else _policy(options, game.agent, random)
        if policy is None and (options.hints or options.evaluation):
            raise ConfigError("hints, evaluation: must be false without a policy; checkpoint=FILE names one")
        other = _opponent(options, session, random, stack)
        side: Side = ("first", "second")[random.integers(2)] if options.side == "random" else options.side
        dialogue = Dialogue(
            session,
            game.factory,
            Seats(policy, other, side),
            evaluation=options.evaluation,
            hints=options.hints,
        )
        table = _Table(dialogue, terminal, interrupts, save=options.save, load=options.load)
        terminal.show(dialogue.greeting(board=not game.is_drawn))
        table.run()


@dataclass(frozen=True, slots=True)
class _ChosenGame:
    """What is played.

    Attributes:
        factory: makes it.
        agent: the policy; None: there is none.
        is_drawn: its board is on the screen.
    """

    factory: GameFactory
    agent: Agent | None = None
    is_drawn: bool = False


def _choose_game(options: PlayOptions, terminal: Terminal) -> _ChosenGame | None:
    """What is played, by the command line, the saved game or the person; None: the person wants nothing.

    Raises:
        ConfigError: there is no such game, or nobody to play it.
    """
    checkpoint, name, key = options.checkpoint, options.game, "game"
    if checkpoint is None and name is None and options.load is not None:
        name, key = _loaded(read_game, options.load), "load: game"
    if checkpoint is None and name is not None:
        factory = named_game(name, key=key)
        if options.opponent is not None or options.side == "both":
            return _ChosenGame(factory)
        known = policy_of_game(factory(1).spec.name)
        if known is None:
            raise ConfigError(
                f"opponent: is missing, and no published policy plays {one_line(name)}; must be a player such as "
                "alpha_beta(depth=3), or side=both, or checkpoint=FILE in place of game"
            )
        checkpoint = PREFIX + known
    if checkpoint is None:
        terminal.completion.suggest = partial(beginning_with, words=published_names())
        chosen = choose_policy(terminal.ask, terminal.show)
        if chosen is None:
            return None
        checkpoint = PREFIX + chosen
    if is_published(checkpoint):  # its board is shown at once: to read a policy takes torch, and that takes seconds
        game = str(published_card(checkpoint.removeprefix(PREFIX))["game"])
        terminal.show(board_lines(_session(options, game_factory(game))))
    terminal.show([Line(f"reading {one_line(checkpoint)} ...", "note")])
    agent = load_agent(checkpoint, device=options.device)
    return _ChosenGame(agent.game, agent, is_drawn=is_published(checkpoint))


def _session(options: PlayOptions, factory: GameFactory) -> GameSession:
    if options.load is not None:
        return _loaded(lambda path: read_session(factory, path), options.load)
    try:
        return GameSession(factory, start=options.position)
    except GameError as error:
        raise ConfigError(f"position={one_line(str(options.position))}: {' '.join(str(error).split())}") from error


def _loaded(read: Callable[[str], T], path: str) -> T:
    try:
        return read(path)
    except GameError as error:
        raise ConfigError(f"load={error}") from error


def _policy(options: PlayOptions, agent: Agent, random: np.random.Generator) -> PolicyOpponent:
    strength = StrengthOptions(
        simulations=options.simulations, seconds=options.seconds, temperature=options.temperature
    )
    analyst = agent.analyst(SearchOptions(simulations=options.simulations, seconds=options.seconds))
    return PolicyOpponent(analyst, agent.name, strength, random)


def _opponent(
    options: PlayOptions, session: GameSession, random: np.random.Generator, stack: ExitStack
) -> Opponent | None:
    """The player that was named, started; it is closed with the stack."""
    if options.opponent is None:
        return None
    spec = session.game.spec
    if errors := list(player_errors("opponent", [options.opponent], spec)):
        raise ConfigError(errors)
    player = stack.enter_context(
        closing_player(make_player(options.opponent, spec, seed=int(random.integers(_SEED_BITS))))
    )
    try:
        start_player(player)
    except ConfigError as error:
        raise ConfigError([f"opponent={options.opponent}: {line}" for line in error.errors]) from error
    return PlayerOpponent(player)


class _Table:
    """Where a game is played: its dialogue, the screen, Ctrl-C and the files.

    Args:
        dialogue: of the game.
        terminal: the screen.
        interrupts: active.
        save: file that has the game after each move; None: none.
        load: file that the game was loaded from; None: it was not.

    Raises:
        ConfigError: the game cannot be saved there.
    """

    def __init__(
        self, dialogue: Dialogue, terminal: Terminal, interrupts: Interrupts, *, save: str | None, load: str | None
    ) -> None:
        self._dialogue, self._terminal, self._interrupts = dialogue, terminal, interrupts
        self._save = self._first_save = save
        self._own_files = {path for path in (save, load) if path is not None}
        terminal.completion.suggest = partial(suggestions, dialogue)
        self._kept: object = None
        self._kept_session: GameSession | None = None
        self._hinted: object = None
        try:
            self._keep()
        except GameError as error:
            raise ConfigError(f"save={error}") from error

    def run(self) -> None:
        """Play until the person ends."""
        while True:
            opponent = self._dialogue.opponent
            if opponent is not None:
                self._let_move(opponent)
            elif not self._answer_line():
                return
            try:
                self._keep()
            except GameError as error:
                self._tell(error)

    def _let_move(self, opponent: Opponent) -> None:
        shown = self._terminal.thinking(opponent.name, can_stop=isinstance(opponent, PolicyOpponent))
        try:
            with self._interrupts.thinking(), shown:
                choice = opponent.choose(self._dialogue.session, self._interrupts.going)
            self._terminal.show(self._dialogue.moved(choice))
        except KeiseiError as error:
            self._terminal.show(self._dialogue.failed(error))
        if self._interrupts.was_asked and self._dialogue.opponent is not None:
            self._dialogue.is_paused = True  # nobody else would ever ask for a line

    def _answer_line(self) -> bool:
        """Ask for a line, and do what it says; returns whether to go on."""
        if self._dialogue.wants_hint and self._state != self._hinted:
            self._hinted = self._state
            self._hint()
        line = self._terminal.ask(self._dialogue.prompt)
        if line is None:
            return False
        reply = self._dialogue.enter(line)
        self._terminal.show(reply.lines)
        try:
            match reply.effect:
                case Quit():
                    return False
                case Hint():
                    self._hint()
                case Save(path):
                    self._write(path)
                case Load(path):
                    session = read_session(self._dialogue.factory, path)
                    self._own_files.add(path)
                    self._terminal.show(self._dialogue.resume(session))
        except KeiseiError as error:
            self._tell(error)
        return True

    def _tell(self, error: KeiseiError) -> None:
        self._terminal.show(plain(" ".join(str(error).split()), style="error"))

    @property
    def _state(self) -> object:
        session = self._dialogue.session
        return session, len(session.moves), session.is_over

    def _hint(self) -> None:
        policy = self._dialogue.seats.policy
        assert policy is not None
        try:
            with self._interrupts.thinking(), self._terminal.thinking(policy.name):
                analysis = policy.analyse(self._dialogue.session, self._interrupts.going)
        except KeiseiError as error:
            self._tell(error)
        else:
            self._terminal.show(self._dialogue.advise(analysis))

    def _keep(self) -> None:
        """Write the game into its own file where it has changed."""
        if self._save is None or self._first_save is None or self._state == self._kept:
            return
        session, before = self._dialogue.session, self._kept_session
        if before is not None and before is not session and before.moves:
            self._save = free_name(self._first_save)
            self._terminal.show([Line(f"this game is saved as {one_line(self._save)}")])
        self._kept, self._kept_session = self._state, session
        write_session(session, self._save, self._dialogue.seats.names)

    def _write(self, path: str) -> None:
        if path not in self._own_files and os.path.lexists(path):
            raise GameError(f"{one_line(path)}: is there already; must be a new file")
        write_session(self._dialogue.session, path, self._dialogue.seats.names)
        self._own_files.add(path)
        self._terminal.show([Line(f"saved as {one_line(path)}")])
