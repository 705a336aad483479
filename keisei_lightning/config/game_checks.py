"""The game of a configuration, and who plays it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.registry import parse_player, player_errors
from keisei_lightning.games import GameSpec, make_game
from keisei_lightning.games.registry import takes_option

__all__ = ["game_options", "game_spec", "opponent_errors"]


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


def opponent_errors(cfg: DictConfig, spec: GameSpec | None) -> Iterator[str]:
    """Whether each player of the evaluation is there and can play the game, and one of them is on the ladder.

    Args:
        cfg: a configuration whose section ``evaluation`` is legal.
        spec: of its game; None: it is not known, so that what depends on it is not checked.
    """
    opponents, name = cfg.evaluation.opponents, cfg.evaluation.ladder
    errors = list(player_errors("evaluation.opponents", opponents, spec))
    yield from errors
    if name is None:
        return
    try:
        ladder = load_ladder(name)
    except ConfigError as error:
        yield from (f"evaluation.{line.replace('ladder ', 'ladder=', 1)}" for line in error.errors)
        return
    if spec is not None and ladder.game != spec.name:
        yield f"evaluation.ladder={name}: is one of {ladder.game}; must be one of {spec.name}"
    elif not errors and not {parse_player(each).text for each in opponents} & set(ladder.names):
        players = ", ".join(ladder.names)
        yield f"evaluation.ladder={name}: evaluation.opponents must name one or more of its players ({players})"
