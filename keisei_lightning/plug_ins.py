"""What the user plugs into a run by ``_target_``: the network, loggers and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from keisei_lightning.config.validation import as_initial_policy
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec
from keisei_lightning.models import ActorCritic
from keisei_lightning.models.output_check import check_network
from keisei_lightning.training import WeightSyncCallback
from keisei_lightning.training.policy_weights import load_weights

__all__ = ["build_callbacks", "build_loggers", "build_policy", "with_users"]


def build_policy(cfg: DictConfig, spec: GameSpec) -> ActorCritic:
    """The policy that a training begins with.

    Args:
        cfg: a valid configuration.
        spec: of its game.

    Raises:
        ConfigError: the network does not fit the game, or the weights of ``initial_policy`` do not fit the network.
    """
    # Partial: Hydra would turn a dataclass among the arguments, such as the spec, into a dictionary.
    policy = ActorCritic(instantiate(cfg.model, _partial_=True, _convert_="all")(spec=spec))
    check_network(policy, spec, key=f"model._target_={cfg.model._target_}: network")
    if cfg.initial_policy is not None and cfg.ckpt_path is None:
        try:
            load_weights(policy, cfg.initial_policy, spec)
        except ConfigError as error:
            raise ConfigError([as_initial_policy(line) for line in error.errors]) from error
    return policy


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers of a run.

    Args:
        cfg: the section ``logger``.

    Raises:
        ConfigError: one cannot be made, or is something else.
    """
    entries = {f"logger.{name}": cfg[name] for name in ("csv", "tensorboard", "wandb", "mlflow")}
    entries |= {f"logger.other.{name}": entry for name, entry in cfg.other.items()}
    return [_plugged(key, entry, Logger) for key, entry in entries.items() if entry is not None]


def build_callbacks(cfg: DictConfig) -> dict[str, Callback]:
    """The user's own callbacks, by their keys.

    Args:
        cfg: the configuration.

    Raises:
        ConfigError: one cannot be made, or is something else.
    """
    entries = {f"callbacks.{name}": entry for name, entry in cfg.callbacks.items() if entry is not None}
    return {key: _plugged(key, entry, Callback) for key, entry in entries.items()}


def _plugged(key: str, entry: DictConfig, kind: type[Any]) -> Any:
    """What a ``_target_`` in the user's own configuration names.

    Raises:
        ConfigError: it cannot be made, or is something else.
    """
    try:
        made = instantiate(entry, _convert_="all")
    except InstantiationException as error:  # a third party's class may raise anything
        reason = " ".join(f"{type(error.__cause__).__name__}: {error.__cause__}".split())
        raise ConfigError(f"{key}: {entry['_target_']} cannot be made ({reason})") from error
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}._target_={entry['_target_']}: makes a {type(made).__name__}; must make a {kind.__name__}"
        )
    return made


def with_users(ours: list[Callback], users: Mapping[str, Callback]) -> list[Callback]:
    """Our callbacks and then the user's, which replace ours of two kinds: what publishes weights, and the progress bar.

    Args:
        ours: in their order.
        users: by their keys.

    Raises:
        ConfigError: one of the others is given twice.
    """
    replaceable = (WeightSyncCallback, ProgressBar)
    for kind in replaceable:
        if any(isinstance(callback, kind) for callback in users.values()):
            ours = [callback for callback in ours if not isinstance(callback, kind)]
    kinds = {type(callback) for callback in ours}
    if errors := [
        f"{key}: every run has a {type(callback).__name__} already; its options are keys of the configuration"
        for key, callback in users.items()
        if type(callback) in kinds
    ]:
        raise ConfigError(errors)
    return [*ours, *users.values()]
