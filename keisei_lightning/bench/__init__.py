"""Measurements that a user runs on their own machine: ``keisei bench collect|learn|profile|rules|tune|weights``.

What is compared runs side by side in one process tree, in alternating rounds, and is quoted as medians and ratios: on a
noisy machine a number alone says little.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from keisei_lightning.bench import collect, learn, profile, rules, tune, weights

__all__ = ["main"]

_BENCHES: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]] = {
    "collect": (collect.add_arguments, collect.run, "plies/s: rules only, network only, collected, and their ratio"),
    "learn": (learn.add_arguments, learn.run, "PPO's plies/s beside a loop written by hand, by minibatch and threads"),
    "profile": (profile.add_arguments, profile.run, "where a training's time goes, stage by stage"),
    "rules": (rules.add_arguments, rules.run, "plies/s of the game alone: rules, observations and masks"),
    "tune": (tune.add_arguments, tune.run, "workers, games and threads for this machine, as overrides to paste"),
    "weights": (weights.add_arguments, weights.run, "publish and adopt weights, beside gzip and a pickle per worker"),
}


def main(argv: Sequence[str]) -> int:
    """Run ``keisei bench ...``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="keisei bench", description="Measure this machine; prints a table or JSON.")
    commands = parser.add_subparsers(dest="bench", required=True, metavar="{" + ",".join(_BENCHES) + "}")
    for name, (add_arguments, run, help_text) in _BENCHES.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        add_arguments(command)
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--write", type=Path, metavar="FILE", help="write JSON to this file too")
        command.set_defaults(run=run)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
