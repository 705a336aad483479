"""Is what the user asked for possible here? Told before any process starts, and checked once.

Types and misspelt keys are Hydra's business, by the schemas of ``schemas.py``. What is in range, and what only shows
when values meet each other, the game, the checkpoint or the machine, is checked here. All errors are told at once, but
for what may need torch, which is looked at when there is no other: nobody waits for torch to be told no. What comes out
is a :class:`ValidatedConfig`: whoever gets one does not check again.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from keisei_lightning.config.game_checks import game_spec
from keisei_lightning.config.league_checks import member_checkpoint_errors
from keisei_lightning.config.option_checks import option_errors, parallel_options, publishes_per_iteration
from keisei_lightning.config.ranks import PortableConfig, adopt_place, rank_warnings
from keisei_lightning.config.schemas import SECTIONS
from keisei_lightning.config.targets import gpu_errors, target_errors
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.training.checkpoint_header import check_checkpoint, newest_checkpoint

__all__ = [
    "ValidatedConfig",
    "as_initial_policy",
    "config_warnings",
    "resolve_workers",
    "section_of",
    "unresolved_errors",
    "validate",
]


@dataclass(frozen=True, slots=True)
class ValidatedConfig:
    """A configuration that :func:`validate` has resolved and found good.

    Attributes:
        cfg: the configuration, read-only, with the number of workers and the path of the checkpoint filled in.
    """

    cfg: DictConfig

    def portable(self) -> PortableConfig:
        """The same for another process."""
        return PortableConfig.of(self.cfg, section_of(self.cfg))


def validate(cfg: DictConfig) -> ValidatedConfig:
    """Resolve a configuration, and check everything that can be checked before anything is started.

    ``parallel.num_workers=auto`` becomes a number (:func:`resolve_workers`), ``ckpt_path=last`` and ``auto`` the newest
    whole checkpoint of this name.

    Args:
        cfg: a composed configuration, or the section of a larger one that holds it; it stays as it is.

    Raises:
        ConfigError: with one line for each error; keys are named as they are called from outside the section.
    """
    cfg = copy.deepcopy(cfg)  # with its parents, which are not copied: interpolations may look there
    section = section_of(cfg)
    try:
        return _validated(cfg, section)
    except ConfigError as error:
        if not section:
            raise
        raise ConfigError([section + line for line in error.errors]) from error


def section_of(cfg: DictConfig) -> str:
    """Where a configuration lies in a larger one, such as ``self_play.``; empty: it is all there is."""
    name = cfg._get_full_key(None)
    return f"{name}." if name else ""


def _validated(cfg: DictConfig, section: str) -> ValidatedConfig:
    gone = [each.name for each in SECTIONS[""] if each.name not in list(cfg)]  # such as ~ppo
    _refuse([_missing(name, section + name) for name in gone])
    errors: dict[str, str] = {}
    for line in unresolved_errors(cfg):  # what follows from another one has the same reason, and need not be told
        errors.setdefault(line.partition(": ")[2], line)
    _refuse([*errors.values()])
    with read_write(cfg):
        _expand_home(cfg)
        _refuse(option_errors(cfg))
        adopt_place(cfg)
        resolve_workers(cfg)
        spec = game_spec(cfg)
        _refuse(
            [
                *(*target_errors(cfg), *gpu_errors(cfg)),
                *(*_resolve_checkpoint(cfg, spec), *_initial_policy_errors(cfg, spec)),
                *member_checkpoint_errors(cfg, spec),
            ]
        )
    OmegaConf.set_readonly(cfg, True)
    return ValidatedConfig(cfg)


def unresolved_errors(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Missing values (``???``), and interpolations that come to nothing, or to a value of another type.

    Args:
        cfg: a configuration, or a list in one.
        prefix: of its keys, such as "model.".
    """
    for key in list(cfg) if OmegaConf.is_dict(cfg) else range(len(cfg)):
        name = f"{prefix}{key}"
        try:
            value = cfg[key]
        except MissingMandatoryValue:
            yield _missing(name, cfg._get_full_key(key))
        except InterpolationToMissingValueError:
            continue  # told where the value is missing
        except OmegaConfBaseException as error:
            given: Any = OmegaConf.to_container(cfg, resolve=False)
            yield f"{name}={given[key]}: cannot be resolved ({str(error).partition(chr(10))[0]})"
        else:
            if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(cfg, key):
                yield from unresolved_errors(value, f"{name}.")


def _missing(name: str, word: str) -> str:
    return f"{name}: is missing; give it on the command line as {word}=VALUE"


def _expand_home(cfg: DictConfig) -> None:
    """Put the home folder in the place of a ``~`` that a path begins with; the shell leaves it in KEY=VALUE."""
    for key in ("results_dir", "output_dir", "ckpt_path", "initial_policy"):
        if not OmegaConf.is_interpolation(cfg, key) and cfg[key] is not None:
            cfg[key] = os.path.expanduser(cfg[key])


def _refuse(errors: Sequence[str]) -> None:
    if errors:
        raise ConfigError(errors)


def resolve_workers(cfg: DictConfig) -> None:
    """Replace ``parallel.num_workers=auto`` by a number.

    Args:
        cfg: a composed configuration, whose section ``parallel`` is legal; it is changed in place.
    """
    cfg.parallel.num_workers = parallel_options(cfg)[0].num_workers


def _resolve_checkpoint(cfg: DictConfig, spec: GameSpec) -> list[str]:
    """Find the checkpoint to resume from, and see that it is of this game."""
    path = cfg.ckpt_path
    if path is None:
        return []
    try:
        if path not in ("last", "auto"):
            header = check_checkpoint(path, spec)
        elif (found := newest_checkpoint(Path(cfg.results_dir, cfg.name))) is None:
            cfg.ckpt_path = None
            return []
        else:
            file, header = found
            header.check(spec, path=str(file))
            cfg.ckpt_path = str(file)
    except ConfigError as error:
        return list(error.errors)
    if header.is_weights_only:
        return [
            f"ckpt_path={path}: holds weights alone (no optimiser's state), and no training resumes from it; must be a "
            "checkpoint of a run"
        ]
    if cfg.trainer.max_epochs < header.epoch:
        return [
            f"trainer.max_epochs={cfg.trainer.max_epochs}: must be {header.epoch} or more with ckpt_path="
            f"{cfg.ckpt_path}, which has done {header.epoch} epochs"
        ]
    return []


def _initial_policy_errors(cfg: DictConfig, spec: GameSpec) -> list[str]:
    """Whether a new training can begin with a policy, as far as its file's header tells."""
    if cfg.initial_policy is None or cfg.ckpt_path is not None:  # a training that resumes has weights
        return []
    try:
        check_checkpoint(cfg.initial_policy, spec)
    except ConfigError as error:
        return [as_initial_policy(line) for line in error.errors]
    return []


def as_initial_policy(line: str) -> str:
    """An error of a checkpoint's, told of the key ``initial_policy``."""
    return line.replace("ckpt_path=", "initial_policy=", 1)


def config_warnings(cfg: DictConfig) -> list[str]:
    """What works, but hardly as it was meant: a line each, for the log.

    Args:
        cfg: a valid configuration.
    """
    parallel, lines = cfg.parallel, [*rank_warnings(cfg)]
    publishes, arithmetic = publishes_per_iteration(cfg)
    worst = publishes * parallel.slots_per_worker
    if parallel.schedule == "async" and parallel.max_policy_lag < worst:
        lines.append(
            f"parallel.max_policy_lag={parallel.max_policy_lag}: workers that are faster than the learner fill "
            f"{parallel.slots_per_worker} slots ahead; rollouts up to {worst} versions old ({arithmetic}) will be "
            "refused and played again"
        )
    return lines
