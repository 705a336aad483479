"""What the user plugs in: classes named by ``_target_``, loggers, devices, and Lightning's own arguments.

Only what is not as we ship it is looked up: importing a third party's package, or Lightning, takes seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.schemas import OUR_TRAINER
from keisei_lightning.models.registry import OUR_NETWORKS
from keisei_lightning.system.devices import device_errors
from keisei_lightning.system.options import nearest

__all__ = [
    "NOT_LIGHTNINGS",
    "TRAINER_ARGUMENTS",
    "callback_errors",
    "gpu_errors",
    "logger_errors",
    "model_errors",
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

_SHIPPED_LOGGERS = (
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.loggers.MLFlowLogger",
)


def _locate(target: object) -> Any:
    """What a dotted path names.

    Raises:
        LookupError: it names nothing; the reason is the message.
    """
    parts = str(target).split(".")
    if not all(part.isidentifier() for part in parts):
        raise LookupError("is no dotted path, such as package.module.Class")
    found, name = None, parts[0]
    for index, part in enumerate(parts):
        name = ".".join(parts[: index + 1])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
            continue
        if index and not inspect.ismodule(found):
            raise LookupError(f"{'.'.join(parts[:index])} has no {part!r}")
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and what it imports is not
                raise LookupError(f"{name} cannot be imported ({type(error).__name__}: {error})") from error
            where = f"{'.'.join(parts[:index])} has no {part!r}" if index else f"there is no module {name!r}"
            raise LookupError(where) from error
        except Exception as error:  # a third party's module may raise anything while it is imported
            raise LookupError(f"{name} cannot be imported ({_reason(error)})") from error
    return found


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _target_errors(key: str, node: DictConfig, *extra: str) -> Iterator[str]:
    """Whether what a ``_target_`` names is there, and takes the keys that it is given (and ``extra`` ones)."""
    target = node.get("_target_")
    try:
        called = _locate(target)
    except LookupError as error:
        yield f"{key}._target_={target}: {error}; must be the dotted path of a class or function"
        return
    if not callable(called):
        yield f"{key}._target_={target}: is a {type(called).__name__}; must be a class or function"
        return
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # builtins have none
        return
    if "_args_" in node:  # Hydra's positional arguments: only the call itself can tell
        return
    arguments = [str(name) for name in node if not str(name).startswith("_")]
    try:
        signature.bind(**dict.fromkeys([*arguments, *extra]))
    except TypeError as error:
        given = ", ".join([*extra, *arguments])
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
    for key, entry in _loggers(cfg).items():
        if OmegaConf.is_dict(entry) and "_target_" in entry and entry["_target_"] not in _SHIPPED_LOGGERS:
            yield from _target_errors(key, entry)
    for name, entry in cfg.callbacks.items():
        if entry is not None:
            yield from _target_errors(f"callbacks.{name}", entry)


def _loggers(cfg: DictConfig) -> dict[str, Any]:
    """Sections of loggers by key."""
    entries = {f"logger.{name}": cfg.logger[name] for name in ("csv", "tensorboard", "wandb", "mlflow")}
    return entries | {f"logger.other.{name}": entry for name, entry in cfg.logger.other.items()}


def logger_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether each logger that we know is installed, and each other one says what it is."""
    for name in ("wandb", "mlflow"):
        if cfg.logger[name] is not None and importlib.util.find_spec(name) is None:
            yield f"logger={name}: is not installed; must be csv_tensorboard, or install keisei-lightning[tracking]"
    for key, entry in _loggers(cfg).items():
        if entry is not None and (not OmegaConf.is_dict(entry) or "_target_" not in entry):
            yield f"{key}={entry}: must have a _target_, the dotted path of a Lightning logger, or be null"


def callback_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether each of the user's callbacks says what it is, and finds what it needs."""
    has_logger = any(entry is not None for entry in _loggers(cfg).values())
    for name, entry in cfg.callbacks.items():
        if entry is None:
            continue
        if not OmegaConf.is_dict(entry) or "_target_" not in entry:
            yield f"callbacks.{name}={entry}: must have a _target_, the dotted path of a Lightning callback, or be null"
        elif str(entry["_target_"]).endswith(".LearningRateMonitor") and not has_logger:
            yield f"callbacks.{name}: must not be with logger=none (it writes to loggers alone)"


def trainer_errors(cfg: DictConfig) -> Iterator[str]:
    """Whether Lightning's Trainer will take its arguments, as far as can be said without importing it."""
    trainer = cfg.trainer
    for key, instead in _OWN_TRAINER_ARGUMENTS.items():
        if key in trainer:
            yield f"trainer.{key}={trainer[key]}: must not be given, a run sets it itself; {instead}"
    if trainer.get("_target_") != OUR_TRAINER:
        return  # it has arguments of its own: see target_errors
    allowed = [name for name in TRAINER_ARGUMENTS if name not in _OWN_TRAINER_ARGUMENTS]
    for key in map(str, trainer):
        if key not in ("_target_", *NOT_LIGHTNINGS, *TRAINER_ARGUMENTS):
            near = nearest(key, allowed)
            hint = f" (did you mean trainer.{near}?)" if near else ""
            yield f"trainer.{key}={trainer[key]}: no such key{hint}; must be one of {', '.join(allowed)}"


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
