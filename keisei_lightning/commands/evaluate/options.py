"""What can be typed after ``keisei eval``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keisei_lightning.published import PREFIX, is_checkpoint
from keisei_lightning.system.devices import device_option
from keisei_lightning.system.options import Options, option

__all__ = ["EvalOptions"]


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Options):
    """The keys of ``keisei eval``."""

    checkpoint: str | None = option(
        None,
        f"The policy: a checkpoint file of a training run, or {PREFIX}NAME, which comes with the package; null: the "
        "opponents play each other (round_robin=true).",
        form="a checkpoint file",
    )
    opponents: list[str] = option(
        sentence=f"Players by name, and other checkpoints (files that end with .ckpt, or {PREFIX}NAME).",
        factory=lambda: ["random"],
    )
    games: int = option(
        400, "Games of each match; each opening is played from both seats.", low=2, high=100_000, is_even=True
    )
    opening_plies: int | None = option(
        None, "Openings are 0 to this many random plies; null: as in the training run.", low=0
    )
    seed: int = option(0, "Root seed of every random stream: of openings and of players.", low=0, high=2**32 - 1)
    greedy: bool = option(True, "Checkpoints play their most likely move; false: they sample.")
    temperature: float = option(1.0, "Of sampling: below 1 nearer to greedy play.", above=0)
    simulations: int = option(
        0, "Checkpoints search: positions that a tree search looks at for a move; 0: the policy alone.", low=0
    )
    symmetric: bool = option(
        False, "Checkpoints play the mean of their policies in a position and in its mirror images."
    )
    round_robin: bool = option(
        False, "Everybody plays everybody (random too), and all are rated on the Elo scale with random at 0."
    )
    game: str | None = option(
        None,
        "Without a checkpoint: the game, by a name that `keisei games` lists, or one of OpenSpiel's.",
        form="the name of a game",
    )
    model: dict[str, Any] | None = option(
        sentence="The network of the checkpoints, where they do not tell it themselves, such as "
        "{kind:resnet,num_blocks:2,channels:32}.",
        factory=dict,
    )
    records: bool = option(
        True, "Keep all games (KIF and CSA for shogi, move lists for others, SGF too for hex and othello)."
    )
    animations: int = option(
        0,
        "Games of each match that are also kept as a picture that plays by itself (game_0001.svg), the first ones; 0: "
        "none.",
        low=0,
    )
    output_dir: str | None = option(
        None,
        "Where results.csv, results.json and records/ are written; null: results/eval/DATE-TIME.",
        form="a folder",
    )
    device: str = device_option()

    @property
    def checkpoints(self) -> list[str]:
        """All checkpoints: the policy that is asked about first, then those among the opponents."""
        own = [] if self.checkpoint is None else [self.checkpoint]
        return [*own, *filter(is_checkpoint, self.opponents)]
