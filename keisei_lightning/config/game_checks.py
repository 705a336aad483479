"""The game of a configuration, and who plays it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.registry import closing_player, make_player, parse_player
from keisei_lightning.games import GameSpec, make_game
from keisei_lightning.games.registry import takes_option

__all__ = ["game_options", "game_spec", "player_errors"]


def game_spec(cfg: DictConfig) -> GameSpec:
    """Make the game once, to see that it can be made and what it is like.

    Args:
        cfg: a configuration whose options are legal.

    Raises:
        ConfigError: it cannot be made, or not with these options.
    """
    env = cfg.env
    try:
        return make_game(env.game, 1, **game_options(cfg)).spec
    except ConfigError as error:
        lines = [" ".join(line.split()).removeprefix(f"game {env.game}: ") for line in error.errors]
        raise ConfigError(
            [line if line.startswith("env.") else f"env.game={env.game}: {line}" for line in lines]
        ) from error
    except Exception as error:  # a third party's game may raise anything; a worker would as well
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        options = f" with env.options={dict(env.options)}" if env.options else ""
        raise ConfigError(
            f"env.game={env.game}: cannot be made{options} ({reason}); see `keisei games` for those that can"
        ) from error


def game_options(cfg: DictConfig) -> dict[str, Any]:
    """Keyword arguments for the game's maker, in plain containers.

    ``env.opening_plies`` and ``env.max_plies`` are passed to a game that has such an option; a game need not have any.

    Args:
        cfg: a configuration; of it section ``env`` is looked at.

    Raises:
        ConfigError: there is no such game; or one of the two is given, and the game has no such option.
    """
    env, options, errors = cfg.env, {}, []
    for key, nothing in (("opening_plies", 0), ("max_plies", None)):
        value = env[key]
        if takes_option(env.game, key):
            if value is not None:
                options[key] = value
        elif value != nothing:
            legal = "null" if nothing is None else nothing
            errors.append(f"env.{key}={value}: must be {legal}, as with env=own ({env.game} has no such option)")
    if errors:
        raise ConfigError(errors)
    further = OmegaConf.to_container(env.options, resolve=True)
    assert isinstance(further, dict)
    return {**options, **{str(key): value for key, value in further.items()}}


def player_errors(cfg: DictConfig, spec: GameSpec | None) -> Iterator[str]:
    """Whether each opponent is there, takes its options and can play the game (making one starts nothing).

    Args:
        cfg: a configuration whose section ``evaluation`` is legal.
        spec: of its game; None: it is not known, so that only names are checked.
    """
    opponents = set()
    for name in cfg.evaluation.opponents:
        try:
            player = parse_player(name)
            opponents.add(player.text)
            if spec is not None:
                with closing_player(make_player(player, spec)):
                    pass
        except KeiseiError as error:
            for line in getattr(error, "errors", [str(error)]):
                yield f"evaluation.opponents={name}: {' '.join(line.split())}"
    if cfg.evaluation.ladder is not None:
        yield from _ladder_errors(cfg.evaluation.ladder, opponents, spec)


def _ladder_errors(name: str, opponents: Set[str], spec: GameSpec | None) -> Iterator[str]:
    """Whether there is such a ladder, of this game, and anybody to meet on it."""
    try:
        ladder = load_ladder(name)
    except ConfigError as error:
        yield from (f"evaluation.{line.replace('ladder ', 'ladder=', 1)}" for line in error.errors)
        return
    if spec is not None and ladder.game != spec.name:
        yield f"evaluation.ladder={name}: is one of {ladder.game}; must be one of {spec.name}"
    elif opponents.isdisjoint(ladder.names):
        players = ", ".join(ladder.names)
        yield f"evaluation.ladder={name}: evaluation.opponents must name one or more of its players ({players})"
