"""A network that does not fit its game is refused where it is given, and one that does is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fakes import TinyNetwork, VersionNetwork, counting_game
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec, game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.output_check import MAX_STATE_VALUE, check_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.parallel.policy.acting import check_policy
from keisei_lightning.training import PPOModule

COUNTING = counting_game()(1).spec
CONNECT_FOUR = game_factory("connect_four")(1).spec


class Giving(nn.Module):
    """Gives the same outputs wherever it is asked."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, observation: Tensor) -> Any:
        return self.outputs


@pytest.mark.parametrize("num_logits", [3, 6, 8])
def test_a_network_of_another_number_of_logits_is_refused_by_collector_and_module(num_logits: int) -> None:
    """Three logits in connect four: 991 of 3072 delivered plies had the action -1."""
    network = build_network(
        GameSpec(name="other", num_actions=num_logits, observation_shape=(3, 6, 7), max_plies=9, board_shape=(6, 7)),
        kind="mlp",
        num_blocks=1,
        channels=8,
    )
    line = (
        rf"^network=MLPNetwork: its logits are float32 \[2, {num_logits}\]; must be floating point \[2, 7\], "
        r"one for each action of connect_four$"
    )
    with pytest.raises(ConfigError, match=line):
        SelfPlayCollector(game_factory("connect_four"), ActorCritic(network), mode="serial")
    with pytest.raises(ConfigError, match=line):
        PPOModule(ActorCritic(network), spec=CONNECT_FOUR)


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        ((torch.zeros(2, 3), torch.zeros(2)), r"its state values are float32 \[2\]; must be floating point \[2, 1\]"),
        ((torch.zeros(2, 3), torch.zeros(1, 1)), r"its state values are float32 \[1, 1\]; must be"),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), r"its state values are float32 \[2, 3\]; must be"),
        ((torch.zeros(3), torch.zeros(2, 1)), r"its logits are float32 \[3\]; must be floating point \[2, 3\]"),
        ((torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 1)), r"its logits are int64 \[2, 3\]; must be floating"),
        ((torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.bool)), r"its state values are bool \[2, 1\]; must be"),
        ((torch.zeros(2, 3), torch.full((2, 1), -31.5)), r"its state values reach 31.5; must be expected results"),
        (torch.zeros(2, 4), "gives a Tensor; must give two tensors, logits and state values"),
        ((torch.zeros(2, 3),), "gives a tuple of Tensor; must give two tensors"),
        ((torch.zeros(2, 3), None), "gives a tuple of Tensor, NoneType; must give two tensors"),
        (None, "gives a NoneType; must give two tensors"),
    ],
)
def test_shapes_dtypes_and_the_unit_of_the_value_must_be_those_of_the_game(outputs: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^network=Giving: {fault}"):
        check_network(ActorCritic(Giving(outputs)), COUNTING)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_points_and_a_value_that_overshoots_a_little_are_fine(dtype: torch.dtype) -> None:
    check_network(ActorCritic(Giving((torch.zeros(2, 3).to(dtype), torch.full((2, 1), MAX_STATE_VALUE)))), COUNTING)


def test_a_network_that_rejects_the_observations_is_refused_in_one_line() -> None:
    network = build_network(CONNECT_FOUR, kind="mlp", num_blocks=1, channels=8)
    with pytest.raises(ConfigError) as caught:
        check_network(ActorCritic(network), COUNTING)
    (line,) = caught.value.errors
    assert line.startswith(
        "network=MLPNetwork: cannot evaluate observations uint8 [2, 2, 1, 1] of counting (RuntimeError: "
    )


class Busy(TinyNetwork):
    """Counts its passes in a buffer and in an attribute, normalises over the batch, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(2, momentum=0.5), nn.Dropout(0.5)
        self.register_buffer("passes", torch.zeros(()))
        self.calls = 0

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        self.passes += 1
        noisy = observation.flatten(1).float() + torch.rand(len(observation), 2)
        return super().forward(self.dropout(self.norm(noisy))[..., None, None])


def test_the_network_and_the_random_streams_stay_as_they_were() -> None:
    policy = ActorCritic(Busy())
    policy.network.dropout.eval()  # a mode of its own among others
    before, stream = copy.deepcopy(policy.state_dict()), torch.get_rng_state()
    modes = [module.training for module in policy.modules()]
    check_network(policy, COUNTING)
    assert torch.equal(torch.get_rng_state(), stream)
    assert [module.training for module in policy.modules()] == modes
    assert policy.network.calls == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert all(parameter.grad is None and parameter.is_leaf for parameter in policy.parameters())


class Choosing(nn.Module):
    """A policy of somebody's own, without a network to look at."""

    def __init__(self, action: Any, log_prob: Any, value: Any) -> None:
        super().__init__()
        self.results = (action, log_prob, value)

    def act(self, *args: Any, **kwargs: Any) -> Any:
        return self.results

    def value(self, observation: Tensor) -> Tensor:
        return self.results[2]  # type: ignore[no-any-return]


NO, LAST = torch.zeros(2), torch.full((2,), 2)


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (Choosing(LAST * 0, NO, NO[:, None]), r"chooses \[0, 0\] on two boards of counting where 2 alone is legal"),
        (Choosing(LAST * 0 - 1, NO, NO[:, None]), r"chooses \[-1, -1\] on two boards of counting"),
        (Choosing(LAST.float(), NO, NO[:, None]), "action is float32, must be integers"),
        (Choosing(LAST, NO, NO), r"state_value is \[2\], must be \[2, 1\]"),
        (Choosing(LAST, NO[:1], NO[:, None]), r"action_log_prob is \[1\], must be \[2\]"),
        (Choosing(LAST, None, None), r"cannot choose on boards of counting \(AttributeError: 'NoneType' object has no"),
    ],
)
def test_a_policy_of_ones_own_must_find_the_one_legal_action(policy: Choosing, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^policy=Choosing: {fault}"):
        SelfPlayCollector(counting_game(), policy, mode="serial")


def test_a_torchrl_policy_with_too_few_logits_is_refused_and_a_valid_one_keeps_its_random_stream() -> None:
    check_policy(ActorCritic(TinyNetwork()).as_policy(), COUNTING)
    with pytest.raises(ConfigError, match=r"^policy=TensorDictModule: "):
        check_policy(ActorCritic(TinyNetwork(num_actions=2)).as_policy(), COUNTING)
    sampling = TensorDictModule(
        lambda observation, action_mask: (action_mask.float().multinomial(1)[:, 0], NO, NO[:, None]),
        in_keys=["observation", "action_mask"],
        out_keys=["action", "action_log_prob", "state_value"],
    )
    stream = torch.get_rng_state()
    check_policy(sampling, COUNTING)
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_policy_that_fits_is_taken() -> None:
    for network in (TinyNetwork(), VersionNetwork(), Busy()):
        check_policy(ActorCritic(network), COUNTING)
        PPOModule(ActorCritic(network), spec=COUNTING)
