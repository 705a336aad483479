"""How many learner processes (ranks) a configuration asks for, and whether they can be had.

A launcher that has started this process decides their number: ``trainer.devices=1`` then means "as many as were
started". Otherwise this process starts those of its own machine (:mod:`keisei_lightning.launching`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.system.machine import allowed_cpus
from keisei_lightning.system.rank_place import RankPlace, present_place

__all__ = [
    "PortableConfig",
    "adopt_place",
    "hydra_logging",
    "num_devices",
    "rank_errors",
    "rank_warnings",
    "ranks_to_start",
]

_STRATEGIES: Final = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


@dataclass(frozen=True, slots=True)
class PortableConfig:
    """A valid configuration as text, with every interpolation resolved: the same in another process.

    Attributes:
        section: where it lies in a larger one, such as "self_play."; empty: it is all there is.
        text: YAML.
    """

    section: str
    text: str

    @classmethod
    def of(cls, cfg: DictConfig, section: str) -> PortableConfig:
        """Resolve a configuration here, where the folder of the run is known."""
        return cls(section, OmegaConf.to_yaml(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))))

    def config(self) -> DictConfig:
        """The configuration, at its place in a larger one that has nothing else."""
        found: Any = OmegaConf.create(self.text)
        path = self.section.rstrip(".")
        for key in reversed(path.split(".") if path else []):
            found = {key: found}
        whole = OmegaConf.create(found)
        cfg: DictConfig = OmegaConf.select(whole, path) if path else whole
        OmegaConf.set_readonly(cfg, True)
        return cfg


def hydra_logging() -> dict[str, Any] | None:
    """How Hydra has set up the log of this run, for ``logging.config``; None: it has not."""
    if not HydraConfig.initialized():
        return None
    config: Any = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return config if config and config.get("root") else None


def num_devices(cfg: DictConfig) -> int:
    """Devices of the learner on this machine: one rank each; 1 where the configuration says nothing legal.

    Args:
        cfg: a composed configuration.
    """
    devices, accelerator = str(cfg.trainer.devices), cfg.trainer.accelerator
    if "," in devices:
        return len([number for number in devices.split(",") if number])
    if devices != "auto":
        return max(1, int(devices)) if devices.isdecimal() else 1
    if accelerator in ("cpu", "mps"):
        return 1
    import torch  # only where GPUs are to be counted: it takes seconds

    return max(1, torch.cuda.device_count())


def ranks_to_start(cfg: DictConfig) -> int:
    """How many ranks this process must start; 1: none, it trains by itself or is a rank.

    Args:
        cfg: a valid configuration.
    """
    return 1 if present_place() is not None else num_devices(cfg)


def rank_errors(cfg: DictConfig) -> Iterator[str]:
    """What cannot be, as far as it can be told without torch.

    Args:
        cfg: a configuration whose section ``trainer`` is legal.
    """
    trainer, place = cfg.trainer, present_place()
    nodes = int(trainer.get("num_nodes") or 1)
    if place is not None and place.is_external:
        yield from _place_errors(cfg, place, nodes)
    elif place is None and nodes > 1:
        yield (
            f"trainer.num_nodes={nodes}: must be 1 without a launcher on each machine; with one: torchrun --nnodes "
            f"{nodes} --nproc-per-node {trainer.devices} --rdzv-backend c10d --rdzv-endpoint HOST:29400 train.py ..., "
            "or srun"
        )
    several = nodes > 1 or (place.world_size > 1 if place else str(trainer.devices) not in ("1", "auto"))
    if several and trainer.strategy not in _STRATEGIES:
        yield f"trainer.strategy={trainer.strategy}: must be one of {', '.join(_STRATEGIES)} with several devices"


def _place_errors(cfg: DictConfig, place: RankPlace, nodes: int) -> Iterator[str]:
    devices = cfg.trainer.devices
    started = f"{place.launcher} has started {place.world_size} processes, {place.local_world_size} on this machine"
    if place.world_size % place.local_world_size:
        yield f"{started}; must be as many on each machine"
    if str(devices) not in ("1", "auto") and num_devices(cfg) != place.local_world_size:
        yield f"trainer.devices={devices}: must be left out, or be {place.local_world_size} ({started})"
    if nodes not in (1, place.num_nodes):
        yield f"trainer.num_nodes={nodes}: must be left out, or be {place.num_nodes} ({started})"


def adopt_place(cfg: DictConfig) -> None:
    """Fill in the numbers of devices and machines that a launcher has decided.

    Args:
        cfg: a configuration without :func:`rank_errors`; it is changed in place.
    """
    place = present_place()
    if place is None or not place.is_external:
        return
    if str(cfg.trainer.devices) in ("1", "auto"):
        cfg.trainer.devices = place.local_world_size
    cfg.trainer.num_nodes = place.num_nodes


def rank_warnings(cfg: DictConfig) -> Iterator[str]:
    """What works, but slowly.

    Args:
        cfg: a valid configuration.
    """
    if cfg.trainer.accelerator == "cpu" and (number := num_devices(cfg)) > (cpus := allowed_cpus()):
        yield f"trainer.devices={number}: {number} learners share {cpus} CPUs, and wait for one another"
