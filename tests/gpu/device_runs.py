"""Small trainings and collections of shogi on a device, and what the device itself says of them."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tensordict import TensorDictBase
from torch import Tensor

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, LegalCategorical, build_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import AtomicCheckpointIO, FinalCheckpoint, PPOModule, SelfPlayDataModule
from keisei_lightning.training import WeightSyncCallback as Publish

__all__ = [
    "GAMES",
    "PLIES",
    "RECIPE",
    "Fitted",
    "assert_played_by",
    "collector_of",
    "difference_of",
    "fit",
    "free_bytes",
    "holds_cuda",
    "policy_of",
    "tolerance_of",
    "wait_until",
]

GAMES, PLIES = 4, 6
MINIBATCH = 12
_NETWORK = {"kind": "resnet", "num_blocks": 1, "channels": 16, "value_head": "scalar"}
_GAME_OPTIONS = {"max_plies": 24, "opening_plies": 4}
RECIPE = {"env": {"game": "shogi", "options": _GAME_OPTIONS}, "model": _NETWORK}


def policy_of(kind: str = "resnet") -> ActorCritic:
    torch.manual_seed(0)
    spec = game_factory("shogi", **_GAME_OPTIONS)(1).spec
    return ActorCritic(build_network(spec, **{**_NETWORK, "kind": kind}))  # type: ignore[arg-type]


def collector_of(policy: ActorCritic, device: str, **options: Any) -> SelfPlayCollector:
    defaults = {
        "mode": "central",
        "num_workers": 2,
        "games_per_worker": GAMES,
        "plies_per_rollout": PLIES,
        "threads_per_worker": 1,
        "worker_device": device,
        "stagger_games": False,
        "seed": 3,
    }
    return SelfPlayCollector(game_factory("shogi", **_GAME_OPTIONS), policy, **{**defaults, **options})


# ---- training


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A training that has ended.

    Attributes:
        trainer: Lightning's.
        module: that has learned.
        data: whose collector is closed.
        weights_at_start: a copy, taken before the first minibatch.
        checkpoint: written at the end.
    """

    trainer: Trainer
    module: PPOModule
    data: SelfPlayDataModule
    weights_at_start: list[Tensor]
    checkpoint: Path


class _NoteWeights(Callback):
    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = [parameter.detach().cpu().clone() for parameter in pl_module.parameters()]


def fit(
    device: str,
    folder: Path,
    *,
    epochs: int = 2,
    precision: str = "32-true",
    compile_mode: str | None = None,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Fitted:
    """Train on a device, players too; Lightning is told in the words of the command line."""
    policy = policy_of()
    collector = collector_of(policy, device, worker_precision=precision, **options)
    note, checkpoint = _NoteWeights(), folder / f"after_{epochs}_{device.partition(':')[0]}.ckpt"
    trainer = Trainer(
        accelerator="cpu" if device == "cpu" else "gpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        gradient_clip_val=0.5,
        callbacks=[Publish(), note, *callbacks, FinalCheckpoint(checkpoint)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = PPOModule(policy, learning_rate=3e-3, compile_mode=compile_mode, recipe=RECIPE)
    data = SelfPlayDataModule(collector, minibatch_size=MINIBATCH)
    ckpt_path = None if resume is None else str(resume)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return Fitted(trainer=trainer, module=module, data=data, weights_at_start=note.weights, checkpoint=checkpoint)


# ---- what was played


@torch.inference_mode()
def evaluate(policy: ActorCritic, batch: TensorDictBase, device: str, precision: str) -> tuple[Tensor, Tensor]:
    """The batch's state values [G, T, 1] and log-probabilities [G, T] as this policy gives them on this device."""
    network = copy.deepcopy(policy).to(device).eval()
    plies = batch.select("observation", "action_mask", "action").flatten(0, 1).to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits, value = network(plies["observation"])
        log_prob = LegalCategorical(logits, plies["action_mask"]).log_prob(plies["action"])
    shape = batch.batch_size
    return value.float().cpu().view(*shape, 1), log_prob.float().cpu().view(shape)


def tolerance_of(device: str, precision: str) -> float:
    """How far two evaluations in batches of different sizes may lie apart (CUDA's convolutions round to TF32)."""
    return 0.1 if precision == "bf16-mixed" else 1e-4 if device == "cpu" else 0.02


def difference_of(policy: ActorCritic, batch: TensorDictBase, device: str, precision: str) -> float:
    """The largest difference between what the players stored and what this policy gives, where the learner moved."""
    value, log_prob = evaluate(policy, batch, device, precision)
    of_value = (value - batch["state_value"]).abs()[batch["trainable"]]
    of_log_prob = (log_prob - batch["action_log_prob"]).abs()[batch["trainable"]]
    return max(float(of_value.max()), float(of_log_prob.max()))


def assert_played_by(policy: ActorCritic, batch: TensorDictBase, device: str, precision: str = "32-true") -> None:
    assert difference_of(policy, batch, device, precision) < tolerance_of(device, precision)


# ---- what the device says


def holds_cuda(pid: int) -> bool:
    """Whether a process has CUDA's driver in its memory, or a device of NVIDIA's open."""
    if "libcuda.so" in Path(f"/proc/{pid}/maps").read_text():
        return True
    return any("/dev/nvidia" in _target(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""


def free_bytes(device: str) -> int:
    """Of the device's memory, all processes together; 0 for the CPU, whose memory is no matter of ours."""
    if device == "cpu":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
