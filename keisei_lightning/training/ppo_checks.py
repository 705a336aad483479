"""Which of PPO's numbers can work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.models.compiling import check_compile_mode

__all__ = ["check_ppo_options"]


def check_ppo_options(options: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot work.

    Args:
        options: of :class:`~keisei_lightning.training.PPOModule`, by name; more does no harm.

    Raises:
        ConfigError: with a line for each.
    """
    faults = []
    if not 0 < options["clip_epsilon"] < 1:
        faults.append(f"clip_epsilon={options['clip_epsilon']}: must be above 0 and below 1")
    above_zero = ("critic_coeff", "learning_rate", "adam_eps", "kl_target")
    from_zero = ("entropy_coeff", "final_entropy_coeff", "final_learning_rate", "weight_decay")
    faults += [
        f"{key}={options[key]}: must be above 0"
        for key in above_zero
        if options[key] is not None and not options[key] > 0
    ]
    faults += [
        f"{key}={options[key]}: must be 0 or more"
        for key in from_zero
        if options[key] is not None and not options[key] >= 0
    ]
    if options["clip_value"] is not None and not options["clip_value"] > 0:
        faults.append(f"clip_value={options['clip_value']}: must be above 0, or null for no limit")
    faults += check_compile_mode("compile_mode", options["compile_mode"])
    if options["critic_loss"] not in ("l2", "smooth_l1", "l1"):
        faults.append(f"critic_loss={options['critic_loss']}: must be l2, smooth_l1 or l1")
    if faults:
        raise ConfigError(faults)
