"""A compiled network is asked for one number of boards only, and says what the network itself says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from keisei_lightning.config.schemas import SECTIONS
from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.models.compiling import FixedBatches, check_compile_mode, compile_for_batches
from keisei_lightning.system.compile_modes import COMPILE_MODES


class ReusesItsMemory:
    """An evaluator that writes every result to the same memory, as a CUDA graph does; it takes four positions."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._logits, self._value = torch.zeros(4, 3), torch.zeros(4, 1)

    def __call__(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(observation))
        self._logits.copy_(observation[:, :1].float() + torch.arange(3))
        self._value.copy_(observation[:, :1].float() / 10)
        return self._logits, self._value


@pytest.mark.parametrize(("num_boards", "passes"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (11, 3)])
def test_any_number_of_boards_is_evaluated_in_passes_of_one_size(num_boards: int, passes: int) -> None:
    evaluator = ReusesItsMemory()
    observation = torch.arange(1, num_boards + 1, dtype=torch.uint8).unsqueeze(1)
    logits, value = FixedBatches(evaluator, 4)(observation)
    assert evaluator.asked == [4] * passes
    torch.testing.assert_close(value, observation / 10)
    torch.testing.assert_close(logits, observation.float() + torch.arange(3))


def test_the_modes_are_those_that_the_configuration_allows() -> None:
    choices = [
        each.choices for section in ("ppo", "parallel") for each in SECTIONS[section] if each.name == "compile_mode"
    ]
    assert choices == [COMPILE_MODES, COMPILE_MODES]


def test_a_mode_that_does_not_exist_and_a_policy_without_a_network_are_refused() -> None:
    assert check_compile_mode("compile_mode", None, nn.Identity()) == []
    assert check_compile_mode("compile_mode", "default", ActorCritic(nn.Identity())) == []
    assert check_compile_mode("compile_mode", "fast") == [
        "compile_mode=fast: must be None or one of default, reduce-overhead, max-autotune, max-autotune-no-cudagraphs"
    ]
    (fault,) = check_compile_mode("compile_mode", "default", nn.Identity())
    assert fault.startswith("compile_mode=default: must be None for a policy without a module 'network'")


@pytest.mark.slow
def test_what_cannot_be_compiled_is_refused_with_the_reason() -> None:
    def fail() -> None:
        raise RuntimeError("no compiler here")

    with pytest.raises(ConfigError, match=r"compile_mode=default: the network could not be compiled: no compiler here"):
        compile_for_batches(ActorCritic(nn.Identity()), mode="default", batch_size=2, warm_up=fail)
