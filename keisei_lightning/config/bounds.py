"""What each key of the configuration may be: numbers by interval, words by list."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from typing import Any

__all__ = ["BOUNDS", "CHOICES", "Bounds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """An interval of legal numbers.

    Attributes:
        low: its lower end.
        high: its upper end.
        open_low: the lower end itself is not legal.
        open_high: the upper end itself is not legal.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def contain(self, value: Any) -> bool:
        """Whether a value is a finite number inside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low, high = _plain(self.low), _plain(self.high)
        above = f"more than {low}" if self.open_low else f"{low} or more"
        if self.high == math.inf:
            return above
        if not self.open_low and not self.open_high:
            return f"from {low} to {high}"
        return f"{above} and {'less than' if self.open_high else 'at most'} {high}"


def _plain(number: float) -> str:
    """4294967295, not 4.29497e+09."""
    return str(int(number)) if math.isfinite(number) and number == int(number) else f"{number:g}"


_COUNT = Bounds(low=1)
_NOT_NEGATIVE = Bounds(low=0)
_POSITIVE = Bounds(low=0, open_low=True)
_UNIT = Bounds(low=0, high=1)

BOUNDS: dict[str, Bounds] = {
    "seed": Bounds(low=0, high=2**32 - 1),
    "env.max_plies": _COUNT,
    "env.opening_plies": _NOT_NEGATIVE,
    "model.num_blocks": Bounds(low=1, high=256),
    "model.channels": Bounds(low=1, high=8192),
    "ppo.gamma": _UNIT,
    "ppo.lmbda": _UNIT,
    "ppo.clip_epsilon": Bounds(low=0, high=1, open_low=True, open_high=True),
    "ppo.entropy_coeff": _NOT_NEGATIVE,
    "ppo.final_entropy_coeff": _NOT_NEGATIVE,
    "ppo.critic_coeff": _POSITIVE,
    "ppo.clip_value": _POSITIVE,
    "ppo.kl_target": _POSITIVE,
    "ppo.adam_eps": _POSITIVE,
    "ppo.weight_decay": _NOT_NEGATIVE,
    "ppo.learning_rate": Bounds(low=0, high=1, open_low=True),
    "ppo.final_learning_rate": _UNIT,
    "ppo.epochs": Bounds(low=1, high=100),
    "ppo.minibatch_size": _COUNT,
    "parallel.games_per_worker": Bounds(low=1, high=65536),
    "parallel.plies_per_rollout": Bounds(low=1, high=65536),
    "parallel.max_policy_lag": _NOT_NEGATIVE,
    "parallel.slots_per_worker": Bounds(low=1, high=64),
    "parallel.threads_per_worker": Bounds(low=1, high=1024),
    "parallel.groups_per_worker": Bounds(low=1, high=16),
    "parallel.heartbeat_s": Bounds(low=0.5),
    "parallel.start_timeout_s": _POSITIVE,
    "parallel.shutdown_timeout_s": _POSITIVE,
    "parallel.max_restarts": _NOT_NEGATIVE,
    "parallel.restart_window_s": _POSITIVE,
    "parallel.restart_backoff_s": _POSITIVE,
    "parallel.min_healthy_workers": _NOT_NEGATIVE,
    "opponents.share": Bounds(low=0, high=1, open_low=True),
    "opponents.max_snapshots": Bounds(low=1, high=1024),
    "opponents.every_n_epochs": _COUNT,
    "weight_sync.every_n_steps": _COUNT,
    "trainer.max_epochs": _COUNT,
    "trainer.gradient_clip_val": _NOT_NEGATIVE,
    "trainer.accumulate_grad_batches": _COUNT,
    "trainer.check_val_every_n_epoch": _COUNT,
    "trainer.num_sanity_val_steps": Bounds(low=-1),
    "trainer.log_every_n_steps": _NOT_NEGATIVE,
    "evaluation.every_n_epochs": _NOT_NEGATIVE,
    "evaluation.num_games": Bounds(low=2, high=100_000),
    "evaluation.opening_plies": _NOT_NEGATIVE,
    "evaluation.against_epochs_ago": _COUNT,
    "evaluation.max_time_share": Bounds(low=0, high=1, open_low=True),
    "checkpoint.every_n_epochs": _COUNT,
    "checkpoint.keep": Bounds(low=-1),
}
"""Legal numbers by key."""

_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

CHOICES: dict[str, tuple[str, ...]] = {
    "model.kind": ("mlp", "resnet"),
    "model.value_head": ("scalar", "wdl"),
    "ppo.critic_loss": ("l2", "smooth_l1", "l1"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.profiler": ("simple", "advanced", "pytorch"),
    # Lightning's others cast the weights, and the workers' are float32; "16" and "bf16" are its names of mixed ones.
    "trainer.precision": ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16"),
    "parallel.mode": ("serial", "workers", "central"),
    "parallel.schedule": ("sync", "async"),
    "parallel.worker_precision": ("32-true", "bf16-mixed"),
    "parallel.compile_mode": _COMPILE_MODES,
    "ppo.compile_mode": _COMPILE_MODES,
    "opponents.mode": ("none", "snapshots"),
    "opponents.choice": ("uniform", "prioritised"),
    # Never fork: torch has threads, and a forked child of a threaded process may hang.
    "parallel.start_method": tuple(m for m in multiprocessing.get_all_start_methods() if m != "fork"),
}
"""Legal words by key."""
