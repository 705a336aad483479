"""What the user plugs in: classes named by ``_target_``, loggers, devices, and Lightning's own arguments.

Only what is not as we ship it is looked up: importing a third party's package, or Lightning, takes seconds.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

from hydra._internal.utils import _locate  # the one that instantiates
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.compose_errors import no_such_key
from keisei_lightning.config.schemas import OUR_TRAINER
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.system.devices import device_errors

__all__ = [
    "NOT_LIGHTNINGS",
    "TRAINER_ARGUMENTS",
    "gpu_errors",
    "model_errors",
    "plugin_errors",
    "target_errors",
    "trainer_errors",
]

TRAINER_ARGUMENTS = (
    *("accelerator", "strategy", "devices", "num_nodes", "precision", "logger", "callbacks", "fast_dev_run"),
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches", "limit_val_batches"),
    *("limit_test_batches", "limit_predict_batches", "overfit_batches", "val_check_interval"),
    *("check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps", "enable_checkpointing"),
    *("enable_progress_bar", "enable_model_summary", "accumulate_grad_batches", "gradient_clip_val"),
    *("gradient_clip_algorithm", "deterministic", "benchmark", "inference_mode", "use_distributed_sampler"),
    *("profiler", "detect_anomaly", "barebones", "plugins", "sync_batchnorm", "reload_dataloaders_every_n_epochs"),
    *("default_root_dir", "enable_autolog_hparams", "model_registry"),
)
"""What Lightning 2.6's Trainer takes; a test holds it to the Trainer, which takes seconds to import."""

_OWN_TRAINER_ARGUMENTS = {
    "callbacks": "add one by +callbacks.NAME._target_=my_package.MyCallback, or choose from the group callbacks",
    "logger": "choose from the group logger, or add one by +logger.other.NAME._target_=my_package.MyLogger",
    "default_root_dir": "the folder of a run is output_dir",
    "plugins": "one of ours writes checkpoints; precision and strategy are keys of their own",
}
"""Arguments of the Trainer that a run sets itself, and what to write instead."""

NOT_LIGHTNINGS = ("rank_timeout_s",)
"""Keys of the section that are no arguments of the Trainer."""

_LIGHTNINGS_LOGGERS = "lightning.pytorch.loggers."


def _target_errors(key: str, node: DictConfig, *extra: str) -> Iterator[str]:
    """Whether what a ``_target_`` names is there, and takes the keys that it is given (and ``extra`` ones)."""
    target = node.get("_target_")
    try:
        called = _locate(str(target))
    except Exception as error:  # noqa: BLE001 - a third party's module may raise anything while it is imported
        cause = error.__cause__ or error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        yield f"{key}._target_={target}: cannot be loaded ({reason}); must be the dotted path of a class or function"
        return
    if not callable(called):
        yield f"{key}._target_={target}: is a {type(called).__name__}; must be a class or function"
        return
    arguments = [*extra, *(str(name) for name in node if not str(name).startswith("_"))]
    try:
        if "_args_" not in node:  # Hydra's positional arguments: only the call itself can tell
            inspect.signature(called).bind(**dict.fromkeys(arguments))
    except ValueError:  # builtins have no signature
        return
    except TypeError as error:
        given = ", ".join(arguments)
        yield f"{key}._target_={target}: cannot be called with {given} ({error}); must take these keyword arguments"


def model_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether a third party's network is there, and takes ``spec`` and the keys of its section."""
    if cfg.model.get("_target_") != OUR_NETWORKS:
        yield from _target_errors("model", cfg.model, "spec")


def target_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether what is not as we ship it is there, and takes what it is given; third parties' packages are imported."""
    yield from model_errors(cfg)
    if cfg.trainer.get("_target_") != OUR_TRAINER:
        arguments = OmegaConf.masked_copy(cfg.trainer, [key for key in cfg.trainer if key not in NOT_LIGHTNINGS])
        yield from _target_errors("trainer", arguments)
    for key, entry in {**_loggers(cfg), **_callbacks(cfg)}.items():
        if not str(entry._target_).startswith(_LIGHTNINGS_LOGGERS):  # to import Lightning takes seconds
            yield from _target_errors(key, entry)


def _loggers(cfg: DictConfig) -> dict[str, Any]:
    """Sections of loggers by key."""
    entries = {**cfg.logger, **{f"other.{name}": entry for name, entry in cfg.logger.other.items()}}
    return {f"logger.{name}": entry for name, entry in entries.items() if name != "other" and entry is not None}


def _callbacks(cfg: DictConfig) -> dict[str, Any]:
    """Sections of callbacks by key."""
    return {f"callbacks.{name}": entry for name, entry in cfg.callbacks.items() if entry is not None}


def plugin_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether each logger and callback says what it is, and finds what it needs; nothing is imported."""
    for name in ("wandb", "mlflow"):
        if cfg.logger[name] is not None and importlib.util.find_spec(name) is None:
            yield f"logger={name}: is not installed; must be csv_tensorboard, or install keisei-lightning[tracking]"
    loggers = _loggers(cfg)
    for key, entry in {**loggers, **_callbacks(cfg)}.items():
        if not OmegaConf.is_dict(entry) or "_target_" not in entry:
            kind = key.partition(".")[0]
            yield f"{key}={entry}: must have a _target_, the dotted path of a Lightning {kind}, or be null"
        elif str(entry._target_).endswith(".LearningRateMonitor") and not loggers:
            yield f"{key}: must not be with logger=none (it writes to loggers alone)"


def trainer_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether Lightning's Trainer will take its arguments, as far as can be said without importing it."""
    allowed = [name for name in TRAINER_ARGUMENTS if name not in _OWN_TRAINER_ARGUMENTS]
    is_ours = cfg.trainer.get("_target_") == OUR_TRAINER  # another one has arguments of its own: see target_errors
    for key, value in cfg.trainer.items():
        if instead := _OWN_TRAINER_ARGUMENTS.get(key):
            yield f"trainer.{key}={value}: must not be given, a run sets it itself; {instead}"
        elif is_ours and key not in (*allowed, *NOT_LIGHTNINGS, "_target_"):
            yield no_such_key(f"trainer.{key}", value, allowed)


def gpu_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether the GPUs that are asked for are there; torch is imported where there is one to ask for."""
    workers, trainer = cfg.parallel.worker_device, cfg.trainer
    learner = trainer.accelerator in ("gpu", "cuda")
    if not (learner or workers.startswith("cuda")):
        return
    import torch  # only where a GPU is asked for: it takes seconds

    count = torch.cuda.device_count()
    yield from device_errors("parallel.worker_device", workers, num_cuda_devices=count)
    if learner:
        devices = str(trainer.devices)
        highest = max(int(number) for number in devices.split(",") if number) if "," in devices else 0
        for line in device_errors("trainer.devices", f"cuda:{highest}", num_cuda_devices=count):
            yield f"trainer.accelerator={trainer.accelerator}: {line.partition(': ')[2]}"
            return
        if devices.isdecimal() and int(devices) > count:
            yield f"trainer.devices={devices}: must be from 1 to {count}, the GPUs of this machine"
