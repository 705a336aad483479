"""What can be typed after ``keisei bench NAME``, and what must be right about it before anything is imported to run it.

The defaults of all benches stand here, where they need no torch: help is shown, and a mistyped word answered, at once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.system.machine import available_cpus

__all__ = ["BENCHES", "MODELS", "Bench", "check_game", "describe_rules", "game_of", "label_of"]

MODELS = {"tiny": (1, 16), "small": (2, 32), "medium": (6, 96), "large": (10, 128)}
"""Blocks and channels by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """One measurement; module ``keisei_lightning.commands.bench.NAME`` has its ``run(arguments)``.

    Attributes:
        help: in a line.
        add_arguments: declares its options.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def _whole(text: str, low: int) -> int:
    if not text.isdecimal() or int(text) < low:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, {low} or more")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1)


def _not_negative(text: str) -> int:
    return _whole(text, 0)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds above 0")
    return value


def _add_game_arguments(parser: argparse.ArgumentParser, *, models: list[str] | None = None) -> None:
    """Declare which game is measured, and which networks unless there are none."""
    parser.add_argument("--game", default="shogi", help="game (default: shogi)")
    if models is not None:
        parser.add_argument(
            "--model", nargs="+", choices=MODELS, default=models, help=f"network sizes (default: {' '.join(models)})"
        )
    parser.add_argument(
        "--opening-plies", type=_not_negative, default=60, help="games start after 0 to this many random plies"
    )
    parser.add_argument("--no-kernel", action="store_true", help="shogi by rsshogi alone, not by its compiled kernel")
    parser.add_argument("--seed", type=_not_negative, default=0)


def _collect(parser: argparse.ArgumentParser) -> None:
    _add_game_arguments(parser, models=["small", "medium"])
    parser.add_argument("--mode", nargs="+", choices=["serial", "workers", "central"], default=["workers"])
    parser.add_argument("--schedule", choices=["sync", "async"], default="sync")
    parser.add_argument("--workers", nargs="+", type=_count, default=[1], help="numbers of workers (default: 1)")
    parser.add_argument("--games", type=_count, default=128, help="boards of a worker = batch of the network")
    parser.add_argument("--plies", type=_count, default=32, help="plies of each board in a round")
    parser.add_argument("--rounds", type=_count, default=7, help="alternating rounds; medians are quoted")
    parser.add_argument(
        "--threads", type=_count, default=1, help="torch threads, for the network alone and in the worker"
    )


def _learn(parser: argparse.ArgumentParser) -> None:
    _add_game_arguments(parser, models=["small"])
    parser.add_argument("--minibatch", nargs="+", type=_count, default=[256, 1024], help="plies of a minibatch")
    parser.add_argument("--games", type=_count, default=128, help="boards of the rollout")
    parser.add_argument("--plies", type=_count, default=32, help="plies of each board")
    parser.add_argument("--rounds", type=_count, default=5, help="alternating iterations; medians are quoted")
    parser.add_argument(
        "--threads",
        nargs="+",
        type=_count,
        default=sorted({1, available_cpus()}),
        help="torch threads (default: 1, all)",
    )


def _rules(parser: argparse.ArgumentParser) -> None:
    _add_game_arguments(parser)
    parser.add_argument("--games", nargs="+", type=_count, default=[64, 128, 256], help="boards that advance together")
    parser.add_argument("--plies", type=_count, default=200, help="plies of each board in a round (default: 200)")
    parser.add_argument("--rounds", type=_count, default=7, help="alternating rounds; medians are quoted")


def _tune(parser: argparse.ArgumentParser) -> None:
    _add_game_arguments(parser)
    parser.add_argument("--model", choices=MODELS, default="small", help="network size (default: small)")
    parser.add_argument("--games", nargs="+", type=_count, default=[32, 64, 128, 256], help="games of a worker to try")
    parser.add_argument("--plies", type=_count, default=8, help="plies of each board in a batch")
    parser.add_argument("--seconds", type=_seconds, default=4.0, help="for each combination, beside its start")


def _weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", nargs="+", type=_count, default=[1, 2, 4, 8], help="numbers of workers")
    parser.add_argument("--rounds", type=_count, default=15, help="publishes; medians are quoted")
    parser.add_argument("--replica-rounds", type=_count, default=3, help="the same, the original's way")


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py, such as experiment=shogi model=medium"
    )
    parser.add_argument("--iterations", type=_count, default=10, help="PPO iterations, beside one for warming up")


BENCHES = {
    "collect": Bench(help="plies/s: rules only, network only, collected, and their ratio", add_arguments=_collect),
    "learn": Bench(help="PPO's plies/s beside a loop written by hand, by minibatch and threads", add_arguments=_learn),
    "profile": Bench(help="where a training's time goes, stage by stage", add_arguments=_profile),
    "rules": Bench(help="plies/s of the game alone: rules, observations and masks", add_arguments=_rules),
    "tune": Bench(help="workers, games and threads for this machine, as overrides to paste", add_arguments=_tune),
    "weights": Bench(help="publish and adopt weights, beside gzip and a pickle per worker", add_arguments=_weights),
}
"""All measurements by name."""


def check_game(arguments: argparse.Namespace) -> None:
    """Make the game that was asked for, if the bench plays one, to see that it can be made.

    Raises:
        ConfigError: it cannot.
    """
    if not hasattr(arguments, "game"):
        return
    try:
        game_of(arguments)(1)
    except ConfigError as error:
        raise ConfigError([f"--game {arguments.game}: {' '.join(fault.split())}" for fault in error.faults]) from error


def game_of(arguments: argparse.Namespace) -> GameFactory:
    """The game that was asked for."""
    options = {"opening_plies": arguments.opening_plies} if arguments.opening_plies else {}
    if arguments.no_kernel:
        options["kernel"] = False
    return game_factory(arguments.game, **options)


def describe_rules(arguments: argparse.Namespace) -> tuple[str, ...]:
    """For a report: who makes the moves, where there is a choice."""
    if arguments.game != "shogi":
        return ()
    from keisei_lightning.games.shogi.kernel import why_no_kernel  # loads the rules library, which help does not need

    reason = "--no-kernel" if arguments.no_kernel else why_no_kernel()
    return (f"moves by rsshogi ({reason})" if reason else "moves by the compiled kernel",)


def label_of(model: str) -> str:
    """A network's name and size."""
    blocks, channels = MODELS[model]
    return f"{model} ({blocks} x {channels})"
