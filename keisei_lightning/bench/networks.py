"""What is measured: games, and the networks of the configuration group ``model``."""

from __future__ import annotations

import argparse

import torch

from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.games.shogi_kernel import why_no_kernel
from keisei_lightning.models import ActorCritic, build_network

__all__ = ["MODELS", "add_game_arguments", "describe_rules", "game_of", "label_of", "policy_of"]

MODELS = {"tiny": (1, 16), "small": (2, 32), "medium": (6, 96), "large": (10, 128)}
"""Blocks and channels by name."""


def add_game_arguments(parser: argparse.ArgumentParser, *, models: list[str] | None = None) -> None:
    """Declare which game is measured, and which networks unless there are none."""
    parser.add_argument("--game", default="shogi", help="game (default: shogi)")
    if models is not None:
        parser.add_argument(
            "--model", nargs="+", choices=MODELS, default=models, help=f"network sizes (default: {' '.join(models)})"
        )
    parser.add_argument("--opening-plies", type=int, default=60, help="games start after 0 to this many random plies")
    parser.add_argument("--no-kernel", action="store_true", help="shogi by rsshogi alone, not by its compiled kernel")
    parser.add_argument("--seed", type=int, default=0)


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
    reason = "--no-kernel" if arguments.no_kernel else why_no_kernel()
    return (f"moves by rsshogi ({reason})" if reason else "moves by the compiled kernel",)


def policy_of(game: GameFactory, model: str, seed: int) -> ActorCritic:
    """An untrained policy."""
    torch.manual_seed(seed)
    blocks, channels = MODELS[model]
    return ActorCritic(build_network(game(1).spec, kind="resnet", num_blocks=blocks, channels=channels)).eval()


def label_of(model: str) -> str:
    """A network's name and size."""
    blocks, channels = MODELS[model]
    return f"{model} ({blocks} x {channels})"
