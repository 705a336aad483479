"""Whether a batch of the counting game is whole: every number in it follows from the one before."""

from __future__ import annotations

import torch
from fakes import COUNTING_GOAL
from tensordict import TensorDictBase
from torch import Tensor

__all__ = ["assert_continues", "assert_whole", "incarnations", "worker_rows"]


def incarnations(batch: TensorDictBase) -> Tensor:
    """The life of the worker that played each ply: int64 [B, T]."""
    return batch["collector", "traj_ids"] >> 32 & 0xFFFF


def worker_rows(batch: TensorDictBase, worker_id: int) -> TensorDictBase:
    """The games of one worker."""
    return batch[batch["collector", "worker_id"][:, 0] == worker_id]


def _moved(batch: TensorDictBase) -> Tensor:
    return batch["observation"][..., 0, 0, 0].long() + batch["action"] + 1


def assert_follows(before: TensorDictBase, after: TensorDictBase) -> None:
    """Each ply of ``after`` continues the same game as the ply of ``before``, or begins a new one after its end."""
    done = before["next", "done"][..., 0]
    count, trajectory = after["observation"][..., 0, 0, 0].long(), after["collector", "traj_ids"]
    assert torch.equal(count[~done], _moved(before)[~done])
    assert torch.equal(after["mover"][~done], before["next", "mover"][~done])
    assert torch.equal(trajectory[~done], before["collector", "traj_ids"][~done])
    assert torch.equal(after["state_value"][~done], before["next", "state_value"][~done])
    assert (trajectory[done] > before["collector", "traj_ids"][done]).all()
    assert torch.equal(after["mover"][done], (count[done] % 2).to(torch.int8))  # each random opening ply adds 1


def assert_whole(batch: TensorDictBase, *, games_per_worker: int) -> None:
    """Every rollout in the batch was played by one version, and every ply of it is right."""
    num_games, num_plies = batch.batch_size
    assert num_games % games_per_worker == 0
    stamps = torch.stack(
        [batch["collector", "worker_id"], batch["collector", "policy_version"], incarnations(batch)], -1
    ).view(-1, games_per_worker * num_plies, 3)
    assert (stamps == stamps[:, :1]).all(), "a rollout of two versions, workers or lives"
    assert torch.equal(batch["collector", "traj_ids"] >> 48, batch["collector", "worker_id"])
    count, action = batch["observation"][..., 0, 0, 0].long(), batch["action"]
    assert torch.equal(batch["observation"][..., 1, 0, 0].long(), COUNTING_GOAL - count)
    legal = torch.arange(1, 4) <= (COUNTING_GOAL - count)[..., None]
    assert torch.equal(batch["action_mask"][..., 0] >> 5, (legal * torch.tensor([4, 2, 1])).sum(-1).to(torch.uint8))
    assert legal.gather(-1, action[..., None]).all()
    won = _moved(batch) == COUNTING_GOAL
    assert torch.equal(batch["next", "terminated"][..., 0], won)
    assert torch.equal(batch["next", "done"][..., 0], won)
    assert torch.equal(batch["next", "reward"][..., 0], won.float())
    assert torch.equal(batch["next", "mover"], 1 - batch["mover"])
    assert (batch["next", "state_value"][..., 0][won] == 0).all()
    assert (batch["action_log_prob"] <= 0).all()
    assert_follows_within(batch)


def assert_follows_within(batch: TensorDictBase) -> None:
    before, after = batch[:, :-1], batch[:, 1:]
    assert_follows(before, after)


def assert_continues(earlier: TensorDictBase, later: TensorDictBase) -> None:
    """Rows of two consecutive rollouts of one incarnation of a worker: all games continue.

    Values may be of another version.
    """
    last, first = earlier[:, -1].clone(), later[:, 0]
    last["next", "state_value"] = torch.where(last["next", "done"], last["next", "state_value"], first["state_value"])
    assert_follows(last, first)
