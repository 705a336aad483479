"""The checkpoints of an evaluation; this is what needs torch."""

from __future__ import annotations

import torch

from keisei_lightning.commands.evaluate.checks import checkpoint_key
from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.policies import LoadedPolicy, load_policy
from keisei_lightning.system.devices import device_errors

__all__ = ["read_policies"]


def read_policies(options: EvalOptions) -> dict[str, LoadedPolicy]:
    """Read all checkpoints, so that a mistake in the last one costs no match.

    Args:
        options: of the evaluation.

    Returns:
        By the path of the checkpoint, in the order of the command line.

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
    return policies


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
