"""Stand-ins for tests of training: a collector whose plies can be told apart, and a trainer that writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fakes import TinyNetwork
from lightning.pytorch import LightningModule, Trainer
from tensordict import TensorDict
from torch import Tensor, nn

from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import ActorCritic, LegalCategorical

SPEC = GameSpec(name="fake", num_actions=3, observation_shape=(4,), max_plies=100)


class FourByteNetwork(nn.Module):
    """Observation [B, 4] -> (logits [B, 3], value [B, 1]); counts its forward passes."""

    def __init__(self, num_actions: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(4, num_actions + 1)
        self.calls = 0

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        out = self.linear(observation.float() / 255.0)
        return out[:, :-1], torch.tanh(out[:, -1:])


class FakeCollector:
    """Yields rollouts whose observations are the numbers of their plies, and notes what it is asked for.

    Args:
        num_games: G.
        num_plies: T.
        policy: gives the log-probabilities of the moves; they are zero without one.
        schedule: what a collector says of itself.
        trainable_share: the first plies of this share of each game are trainable.
        num_rollouts: how many there are; -1: no end.
    """

    def __init__(
        self,
        *,
        num_games: int = 4,
        num_plies: int = 8,
        policy: ActorCritic | None = None,
        schedule: str = "sync",
        trainable_share: float = 1.0,
        num_rollouts: int = -1,
    ) -> None:
        self.spec = SPEC
        self.shape = (num_games, num_plies)
        self.frames_per_batch = num_games * num_plies
        self.schedule = schedule
        self.policy_version = 0
        self.plies = 0
        self.events: list[str] = []
        self._policy = policy
        self._trainable_share = trainable_share
        self._num_rollouts = num_rollouts
        self._number = 0

    def rollout(self, number: int) -> TensorDict:
        games, plies = self.shape
        generator = torch.Generator().manual_seed(number)
        ids = torch.arange(games * plies).view(games, plies)
        observation = torch.stack([ids % 256, ids // 256, torch.full_like(ids, number % 256), 0 * ids], dim=-1)
        action_mask = torch.full((games, plies, 1), 0b11100000, dtype=torch.uint8)
        action = torch.randint(3, (games, plies), generator=generator)
        log_prob = torch.zeros(games, plies)
        if self._policy is not None:
            with torch.no_grad():
                logits, _ = self._policy(observation.to(torch.uint8).flatten(0, 1))
                log_prob = (
                    LegalCategorical(logits, action_mask.flatten(0, 1)).log_prob(action.flatten()).view(games, plies)
                )
        mover = (torch.arange(plies) % 2).to(torch.int8).expand(games, plies).contiguous()
        nothing = torch.zeros(games, plies, 1, dtype=torch.bool)
        trainable = (torch.arange(plies) < round(plies * self._trainable_share)).expand(games, plies).contiguous()
        return TensorDict(
            {
                "observation": observation.to(torch.uint8),
                "action_mask": action_mask,
                "action": action,
                "action_log_prob": log_prob,
                "state_value": torch.rand(games, plies, 1, generator=generator) - 0.5,
                "mover": mover,
                "trainable": trainable,
                "next": {
                    "reward": torch.randn(games, plies, 1, generator=generator),
                    "done": nothing,
                    "terminated": nothing,
                    "truncated": nothing,
                    "state_value": torch.rand(games, plies, 1, generator=generator) - 0.5,
                    "mover": 1 - mover,
                },
            },
            batch_size=(games, plies),
        )

    def __iter__(self) -> Iterator[TensorDict]:
        while self._num_rollouts < 0 or self._number < self._num_rollouts:
            self.events.append("collect")
            self._number += 1
            self.plies += self.frames_per_batch
            yield self.rollout(self._number)

    def start(self) -> None:
        self.events.append("start")

    def update_policy_weights_(self) -> None:
        self.events.append("publish")
        self.policy_version += 1

    def shutdown(self, timeout: float | None = None) -> None:
        self.events.append("shutdown")

    def reopen(self) -> None:
        if self.events[-1:] == ["shutdown"]:
            self.events.append("reopen")

    def stats(self) -> dict[str, float]:
        return {"plies": self.plies, "plies_per_s": 1234.4, "games_per_s": 5.5, "policy_lag_max": 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {"plies": self.plies, "number": self._number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.plies, self._number = state_dict["plies"], state_dict["number"]


class NotingModule(LightningModule):
    """Notes the numbers of the plies of each minibatch, and steps an optimiser over one weight.

    Args:
        fail_at: raise this at minibatch ``fail_at[0]``.
    """

    def __init__(self, fail_at: tuple[int, BaseException] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.minibatches: list[list[tuple[int, int]]] = []
        self._fail_at = fail_at

    def training_step(self, minibatch: TensorDict, batch_idx: int) -> Tensor:
        if self._fail_at is not None and self._fail_at[0] == len(self.minibatches):
            raise self._fail_at[1]
        self.minibatches.append(ply_numbers(minibatch))
        return self.weight * minibatch["advantage"].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PlayingModule(NotingModule):
    """Has a policy for the counting game beside the weight that it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.actor_critic = ActorCritic(TinyNetwork())


def ply_numbers(minibatch: TensorDict) -> list[tuple[int, int]]:
    """(rollout, ply) of each row."""
    low, high, rollout, _ = minibatch["observation"].long().unbind(-1)
    return list(zip(rollout.tolist(), (low + 256 * high).tolist(), strict=True))


def quiet_trainer(tmp_path: Path, **options: Any) -> Trainer:
    """A trainer on the CPU that logs and saves nothing unless it is told to."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": tmp_path,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "max_epochs": 2,
    }
    return Trainer(**(defaults | options))
