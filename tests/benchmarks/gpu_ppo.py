"""PPO's plies a second on an accelerator, from end to end or of the learner alone.

::

    python tests/benchmarks/gpu_ppo.py --cases bf16-mixed/none/async 32-true/none/async
    python tests/benchmarks/gpu_ppo.py --same-rollout --cases bf16-mixed/none bf16-mixed/default

A case is precision / compile mode / schedule. From end to end, workers play the moves, one process evaluates positions
on the device, and the learner learns on the same device. ``--same-rollout``: one rollout again and again.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from gpu_common import MODELS, Results, Shape, add_common_arguments, policy_of, shogi, synchronize
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tensordict import TensorDictBase

from keisei_lightning.commands.bench.learn import SameRollout
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule, WeightSyncCallback

_PASSES, _WARM_UP = 2, 2


class Clock(Callback):
    """Takes the time of iterations after some to warm up, and ends the fit when it has measured for long enough.

    Args:
        seconds: to measure for, one iteration at least.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._epochs = seconds, 0
        self._start = 0.0
        self.iterations, self.passed_s = 0, 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        synchronize(pl_module.device)
        self._epochs += 1
        if self._epochs == _WARM_UP:
            self._start = time.perf_counter()
        elif self._epochs > _WARM_UP:
            self.iterations, self.passed_s = self._epochs - _WARM_UP, time.perf_counter() - self._start
            trainer.should_stop = self.passed_s >= self._seconds


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--cases", nargs="+", default=["bf16-mixed/none/async"], metavar="PRECISION/COMPILE/SCHEDULE")
    parser.add_argument("--shape", type=Shape.parse, default=Shape(8, 512, 2), metavar="WxGxGROUPS")
    parser.add_argument("--plies", type=int, default=32, help="of each game in a rollout")
    parser.add_argument("--minibatch", type=int, default=8192, help="plies")
    parser.add_argument("--case-s", type=float, default=5.0, help="seconds to measure each case for")
    parser.add_argument("--same-rollout", action="store_true", help="the learner alone")
    arguments = parser.parse_args()
    results = Results(arguments.write, arguments.seconds)
    rollout = _played(arguments) if arguments.same_rollout else None
    best = 0
    for case in arguments.cases:
        if not results.is_time_for(case):
            break
        precision, compile_mode, schedule = (*case.split("/"), "sync")[:3]
        try:
            row = _measure(arguments, rollout, precision, None if compile_mode == "none" else compile_mode, schedule)
        except Exception as error:  # noqa: BLE001 - a case that cannot run must not hide the others
            results.failed(case, error)
            continue
        best = max(best, row["plies_per_s"])
        results.add({"case": case, **row}, plies_per_s=best)
    return results.exit_status()


def _measure(
    arguments: argparse.Namespace,
    rollout: TensorDictBase | None,
    precision: str,
    compile_mode: str | None,
    schedule: str,
) -> dict[str, Any]:
    policy, device = policy_of(arguments.model), torch.device(arguments.device)
    source: Any = (
        _collector(arguments, policy, precision, schedule) if rollout is None else SameRollout(rollout, shogi()(1).spec)
    )
    clock = Clock(arguments.case_s)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1_000_000,
        gradient_clip_val=0.5,
        callbacks=[clock, *([] if rollout is not None else [WeightSyncCallback()])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = PPOModule(policy.train(), compile_mode=compile_mode)
    data = SelfPlayDataModule(source, num_epochs=_PASSES, minibatch_size=arguments.minibatch)
    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    plies = source.frames_per_batch * clock.iterations
    row = {
        "plies_per_s": round(plies / clock.passed_s),
        "iterations": clock.iterations,
        "plies_per_iteration": source.frames_per_batch,
        "seconds_with_start": round(time.perf_counter() - start, 1),
    }
    if rollout is None:
        stats = source.stats()
        row |= {"learner_wait_s": round(stats["learner_wait_s"], 3), "worker_wait_s": round(stats["worker_wait_s"], 3)}
        row |= {"first_ratio": round(float(trainer.callback_metrics["train/first_ratio"]), 4)}
    if device.type == "cuda":
        row["memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 1)
    return row


def _collector(arguments: argparse.Namespace, policy: ActorCritic, precision: str, schedule: str) -> SelfPlayCollector:
    shape: Shape = arguments.shape
    return SelfPlayCollector(
        shogi(),
        policy,
        mode="central",
        schedule=schedule,  # type: ignore[arg-type]
        num_workers=shape.num_workers,
        games_per_worker=shape.games_per_worker,
        groups_per_worker=shape.groups_per_worker,
        plies_per_rollout=arguments.plies,
        worker_device=arguments.device,
        worker_precision=precision,  # type: ignore[arg-type]
        stagger_games=False,  # the games begin anywhere anyway
        zero_copy=True,
    )


def _played(arguments: argparse.Namespace) -> TensorDictBase:
    """One rollout, played by the policy that learns."""
    shape: Shape = arguments.shape
    with SelfPlayCollector(
        shogi(),
        policy_of(arguments.model).eval(),
        mode="serial",
        games_per_worker=shape.num_workers * shape.games_per_worker,
        plies_per_rollout=arguments.plies,
        worker_device=arguments.device,
        stagger_games=False,
    ) as collector:
        rollout: TensorDictBase = next(iter(collector))
    return rollout


if __name__ == "__main__":
    sys.exit(main())
