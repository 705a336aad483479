"""The learner beside a loop written by hand: the same rollout, network, loss, optimiser and minibatch size.

Ours is Lightning's ``Trainer`` with :class:`SelfPlayDataModule` and :class:`PPOModule`. The loop by hand has neither
Lightning nor TorchRL nor TensorDict. They take turns, iteration by iteration, each with a copy of the policy.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.options import LearnOptions, game_of, label_of
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.games import GameSpec
from keisei_lightning.models import ActorCritic, LegalCategorical
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.rl import batch_advantages
from keisei_lightning.training import PPOModule, SelfPlayDataModule

__all__ = ["SameRollout", "run"]

_PASSES, _CLIP, _ENTROPY, _CRITIC, _MAX_NORM, _GAMMA, _LMBDA, _RATE = 2, 0.2, 0.01, 0.5, 0.5, 0.995, 0.95, 1e-3


class SameRollout:
    """A source that delivers one rollout again and again (see ``training.source.RolloutSource``)."""

    schedule, policy_version = "sync", 0

    def __init__(self, rollout: TensorDictBase, spec: GameSpec) -> None:
        self._rollout, self.spec, self.frames_per_batch = rollout, spec, rollout.numel()

    def start(self) -> None:
        """Nothing to start."""

    def __iter__(self) -> Iterator[TensorDictBase]:
        while True:
            yield self._rollout

    def update_policy_weights_(self) -> None:
        """Nobody to tell."""

    def shutdown(self, timeout: float | None = None) -> None:
        """Nothing to stop."""

    def reopen(self) -> None:
        """Nothing was stopped."""

    def stats(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to resume from."""


class _ByHand:
    """PPO as one would write it for one network on one machine."""

    def __init__(self, policy: ActorCritic, minibatch: int) -> None:
        self._network, self._minibatch = policy.train(), minibatch
        self._optimizer = torch.optim.AdamW(policy.parameters(), lr=_RATE, eps=1e-5, weight_decay=0.0, fused=True)

    def learn(self, rollout: TensorDictBase) -> None:
        with torch.no_grad():
            advantage, target = (x.flatten() for x in batch_advantages(rollout, gamma=_GAMMA, lmbda=_LMBDA))
            advantage = (advantage - advantage.mean()) / advantage.std()
        keys = ("observation", "action_mask", "action", "action_log_prob")
        columns = [*(rollout[key].flatten(0, 1) for key in keys), advantage, target]
        for _ in range(_PASSES):
            for rows in torch.randperm(len(advantage)).split(self._minibatch):
                loss = self._loss(*(column[rows] for column in columns))
                self._optimizer.zero_grad()
                loss.backward()
                clip_grad_norm_(self._network.parameters(), _MAX_NORM)
                self._optimizer.step()

    def _loss(
        self, observation: Tensor, mask: Tensor, action: Tensor, old: Tensor, advantage: Tensor, target: Tensor
    ) -> Tensor:
        logits, value = self._network(observation)
        policy = LegalCategorical(logits, mask)
        ratio = (policy.log_prob(action) - old).exp()
        objective = torch.minimum(ratio * advantage, ratio.clamp(1 - _CLIP, 1 + _CLIP) * advantage).mean()
        critic = (value[:, 0] - target).square().mean()
        loss: Tensor = _CRITIC * critic - objective - _ENTROPY * policy.entropy().mean()
        return loss


class _Turns(Callback):
    """Times our iterations, and after each one of the loop by hand."""

    def __init__(self, by_hand: _ByHand, rollout: TensorDictBase) -> None:
        self._by_hand, self._rollout = by_hand, rollout
        self.ours: list[float] = []
        self.hand: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        plies = self._rollout.numel()
        self.ours.append(plies / (time.perf_counter() - self._start))
        start = time.perf_counter()
        self._by_hand.learn(self._rollout)
        self.hand.append(plies / (time.perf_counter() - start))


def _rollout_of(options: LearnOptions, policy: ActorCritic) -> TensorDictBase:
    with SelfPlayCollector(
        game_of(options),
        policy,
        mode="serial",
        games_per_worker=options.games,
        plies_per_rollout=options.plies,
        seed=options.seed,
    ) as collector:
        rollout: TensorDictBase = next(iter(collector))
    return rollout


def _measure(
    options: LearnOptions, model: str, minibatch: int, threads: int, rollout: TensorDictBase
) -> dict[str, Any]:
    game = game_of(options)
    policy = policy_of(game, model, options.seed)
    torch.set_num_threads(threads)
    turns = _Turns(_ByHand(copy.deepcopy(policy), minibatch), rollout)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1 + options.rounds,
        gradient_clip_val=_MAX_NORM,
        callbacks=[turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = PPOModule(
        policy.train(),
        clip_epsilon=_CLIP,
        entropy_coeff=_ENTROPY,
        critic_coeff=_CRITIC,
        learning_rate=_RATE,
    )
    data = SelfPlayDataModule(
        SameRollout(rollout, game(1).spec),
        gamma=_GAMMA,
        lmbda=_LMBDA,
        num_epochs=_PASSES,
        minibatch_size=minibatch,
    )
    trainer.fit(module, datamodule=data)
    ratios = [ours / hand for ours, hand in zip(turns.ours[1:], turns.hand[1:], strict=True)]
    return {
        "model": f"{label_of(model)}, minibatch {minibatch}, {threads} thread(s)",
        "ours_plies_per_s": round(statistics.median(turns.ours[1:])),
        "by_hand_plies_per_s": round(statistics.median(turns.hand[1:])),
        "ours_over_by_hand": round(statistics.median(ratios), 3),
    }


def run(options: LearnOptions) -> None:
    """Measure and print."""
    rows = []
    for model in options.model:
        rollout = _rollout_of(options, policy_of(game_of(options), model, options.seed))
        rows += [
            _measure(options, model, minibatch, threads, rollout)
            for minibatch in options.minibatch
            for threads in options.threads
        ]
    print_report(
        f"learn: {options.game}, rollouts of {options.games} x {options.plies} plies, {_PASSES} passes",
        rows,
        as_json=options.json,
        write=options.write,
        notes=(f"medians of {options.rounds} alternating iterations, without the first; seed {options.seed}",),
    )
