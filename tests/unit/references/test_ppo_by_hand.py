"""PPO's loss and its gradient against both written out by hand, in NumPy and double precision, without autograd.

Schulman et al. (2017), equations 7 and 9; for the decoupled objective Hilton et al. (2022), equation 3. The derivatives
are written out too, and held to finite differences below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

from keisei_lightning.models import NEW_STATE_VALUE, ActorCritic, pack_mask
from keisei_lightning.training import PPOModule

Array = NDArray[np.float64]
PLIES, ACTIONS, BYTES = 64, 6, 4
MAX_IMPORTANCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the loss, by the names of ``PPOModule``."""

    clip_epsilon: float = 0.2
    entropy_coeff: float = 0.03
    critic_coeff: float = 0.7
    critic_loss: str = "l2"
    clip_value: float | None = None


def distance(kind: str, error: Array) -> tuple[Array, Array]:
    """Of a value from its target, and its derivative in the value."""
    if kind == "l2":
        return error**2, 2.0 * error
    if kind == "l1":
        return np.abs(error), np.sign(error)
    near = np.abs(error) < 1.0
    return np.where(near, 0.5 * error**2, np.abs(error) - 0.5), np.where(near, error, np.sign(error))


def ppo(logits: Array, value: Array, data: dict[str, Array], options: Options) -> tuple[dict[str, float], Array, Array]:
    """Terms of the loss, and the gradients of their sum in the logits [b, A] and in the values [b]."""
    count, rows, action = len(value), np.arange(len(value)), data["action"].astype(int)
    legal = data["legal"].astype(bool)
    shifted = np.where(legal, logits - np.where(legal, logits, -np.inf).max(1, keepdims=True), -np.inf)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    probability = np.exp(log_probability)
    safe = np.where(legal, log_probability, 0.0)
    entropy = -(probability * safe).sum(1)

    proximal = data.get("proximal", data["behaviour"])
    weight = np.minimum(np.exp(proximal - data["behaviour"]), MAX_IMPORTANCE)
    ratio = np.exp(log_probability[rows, action] - proximal)
    clipped = np.clip(ratio, 1 - options.clip_epsilon, 1 + options.clip_epsilon)
    plain, bounded = weight * ratio * data["advantage"], weight * clipped * data["advantage"]
    # The gradient of min is that of the smaller; the clipped one has none outside of the region.
    d_ratio = np.where(plain <= bounded, weight * data["advantage"], 0.0)
    d_log_prob = d_ratio * ratio
    one_hot = np.eye(logits.shape[1])[action]
    d_logits = -(d_log_prob[:, None] * (one_hot - probability)) / count
    d_logits -= options.entropy_coeff * -(probability * (safe + entropy[:, None])) / count

    error, d_error = distance(options.critic_loss, value - data["target"])
    if options.clip_value is not None:
        change = value - data["old_value"]
        within = np.abs(change) <= options.clip_value
        near = data["old_value"] + np.clip(change, -options.clip_value, options.clip_value)
        other, d_other = distance(options.critic_loss, near - data["target"])
        d_error = np.where(error >= other, d_error, d_other * within)
        error = np.maximum(error, other)
    terms = {
        "loss_objective": -float(np.minimum(plain, bounded).mean()),
        "loss_critic": options.critic_coeff * float(error.mean()),
        "loss_entropy": -options.entropy_coeff * float(entropy.mean()),
    }
    return terms, d_logits, options.critic_coeff * d_error / count


def random_data(seed: int, *, decoupled: bool) -> dict[str, Array]:
    """A minibatch in which ratios fall on both sides of the clip, for good and for bad actions."""
    rng = np.random.default_rng(seed)
    legal = rng.random((PLIES, ACTIONS)) < 0.6
    action = rng.integers(0, ACTIONS, PLIES)
    legal[np.arange(PLIES), action] = True
    data = {
        "observation": rng.integers(0, 256, (PLIES, BYTES)).astype(float),
        "legal": legal.astype(float),
        "action": action.astype(float),
        "behaviour": rng.uniform(-3, -0.3, PLIES),
        "old_value": rng.uniform(-0.5, 0.5, PLIES),
        "advantage": rng.normal(size=PLIES),
        "target": rng.uniform(-2.5, 2.5, PLIES),
    }
    if decoupled:
        data["proximal"] = data["behaviour"] + rng.normal(scale=1.0, size=PLIES)
    return {name: np.asarray(column, np.float32).astype(np.float64) for name, column in data.items()}


def minibatch(data: dict[str, Array]) -> TensorDict:
    """The same as the module takes it."""
    floats = {name: torch.from_numpy(column).float() for name, column in data.items()}
    columns = {
        "observation": floats["observation"].to(torch.uint8),
        "action_mask": pack_mask(floats["legal"].bool()),
        "action": floats["action"].long(),
        "action_log_prob": floats["behaviour"],
        "state_value": floats["old_value"].unsqueeze(-1),
        "advantage": floats["advantage"].unsqueeze(-1),
        "value_target": floats["target"].unsqueeze(-1),
    }
    if "proximal" in floats:
        columns["proximal_log_prob"] = floats["proximal"]
    return TensorDict(columns, batch_size=PLIES)


class Linear(nn.Module):
    """Logits and the value's inverse hyperbolic tangent are linear in the observation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(BYTES, ACTIONS + 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.float() / 255.0)
        return out[:, :-1], torch.tanh(out[:, -1:])


CASES = {
    "as in the paper": Options(),
    "narrow clip": Options(clip_epsilon=0.05),
    "no entropy bonus": Options(entropy_coeff=0.0),
    "smooth l1": Options(critic_loss="smooth_l1"),
    "l1": Options(critic_loss="l1"),
    "clipped value": Options(clip_value=0.2),
    "clipped value, smooth l1": Options(clip_value=0.2, critic_loss="smooth_l1"),
}


@pytest.mark.parametrize("decoupled", [False, True], ids=["one policy", "decoupled"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_loss_and_its_gradients_are_those_written_out_by_hand(options: Options, decoupled: bool) -> None:
    module = PPOModule(ActorCritic(Linear()), **vars(options))
    for seed in range(5):
        data = random_data(seed, decoupled=decoupled)
        rng = np.random.default_rng(100 + seed)
        logits, value = rng.normal(size=(PLIES, ACTIONS)), rng.uniform(-1, 1, PLIES)
        logits, value = (x.astype(np.float32).astype(np.float64) for x in (logits, value))
        terms, d_logits, d_value = ppo(logits, value, data, options)
        batch = minibatch(data)
        leaves = {
            "logits": torch.from_numpy(logits).float().requires_grad_(),
            NEW_STATE_VALUE: torch.from_numpy(value).float().unsqueeze(-1).requires_grad_(),
        }
        losses = module.loss(batch.clone(False).update(leaves))
        for name, expected in terms.items():
            assert float(losses[name].detach()) == pytest.approx(expected, abs=1e-6), name
        sum(losses[name] for name in terms).backward()
        np.testing.assert_allclose(leaves["logits"].grad, d_logits, atol=1e-6)
        np.testing.assert_allclose(leaves[NEW_STATE_VALUE].grad.squeeze(-1), d_value, atol=1e-6)


@pytest.mark.parametrize("decoupled", [False, True], ids=["one policy", "decoupled"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_modules_gradients_in_its_weights_are_those_written_out_by_hand(options: Options, decoupled: bool) -> None:
    torch.manual_seed(1)
    network = Linear()
    module = PPOModule(ActorCritic(network), **vars(options))
    data = random_data(7, decoupled=decoupled)
    loss = module.training_step(minibatch(data), 0)
    loss.backward()
    weight, bias = (x.detach().double().numpy() for x in (network.linear.weight, network.linear.bias))
    inputs = data["observation"] / 255.0
    out = inputs @ weight.T + bias
    value = np.tanh(out[:, -1])
    terms, d_logits, d_value = ppo(out[:, :-1], value, data, options)
    d_out = np.concatenate([d_logits, (d_value * (1 - value**2))[:, None]], axis=1)
    assert float(loss.detach()) == pytest.approx(sum(terms.values()), abs=1e-6)
    np.testing.assert_allclose(network.linear.weight.grad, d_out.T @ inputs, atol=1e-6)
    np.testing.assert_allclose(network.linear.bias.grad, d_out.sum(0), atol=1e-6)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_gradients_of_the_reference_are_those_of_finite_differences(options: Options) -> None:
    data = random_data(3, decoupled=True)
    rng, step = np.random.default_rng(4), 1e-6
    logits, value = rng.normal(size=(PLIES, ACTIONS)), rng.uniform(-1, 1, PLIES)
    _, d_logits, d_value = ppo(logits, value, data, options)

    def loss(logits: Array, value: Array) -> float:
        return sum(ppo(logits, value, data, options)[0].values())

    for row in range(0, PLIES, 7):
        change = np.zeros_like(value)
        change[row] = step
        slope = (loss(logits, value + change) - loss(logits, value - change)) / (2 * step)
        assert slope == pytest.approx(d_value[row], abs=1e-7)
        for action in range(ACTIONS):
            shift = np.zeros_like(logits)
            shift[row, action] = step
            slope = (loss(logits + shift, value) - loss(logits - shift, value)) / (2 * step)
            assert slope == pytest.approx(d_logits[row, action], abs=1e-7)
