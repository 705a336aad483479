"""Whether the members of a league are there and can play the game. Needs no torch but for what is in a checkpoint."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.ranks import num_devices
from keisei_lightning.config.schemas import SECTIONS
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.registry import parse_player, player_errors
from keisei_lightning.games import GameSpec
from keisei_lightning.published import checkpoint_file, is_checkpoint
from keisei_lightning.system.options import declared, spelled
from keisei_lightning.system.paths import path_errors
from keisei_lightning.system.rank_place import present_place
from keisei_lightning.training.checkpoint_header import check_checkpoint
from keisei_lightning.training.options import LeagueOptions

__all__ = ["league_errors", "member_checkpoint_errors"]

_OF_LEAGUES = (*(each.name for each in declared(LeagueOptions)), "player_share", "turn_timeout_s")


def league_errors(cfg: DictConfig, spec: GameSpec | None) -> Iterator[str]:
    """What cannot be of the league, as far as it can be told without torch.

    Args:
        cfg: a configuration whose section ``opponents`` is legal.
        spec: of its game; None: it is not known, so that what depends on it is not checked.
    """
    opponents = cfg.opponents
    if opponents.mode != "league":
        yield from _foreign_keys(cfg)
        return
    members = list(opponents.members)
    players = [name for name in members if not is_checkpoint(name)]
    unplayable = list(player_errors("opponents.members", players, spec))
    yield from unplayable
    for path in dict.fromkeys(filter(is_checkpoint, members)):
        try:
            file = checkpoint_file(path)
        except ConfigError as error:
            yield error.errors[0].replace("ckpt_path=", "opponents.members=", 1)
            continue
        if not os.path.isfile(file):  # which also tells a name that is too long
            yield f"opponents.members={path}: there is no such file; must be a player's name or a checkpoint file"
    if unplayable:
        return
    names = Counter(parse_player(name).text if name in players else name for name in members)
    yield from (
        f"opponents.members: {name} is there {n} times; must be there once" for name, n in names.items() if n > 1
    )
    yield from _folder_errors(cfg)
    if opponents.player_share is not None and not players:
        yield f"opponents.player_share={opponents.player_share:g}: must be null where opponents.members names no player"


def _folder_errors(cfg: DictConfig) -> Iterator[str]:
    folder = cfg.opponents.folder
    if folder is None:
        if not cfg.opponents.own_snapshots:
            yield "opponents.own_snapshots=false: must be true without opponents.folder (nobody would have them)"
        return
    yield from path_errors("opponents.folder", os.path.expanduser(folder))
    place = present_place()
    if num_devices(cfg) > 1 or (place is not None and place.world_size > 1):
        yield (
            f"opponents.folder={folder}: must be null with several devices of the learner (ranks), which would find "
            "different files"
        )


def _foreign_keys(cfg: DictConfig) -> Iterator[str]:
    """Keys of a league that are given where there is none."""
    values: Any = OmegaConf.to_container(cfg.opponents)
    for each in (option for option in SECTIONS["opponents"] if option.name in _OF_LEAGUES):
        if values[each.name] != each.default:
            value, legal = (spelled(item, none="null") for item in (values[each.name], each.default))
            yield (
                f"opponents.{each.name}={value}: must be {legal} with opponents.mode={values['mode']} "
                "(opponents=league has members)"
            )


def member_checkpoint_errors(cfg: DictConfig, spec: GameSpec) -> Iterator[str]:
    """Whether the members that are checkpoints are whole, and of this game. It may need torch.

    Args:
        cfg: a configuration in which :func:`league_errors` has found no error.
        spec: of its game.
    """
    for path in cfg.opponents.members:
        if is_checkpoint(path):
            try:
                check_checkpoint(path, spec)
            except ConfigError as error:
                yield from (line.replace("ckpt_path=", "opponents.members=", 1) for line in error.errors)
