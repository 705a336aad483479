"""What can be typed after ``keisei bench NAME``, and what must be right about it before anything is imported to run it.

The options of all benches are declared here, where they need no torch: help is shown, and a mistyped word answered, at
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import DescribedGame, GameFactory, game_factory
from keisei_lightning.games.registry import takes_option
from keisei_lightning.parallel.options import Mode, Schedule
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.options import Options, SeedOptions, option

__all__ = [
    "BENCHES",
    "MODELS",
    "Bench",
    "CollectOptions",
    "GameOptions",
    "LearnOptions",
    "ProfileOptions",
    "ReportOptions",
    "RulesOptions",
    "ScaleOptions",
    "TrainingOptions",
    "TuneOptions",
    "WeightsOptions",
    "check_game",
    "describe_rules",
    "game_of",
    "label_of",
]

MODELS = {"tiny": (1, 16), "small": (2, 32), "medium": (6, 96), "large": (10, 128)}
"""Blocks and channels by name."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """How the figures are told; of every bench."""

    json: bool = option(False, "Print JSON instead of a table.")
    write: str | None = option(None, "A file that gets the JSON too.", form="a file")


@dataclass(frozen=True, kw_only=True)
class GameOptions(SeedOptions):
    """Which game is measured."""

    game: str = option(
        "shogi",
        "A game that `keisei games` lists, or one of OpenSpiel's such as hex(board_size=5).",
        form="the name of a game",
    )
    opening_plies: int = option(
        60, "Games start after 0 to this many random plies, if the game has such an option.", low=0
    )
    kernel: bool = option(True, "Moves by a compiled library where the game has one; false: without it.")


@dataclass(frozen=True, kw_only=True)
class CollectOptions(ReportOptions, GameOptions):
    """Of ``collect``."""

    model: list[str] = option(sentence="Network sizes.", factory=lambda: ["small", "medium"], choices=tuple(MODELS))
    mode: list[Mode] = option(sentence="Modes, as parallel.mode of a training.", factory=lambda: ["workers"])
    schedule: Schedule = option("sync", "As parallel.schedule of a training.")
    workers: list[int] = option(sentence="Numbers of workers.", factory=lambda: [1], low=1)
    games: int = option(128, "Boards of a worker, which are one batch of the network.", low=1)
    plies: int = option(32, "Plies of each board in a round.", low=1)
    rounds: int = option(7, "Alternating rounds; medians are quoted.", low=1)
    threads: int = option(1, "Torch threads, for the network alone and in the worker.", low=1)


@dataclass(frozen=True, kw_only=True)
class LearnOptions(ReportOptions, GameOptions):
    """Of ``learn``."""

    model: list[str] = option(sentence="Network sizes.", factory=lambda: ["small"], choices=tuple(MODELS))
    minibatch: list[int] = option(sentence="Plies of a minibatch.", factory=lambda: [256, 1024], low=1)
    games: int = option(128, "Boards of the rollout.", low=1)
    plies: int = option(32, "Plies of each board.", low=1)
    rounds: int = option(5, "Alternating iterations; medians are quoted.", low=1)
    threads: list[int] = option(
        sentence="Torch threads; one, and one for each CPU here, where none are given.",
        factory=lambda: sorted({1, available_cpus()}),
        low=1,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ReportOptions):
    """Of a bench that runs a training.

    Attributes:
        overrides: of the training.
    """

    overrides: tuple[str, ...] = ()
    iterations: int = option(10, "PPO iterations of a training, beside one for warming up.", low=1)


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(TrainingOptions):
    """Of ``profile``."""


@dataclass(frozen=True, kw_only=True)
class RulesOptions(ReportOptions, GameOptions):
    """Of ``rules``."""

    games: list[int] = option(sentence="Boards that advance together.", factory=lambda: [64, 128, 256], low=1)
    plies: int = option(200, "Plies of each board in a round.", low=1)
    rounds: int = option(7, "Alternating rounds; medians are quoted.", low=1)


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(TrainingOptions):
    """Of ``scale``: which clusters, and what is assumed of them."""

    nodes: list[int] = option(sentence="Nodes that play.", factory=lambda: [1, 3, 10, 30, 100, 300, 1000], low=1)
    ranks: list[int] = option(sentence="Learner ranks (DDP).", factory=lambda: [1, 8], low=1, high=1024)
    schedule: list[Schedule] = option(
        sentence="As parallel.schedule of a training.", factory=lambda: list(get_args(Schedule))
    )
    workers: int = option(8, "Workers of a node.", low=1)
    cpus: int = option(8, "CPUs of a node.", low=1)
    ranks_per_machine: int = option(8, "Ranks that share a network card and an object store.", low=1)
    bandwidth_gbit_per_s: float = option(10.0, "Of each network card, in each direction; assumed.", low=0.001)
    latency_ms: float = option(0.2, "Of one message; assumed.", low=0, high=60_000)
    store_gb_per_s: float = option(2.0, "GB/s through an object store; assumed.", low=0.001)
    memory_gb: float = option(32.0, "GB that a learner machine has for stored rollouts; assumed.", above=0)
    rollout_ms: float = option(1.0, "The learner takes for a rollout beside its bytes; assumed.", low=0, high=60_000)
    broadcast: Literal["star", "tree"] = option(
        "star", "star: each node fetches weights from the learner; tree: nodes pass them on."
    )
    worker_plies_per_s: float | None = option(None, "One worker with a CPU of its own plays; null: measured.", low=1)
    learner_plies_per_s: float | None = option(None, "One learner rank learns; null: measured.", low=1)
    rates: str | None = option(
        None, "What an earlier run wrote; its rates are used, and none are measured.", form="a file"
    )
    check: bool = option(False, "Measure on this machine what the model predicts for it, and tell the model's error.")
    check_workers: list[int] = option(sentence="With check: numbers of workers.", factory=lambda: [1, 2, 4, 8], low=1)
    check_agents: int = option(
        0, "With check: 1 to this many node agents of Ray on this machine too, each with one worker.", low=0, high=64
    )
    rounds: int = option(1, "Alternating rounds of all that is measured; medians are used.", low=1)


@dataclass(frozen=True, kw_only=True)
class TuneOptions(ReportOptions, GameOptions):
    """Of ``tune``."""

    model: str = option("small", "Network size.", choices=tuple(MODELS))
    games: list[int] = option(sentence="Games of a worker, to try.", factory=lambda: [32, 64, 128, 256], low=1)
    plies: int = option(8, "Plies of each board in a batch.", low=1)
    seconds: float = option(4.0, "Seconds for each combination, beside its start.", above=0)


@dataclass(frozen=True, kw_only=True)
class WeightsOptions(ReportOptions):
    """Of ``weights``."""

    workers: list[int] = option(sentence="Numbers of workers.", factory=lambda: [1, 2, 4, 8], low=1)
    rounds: int = option(15, "Publishes; medians are quoted.", low=1)
    replica_rounds: int = option(3, "The same, the original's way.", low=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """One measurement; module ``keisei_lightning.commands.bench.NAME`` has its ``run(options)``.

    Attributes:
        help: in a line.
        options: declares its keys.
    """

    help: str
    options: type[ReportOptions]


BENCHES = {
    "collect": Bench(help="plies/s: rules only, network only, collected, and their ratio", options=CollectOptions),
    "learn": Bench(help="PPO's plies/s beside a loop written by hand, by minibatch and threads", options=LearnOptions),
    "profile": Bench(help="where a training's time goes, stage by stage", options=ProfileOptions),
    "rules": Bench(help="plies/s of the game alone: rules, observations and masks", options=RulesOptions),
    "scale": Bench(help="what a cluster would do: plies/s, traffic, lag, and where it stops", options=ScaleOptions),
    "tune": Bench(help="workers, games and threads for this machine, as overrides to paste", options=TuneOptions),
    "weights": Bench(help="publish and adopt weights, beside gzip and a pickle per worker", options=WeightsOptions),
}
"""All measurements by name."""


def check_game(options: GameOptions) -> None:
    """Make the game that was asked for, to see that it can be made.

    Raises:
        ConfigError: it cannot.
    """
    try:
        game_of(options)(1)
    except ConfigError as error:
        raise ConfigError([f"game={options.game}: {' '.join(line.split())}" for line in error.errors]) from error


def game_of(options: GameOptions) -> GameFactory:
    """The game that was asked for."""
    keywords: dict[str, object] = {}
    if options.opening_plies and takes_option(options.game, "opening_plies"):
        keywords["opening_plies"] = options.opening_plies
    if not options.kernel:
        keywords["kernel"] = False
    return game_factory(options.game, **keywords)


def describe_rules(options: GameOptions) -> tuple[str, ...]:
    """For a report: who makes the moves, where there is a choice."""
    game = game_of(options)(1)
    return (game.implementation,) if isinstance(game, DescribedGame) else ()


def label_of(model: str) -> str:
    """A network's name and size."""
    blocks, channels = MODELS[model]
    return f"{model} ({blocks} x {channels})"
