"""Who can be played against: published policies, checkpoints of the results folder, and search without a network."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.agents import Agent, load_agent
from keisei_lightning.games import game_factory, game_names
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.published import PREFIX, published_card, published_names
from keisei_lightning.search.cache import Evaluate
from keisei_lightning.serve.fields import RequestError
from keisei_lightning.serve.run_files import RunFolder, run_folders

__all__ = ["Policies", "Policy", "uniform_evaluator"]

_KEPT = 4
"""Networks that are kept in memory."""

_LISTED_S = 2.0
"""The folder is looked through at most so often."""

_MAX_CHECKPOINTS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """One that can be chosen.

    Attributes:
        key: what a client calls it.
        name: for people.
        game: that it plays; empty: its file will tell.
        kind: "published", "checkpoint" or "search".
        path: of its file, as :func:`~keisei_lightning.agents.load_agent` takes it; of a search its game.
    """

    key: str
    name: str
    game: str
    kind: str
    path: str

    def to_json(self) -> dict[str, Any]:
        """What a client is told; the path stays here."""
        return {"key": self.key, "name": self.name, "game": self.game, "kind": self.kind}


class Policies:
    """Makes the list, and loads what is chosen from it. One thread asks for the list, and one loads.

    Args:
        folder: with the runs.
        checkpoint: one more; None: none.
        device: of the networks.
    """

    def __init__(self, folder: Path, *, checkpoint: str | None = None, device: str = "cpu") -> None:
        self._folder, self._checkpoint, self._device = folder, checkpoint, device
        self._listed: tuple[float, list[Policy]] = (-_LISTED_S, [])
        self._agents: OrderedDict[tuple[str, int], Agent] = OrderedDict()
        self._fixed = [*self._given(), *_published(), *_searches()]

    def choices(self) -> list[Policy]:
        """All that can be chosen: the one that was given first, then published ones, searches, and the newest runs'."""
        at, found = self._listed
        if time.monotonic() - at >= _LISTED_S:
            found = [*self._fixed, *_checkpoints(self._folder)]
            self._listed = (time.monotonic(), found)
        return found

    def find(self, key: str) -> Policy:
        """The one that a client names.

        Raises:
            RequestError: there is none of this name.
        """
        for policy in self.choices():
            if policy.key == key:
                return policy
        raise RequestError(404, "policy: there is none of this name; must be one of the list")

    def load(self, policy: Policy) -> Agent:
        """Read a policy; seconds the first time.

        Raises:
            ConfigError: its file cannot be read.
        """
        if policy.kind == "search":
            return _search_agent(policy.path)
        file = Path(policy.path)
        key = (policy.path, file.stat().st_mtime_ns if file.is_file() else 0)
        if key not in self._agents:
            self._agents[key] = load_agent(policy.path, device=self._device)
            while len(self._agents) > _KEPT:
                self._agents.popitem(last=False)
        self._agents.move_to_end(key)
        return self._agents[key]

    def _given(self) -> list[Policy]:
        """The one of the command line, whose game is known once it is loaded, which tells a mistake at once."""
        if self._checkpoint is None:
            return []
        agent = load_agent(self._checkpoint, device=self._device)
        policy = Policy(
            key=_key(self._checkpoint),
            name=Path(agent.name).name,
            game=agent.spec.name,
            kind="checkpoint",
            path=self._checkpoint,
        )
        return [policy]


def uniform_evaluator(spec: GameSpec) -> Evaluate:
    """What a search asks that has no network: every legal move is as likely, and every position even."""

    def evaluate(
        observation: NDArray[np.uint8], legal: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        counts = np.unpackbits(legal, axis=1, count=spec.num_actions).sum(axis=1, dtype=np.int64)
        return np.repeat(-np.log(counts), counts).astype(np.float32), np.zeros(len(observation), np.float32)

    return evaluate


def _search_agent(game: str) -> Agent:
    factory = game_factory(game)
    spec = factory(1).spec
    return Agent(name="search", game=factory, spec=spec, evaluator=lambda _: uniform_evaluator(spec))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _published() -> list[Policy]:
    return [
        Policy(
            key=_key(PREFIX + name),
            name=f"{name} (published)",
            game=published_card(name)["game"],
            kind="published",
            path=PREFIX + name,
        )
        for name in published_names()
    ]


def _searches() -> list[Policy]:
    return [
        Policy(key=_key(f"search:{game}"), name="search without a network", game=game, kind="search", path=game)
        for game in game_names()
    ]


def _checkpoints(folder: Path) -> list[Policy]:
    found = []
    for run in run_folders(folder):
        for file in run.checkpoints():
            found.append(_of_run(run, file))
            if len(found) == _MAX_CHECKPOINTS:
                return found
    return found


def _of_run(run: RunFolder, file: Path) -> Policy:
    return Policy(
        key=_key(str(file)), name=f"{run.name}: {file.stem}", game=run.game, kind="checkpoint", path=str(file)
    )
