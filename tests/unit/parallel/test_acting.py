"""A policy in this process computes in the requested precision, and its results fit a learner of the same precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, LegalCategorical, build_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.policy.acting import LocalPolicyServer
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest

CPU = torch.device("cpu")
TIC_TAC_TOE = game_factory("tic_tac_toe")


def opinionated_policy() -> ActorCritic:
    """A policy with opinions (an untrained one is so uniform that no rounding would show)."""
    torch.manual_seed(3)
    policy = ActorCritic(build_network(TIC_TAC_TOE(1).spec, kind="resnet", num_blocks=1, channels=16)).eval()
    with torch.no_grad():
        policy.network.policy_head.actions.weight.mul_(300)
        policy.network.value_head.output.output.weight.normal_(std=0.3)
    return policy


def log_probs_of(policy: ActorCritic, observation: Tensor, legal: Tensor, action: Tensor, *, mixed: bool) -> Tensor:
    """float32 [B, 2]: log-probability of the action and state value, as a learner computes them."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits, value = policy(observation)
        return torch.stack([LegalCategorical(logits, legal).log_prob(action), value[:, 0].float()], dim=-1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_results_are_float32_whatever_the_arithmetic(precision: str) -> None:
    game = TIC_TAC_TOE(32)
    observation = np.zeros((32, *game.spec.observation_shape), np.uint8)
    legal, mover = np.zeros((32, game.spec.mask_bytes), np.uint8), np.zeros(32, np.int8)
    game.reset(np.arange(32))
    game.observe(observation, legal, mover)
    server = LocalPolicyServer(opinionated_policy(), CPU, precision=precision)
    server.begin_rollout(1)
    result = server.infer(InferenceRequest(observation, legal))
    assert (result.action.dtype, result.log_prob.dtype, result.value.dtype) == (np.int64, np.float32, np.float32)
    only_values = server.infer(InferenceRequest(observation))
    assert only_values.value.dtype == np.float32
    np.testing.assert_array_equal(only_values.value, result.value)


@pytest.mark.parametrize(("precision", "mixed"), [("32-true", False), ("bf16-mixed", True)])
def test_a_rollout_is_on_policy_for_a_learner_of_the_same_precision(precision: str, mixed: bool) -> None:
    policy = opinionated_policy()
    with SelfPlayCollector(
        TIC_TAC_TOE, policy, mode="serial", games_per_worker=64, plies_per_rollout=8, worker_precision=precision, seed=1
    ) as collector:
        plies = next(iter(collector)).flatten()
    played = torch.stack([plies["action_log_prob"], plies["state_value"][:, 0]], dim=-1)
    columns = plies["observation"], plies["action_mask"], plies["action"]
    alike, other = (log_probs_of(policy, *columns, mixed=precise) for precise in (mixed, not mixed))
    torch.testing.assert_close(played, alike, atol=1e-4, rtol=0)  # sums of another batch size, in another order
    differences = (played - other).abs()
    assert differences.mean() > 5e-4
    assert differences.max() < 0.1
