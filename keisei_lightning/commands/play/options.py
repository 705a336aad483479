"""What can be typed after ``keisei play``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keisei_lightning.play.strength import StrengthOptions
from keisei_lightning.published import PREFIX
from keisei_lightning.system.devices import device_option
from keisei_lightning.system.options import Options, option

__all__ = ["PlayOptions"]


@dataclass(frozen=True, kw_only=True)
class _GameOptions(Options):
    """What is played, by whom, and what is shown and kept of it."""

    checkpoint: str | None = option(
        None,
        f"The policy: a checkpoint file of a training run, a model that was exported (.onnx), or {PREFIX}NAME, which "
        "comes with the package; null: the published one of the game, or a choice of them.",
        form="a checkpoint file",
    )
    game: str | None = option(
        None,
        "Without a checkpoint: the game, by a name that `keisei games` lists, or one of OpenSpiel's.",
        form="the name of a game",
    )
    opponent: str | None = option(
        None,
        "Who plays instead of the policy: a player by name, such as alpha_beta(depth=3); null: the policy.",
        form="a player",
    )
    side: Literal["first", "second", "random", "both", "none"] = option(
        "first", "Your seat; both: two persons play; none: watch the policy, which plays itself or the opponent."
    )
    position: str | None = option(
        None, "Where the game begins, in its own notation (SFEN for shogi); null: its start.", form="a position"
    )
    load: str | None = option(
        None, "A game to continue: one that was saved as .json, or a record such as game.kif.", form="a file"
    )
    save: str | None = option(
        None, "A file that has the game, written after each move: .json, .txt, or a format of the game.", form="a file"
    )
    evaluation: bool = option(False, "Show what the policy thinks after each of its moves.")
    hints: bool = option(False, "Show the policy's best moves before each of yours.")
    colour: Literal["auto", "always", "never"] = option(
        "auto", "Colours on the screen; auto: on a terminal, unless NO_COLOR is set."
    )
    device: str = device_option()
    seed: int | None = option(
        None, "Of temperature, of side=random, and of the opponent; null: another one each time.", low=0, high=2**32 - 1
    )


@dataclass(frozen=True, kw_only=True)
class PlayOptions(StrengthOptions, _GameOptions):
    """The keys of ``keisei play``: those of the game, then those of the policy's strength."""
