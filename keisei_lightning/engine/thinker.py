"""A policy that is loaded when it is needed, and searches positions within the limits of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from keisei_lightning.agents import Agent
from keisei_lightning.engine.clock import Limits, StepTimes, Task
from keisei_lightning.engine.settings import POSITIONS_PER_MB, EngineSettings
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.play import Analysis, Analyst, GameSession, RankedMove, choose_move
from keisei_lightning.play.analysis import AnyPosition
from keisei_lightning.search.options import SearchOptions

__all__ = ["Load", "Thinker"]

Load = Callable[[EngineSettings], Agent]
"""Reads the policy that settings name."""

_WARM_UP: Final = 32  # simulations
_REPORT_EVERY_S: Final = 0.5


class Thinker:
    """Searches positions by a policy. It is used by one thread, which the boards belong to.

    A search of a fixed number of positions is that of the player ``search(simulations=N)``: Gumbel's rules, which
    share the number out among the moves beforehand. Where time or a command ends it, the number is not known
    beforehand, and PUCT's rules are used, whose move is the best so far at any moment.

    Args:
        load: reads policies.
        clock: seconds.
    """

    def __init__(self, load: Load, clock: Callable[[], float]) -> None:
        self._load, self._clock = load, clock
        self._agent: Agent | None = None
        self._loaded: tuple[object, ...] = ()
        self._searched: tuple[object, ...] = ()
        self._random = np.random.default_rng(0)
        self._steps = StepTimes()
        self._analysts: dict[str, Analyst] = {}
        self.game: GameFactory
        """Makes the game, with the settings' options."""
        self.settings: EngineSettings
        """Those that it was made ready with."""

    @property
    def is_ready(self) -> bool:
        """Whether a policy has been loaded."""
        return self._agent is not None

    def task(self, limits: Limits, settings: EngineSettings) -> Task:
        """What a search is asked for with; it may be made by any thread."""
        return Task(limits, delay_s=settings.network_delay_ms / 1000, steps=self._steps, clock=self._clock)

    def prepare(self, settings: EngineSettings) -> bool:
        """Load the policy that settings name, unless it is there.

        Args:
            settings: of the next search.

        Returns:
            Whether the boards of before are no longer those of the game.

        Raises:
            ConfigError: it cannot be read; the one of before stays.
        """
        loaded = (settings.checkpoint, settings.device, settings.threads)
        searched = (*loaded, settings.max_plies, settings.hash_mb, settings.mirror, settings.seed)
        if searched == self._searched:
            return False
        if loaded != self._loaded:
            self._agent, self._loaded = self._load(settings), loaded
        assert self._agent is not None
        self._searched, self.settings = searched, settings
        limit = {} if settings.max_plies is None else {"max_plies": settings.max_plies}
        self.game = partial(self._agent.game, **limit) if limit else self._agent.game
        self._random = np.random.default_rng(settings.seed)
        self.new_game()
        session = GameSession(self.game)
        for _ in range(2):  # the first time, all is slower than it will ever be
            task = self.task(Limits(), settings)
            for analyst in self._analysts.values():
                task.begin(session.mover)
                analyst.analyse(session, simulations=_WARM_UP, goes_on=task.goes_on)
            self.new_game()
        self._steps.forget(_WARM_UP // SearchOptions().leaves * len(self._analysts))
        return True

    def new_game(self) -> None:
        """Forget the trees."""
        if self._agent is None:
            return
        options = SearchOptions(mirror=self.settings.mirror, max_nodes=self.settings.hash_mb * POSITIONS_PER_MB)
        evaluate = self._agent.evaluator(options.mirror)
        self._analysts = {
            "gumbel": Analyst(evaluate, self.game, options),
            "puct": Analyst(evaluate, self.game, replace(options, method="puct")),
        }
        self._most_positions = options.max_nodes

    def release(self) -> None:
        """Drop all boards."""
        self._analysts.clear()

    def think(
        self,
        position: AnyPosition,
        task: Task,
        settings: EngineSettings,
        report: Callable[[Analysis], None] | None = None,
        complain: Callable[[str], None] | None = None,
    ) -> Analysis:
        """Search a position until the task's limits are reached.

        Args:
            position: that is not over.
            task: its limits.
            settings: of this search.
            report: is shown what has been found from time to time.
            complain: is told when the tree is full before the limits are reached.

        Raises:
            ConfigError, GameError: of the network or the game.
        """
        task.begin(position.mover)
        count = task.limits.nodes if task.limits.nodes is not None else settings.simulations
        analyst, simulations = self._analysts["gumbel"], count
        if simulations is None:
            analyst, simulations = self._analysts["puct"], self._most_positions
            if task.limits.is_timed and not task.is_open_ended and len(position.legal_moves()) == 1:
                simulations = 1
        if task.is_over:  # not even for one step
            simulations = 0
            self._steps.fade()

        def watch(analysis: Analysis) -> bool:
            if report is not None:
                report(analysis)
            return count is not None or not task.is_decided(analysis)

        analysis = analyst.analyse(
            position,
            simulations=simulations,
            watch=watch,
            watch_every_s=_REPORT_EVERY_S,
            goes_on=task.goes_on,
            lines=settings.lines,
        )
        is_left = count is None and simulations > 1 and not (task.is_over or task.is_decided(analysis))
        if is_left and analysis.result is None and complain is not None:
            complain(f"the tree is full; with more than {settings.hash_mb} MB (USI_Hash) the search would go on")
        task.wait_for_release()
        return analysis

    def choose(self, analysis: Analysis, settings: EngineSettings) -> RankedMove:
        """The move to play: the best one, or a sample by the settings' temperature."""
        return choose_move(analysis, temperature=settings.temperature, random=self._random)
