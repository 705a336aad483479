"""Make the players, let them play, show and write what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keisei_lightning.commands.evaluate.checks import ANCHOR, checkpoint_key, named_game, symmetry_errors
from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.commands.evaluate.report import Report, print_ratings, print_results
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import MatchResult, Player, PolicyPlayer, SearchPlayer, play_match
from keisei_lightning.evaluation.ratings import play_round_robin
from keisei_lightning.evaluation.registry import (
    PlayerName,
    closing_player,
    make_player,
    parse_player,
    start_player,
)
from keisei_lightning.games import GameFactory, GameSpec
from keisei_lightning.games.svg_animation import animate_game
from keisei_lightning.policies import LoadedPolicy, load_policy
from keisei_lightning.published import checkpoint_file
from keisei_lightning.search import SearchOptions
from keisei_lightning.system.console import bar_on_screen, print_table, quiet_libraries
from keisei_lightning.system.devices import device_errors
from keisei_lightning.system.stopping import Stopped

__all__ = ["evaluate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    """Who plays, and what.

    Attributes:
        game: makes the boards.
        spec: of the game.
        policies: by the path of their checkpoint.
        names: of other players.
    """

    game: GameFactory
    spec: GameSpec
    policies: dict[str, LoadedPolicy]
    names: Mapping[str, PlayerName]


def evaluate(options: EvalOptions, names: Mapping[str, PlayerName], *, command: str) -> Report:
    """Play all matches.

    Args:
        options: read from the command line, and checked
            (:func:`~keisei_lightning.commands.evaluate.checks.check_options`).
        names: players that are no checkpoints.
        command: the command line, for the record.

    Returns:
        What is written in its folder.

    Raises:
        ConfigError: a player that cannot be made or cannot play the game; nothing was played.
        Stopped: a signal ended it; what was played is written.
    """
    quiet_libraries()
    field = _read_field(options, names)
    with ExitStack() as stack:
        players = _make_players(options, field, stack)
        folder = stack.enter_context(_output_folder(options.output_dir))
        report = Report(
            folder,
            _about(options, field, command),
            anchor=ANCHOR if options.round_robin else None,
            animate=lambda record: animate_game(field.game, record.start, record.actions),
            num_animations=options.animations,
        )
        try:
            _play(options, field, players, report)
        except Stopped as stop:
            if report.results:
                report.write(stopped=str(stop))
            raise
        finally:
            _show(options, field, report)
    return report


def _read_field(options: EvalOptions, names: Mapping[str, PlayerName]) -> _Field:
    """Read all checkpoints, so that a mistake in the last one costs no match.

    Raises:
        ConfigError: with one line for each error.
    """
    errors = device_errors("device", options.device, num_cuda_devices=torch.cuda.device_count())
    device = torch.device("cpu") if errors else _device(options.device)
    policies: dict[str, LoadedPolicy] = {}
    for path in options.checkpoints:
        try:
            policies[path] = load_policy(path, options.model or None, device)
        except ConfigError as error:
            key = checkpoint_key(options, path)
            errors += [line.replace("ckpt_path=", f"{key}=", 1) for line in error.errors]
    if errors:
        raise ConfigError(errors)
    first = next(iter(policies.values()), None)
    game = first.game if first is not None else named_game(str(options.game))
    spec = game(1).spec
    for path, policy in policies.items():
        try:
            policy.header.check(spec, path=path)
        except ConfigError as error:
            errors += [line.replace("ckpt_path=", "opponents=", 1) for line in error.errors]
    errors += symmetry_errors(options, spec)
    if errors:
        raise ConfigError(errors)
    return _Field(game=game, spec=spec, policies=policies, names=names)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


@contextmanager
def _output_folder(wanted: str | None) -> Iterator[Path]:
    """Make the folder first, so that hours of play do not end in a permission error; one that stays empty goes again.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(wanted) if wanted is not None else Path("results", "eval", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir={folder}: must be a folder that can be written to ({error.strerror})") from error
    try:
        yield folder
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _make_players(options: EvalOptions, field: _Field, stack: ExitStack) -> list[Player]:
    """Everybody, in the order of the command line; engines are started, and closed with the stack.

    Raises:
        ConfigError: with one line for each error.
    """
    # Streams of their own for everybody: none of them is that of the openings, which is seeded with the seed itself.
    seeds = np.random.SeedSequence(options.seed).generate_state(len(field.policies) + len(field.names), np.uint64)
    short = _short_names(list(field.policies))
    players: list[Player] = []
    errors: list[str] = []
    for seed, entry in zip(seeds.tolist(), _in_order(options, field), strict=True):
        seed = int(seed) >> 1  # generators take numbers below 2**63
        if isinstance(entry, PlayerName):
            try:
                players.append(stack.enter_context(closing_player(make_player(entry, field.spec, seed=seed))))
                start_player(players[-1])
            except ConfigError as error:
                errors += [f"opponents={entry}: {line}" for line in error.errors]
            continue
        players.append(_policy_player(options, field, entry, seed=seed, name=short[entry]))
    if errors:
        raise ConfigError(errors)
    return players


def _policy_player(options: EvalOptions, field: _Field, checkpoint: str, *, seed: int, name: str) -> Player:
    policy = field.policies[checkpoint]
    if options.simulations:
        search = SearchOptions(simulations=options.simulations, mirror=options.symmetric)
        return SearchPlayer(policy.actor_critic, field.game, search, name=name)
    return PolicyPlayer(
        policy.actor_critic,
        greedy=options.greedy,
        temperature=options.temperature,
        symmetries=field.spec.symmetries if options.symmetric else (),
        seed=seed,
        name=name,
    )


def _in_order(options: EvalOptions, field: _Field) -> Iterator[str | PlayerName]:
    """Checkpoint files and names as they were given; the anchor last where it was not."""
    if options.checkpoint is not None:
        yield options.checkpoint
    left = dict(field.names)
    for opponent in options.opponents:
        yield opponent if opponent in field.policies else left.pop(parse_player(opponent).text)
    yield from left.values()


def _short_names(paths: list[str]) -> dict[str, str]:
    """Ends of paths that tell them apart: ``last.ckpt``, or ``run_1/checkpoints/last.ckpt``."""
    parts = {path: PurePath(path).parts for path in paths}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        ends = {path: "/".join(parts[path][-length:]) for path in paths}
        if len(set(ends.values())) == len(paths):
            return ends
    return {path: path for path in paths}


def _play(options: EvalOptions, field: _Field, players: list[Player], report: Report) -> None:
    num_matches = len(players) * (len(players) - 1) // 2 if options.round_robin else len(players) - 1
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("games"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar_on_screen(progress):
        task = progress.add_task(f"match 1 of {num_matches}", total=num_matches * options.games)

        def show(finished: int) -> None:
            progress.update(task, completed=len(report.results) * options.games + finished)

        for result in _matches(options, field, players, show):
            report.add(result)
            number = min(len(report.results) + 1, num_matches)
            progress.update(task, description=f"match {number} of {num_matches}")


def _matches(
    options: EvalOptions, field: _Field, players: list[Player], progress: Callable[[int], None]
) -> Iterator[MatchResult]:
    how: dict[str, Any] = {
        "num_games": options.games,
        "opening_plies": options.opening_plies,
        "seed": options.seed,
        "keep_records": options.records,
        "progress": progress,
    }
    if options.round_robin:
        return play_round_robin(field.game, players, **how)
    return (play_match(field.game, players[0], opponent, **how) for opponent in players[1:])


def _show(options: EvalOptions, field: _Field, report: Report) -> None:
    """Tables of what was played, and where it is."""
    if not report.results:
        return
    own = f", {options.checkpoint}" if options.checkpoint is not None else ""
    print_results(f"{field.spec.name}{own}", report.results, name_players=options.round_robin)
    if ratings := report.ratings:
        print_ratings(ratings, anchor=ANCHOR)
    print_table("", {"results": report.folder})


def _about(options: EvalOptions, field: _Field, command: str) -> dict[str, object]:
    short = _short_names(list(field.policies))
    recipe = next((policy.recipe for policy in field.policies.values()), None)
    return {
        "command": command,
        "game": field.spec.name,
        "game_options": {} if recipe is None else dict(recipe.game_options),
        "options": asdict(options),
        "checkpoints": {
            short[path]: {"path": os.path.abspath(checkpoint_file(path)), "global_step": policy.header.global_step}
            for path, policy in field.policies.items()
        },
    }
