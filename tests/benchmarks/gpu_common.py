"""What the measurements on an accelerator share: their options, their results, and clocks that wait for the device."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.models import ActorCritic, build_network

__all__ = ["MODELS", "Results", "Shape", "add_common_arguments", "policy_of", "rate_of", "shogi", "synchronize"]

MODELS = {"tiny": (1, 16), "small": (2, 32), "medium": (6, 96), "large": (10, 128)}
"""Blocks and channels by name, as in the configuration group ``model``."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every measurement knows."""
    parser.add_argument("--device", default="cuda:0", help="cuda:0 or cpu")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin nothing that would end later than this")
    parser.add_argument("--write", type=Path, metavar="FILE", help="rewrite this file with all results after each row")


class Results:
    """Rows as they come: each is printed, and everything is written anew.

    Args:
        file: gets the JSON; None: nothing is written.
        seconds: from now on; see :meth:`is_time_for`.
    """

    def __init__(self, file: Path | None, seconds: float) -> None:
        self.figures: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self._file, self._start, self._seconds = file, time.monotonic(), seconds
        self._last, self._longest = self._start, 0.0

    def is_time_for(self, what: str) -> bool:
        """Whether another row that takes as long as the longest yet would end in time; says so if not."""
        if time.monotonic() - self._start + self._longest <= self._seconds:
            return True
        self._print(f"left out for want of time: {what}")
        return False

    def add(self, row: Mapping[str, Any], **figures: Any) -> None:
        """Take in a row, and what everything comes down to by now."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        self.rows.append(dict(row))
        self.figures |= figures
        self._print(", ".join(f"{name} {value}" for name, value in row.items()))
        if self._file is not None:
            fresh = self._file.with_suffix(".tmp")
            fresh.write_text(json.dumps({"figures": self.figures, "rows": self.rows}, indent=1), encoding="utf-8")
            os.replace(fresh, self._file)

    def failed(self, what: str, error: Exception) -> None:
        """Note that a case could not be measured, so that the next one is."""
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        count = int(self.figures.get("failed_cases", 0)) + 1
        self.add({"case": what, "error": message}, failed_cases=count)

    def exit_status(self) -> int:
        """1 if a case could not be measured, or none was."""
        return int(not self.rows or "failed_cases" in self.figures)

    def _print(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Shape:
    """Who plays: "8x512x2" is eight workers with 512 games each, in two groups.

    Attributes:
        num_workers: W.
        games_per_worker: G.
        groups_per_worker: of a worker's games.
    """

    num_workers: int
    games_per_worker: int
    groups_per_worker: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read "8x512x2"."""
        workers, games, groups = map(int, text.split("x"))
        return cls(workers, games, groups)

    def __str__(self) -> str:
        return f"{self.num_workers}x{self.games_per_worker}x{self.groups_per_worker}"


def shogi() -> GameFactory:
    """The game that is measured: it begins after up to 60 random plies, so that all phases of a game are there."""
    return game_factory("shogi", opening_plies=60)


def policy_of(model: str, *, kind: type[ActorCritic] = ActorCritic) -> ActorCritic:
    """An untrained policy for shogi, on the CPU."""
    torch.manual_seed(0)
    blocks, channels = MODELS[model]
    network: nn.Module = build_network(shogi()(1).spec, kind="resnet", num_blocks=blocks, channels=channels)
    return kind(network)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate_of(function: Callable[[], object], *, device: torch.device, seconds: float, warm_up: int = 3) -> float:
    """Calls per second of a function that gives work to the device.

    Args:
        function: is called again and again.
        device: is waited for at the end, not between calls.
        seconds: to measure for, after some calls to warm up.
        warm_up: so many.
    """
    for _ in range(warm_up):
        function()
    synchronize(device)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(4):  # the host runs ahead of the device, but not by more than this
            function()
        synchronize(device)
        calls += 4
    return calls / (time.perf_counter() - start)
