"""What learners (ranks) tell each other; that real ones do so is in ``tests/process/test_ddp.py``."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from thread_ranks import ThreadRank, on_ranks
from torch import nn
from training_fakes import FakeCollector

from keisei_lightning.errors import ConfigError, RankError
from keisei_lightning.launching import Phase, enter, present_phase
from keisei_lightning.system.stopping import Stopped
from keisei_lightning.training.ddp import RankPhases
from keisei_lightning.training.minibatches import add_advantages, add_advantages_of_all
from keisei_lightning.training.ranks import ALONE, broadcast_buffers, check_equal_weights, ranks_of


def test_one_learner_is_alone_and_hears_itself() -> None:
    assert ranks_of(None) is ALONE
    assert ranks_of(SimpleNamespace(world_size=1)) is ALONE  # type: ignore[arg-type]
    assert (ALONE.rank, ALONE.size, ALONE.collect("", lambda: 7), ALONE.collect_at_first(8)) == (0, 1, [7], [8])
    with pytest.raises(ValueError, match="on purpose"):
        ALONE.collect("", lambda: int("on purpose"))


def test_a_strategy_that_shards_the_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.strategy=object: must be ddp with 3 learners"):
        ranks_of(SimpleNamespace(world_size=3, strategy=object()))  # type: ignore[arg-type]


def test_a_rank_that_ends_after_an_error_is_still_named_with_what_failed() -> None:
    trainer, module = Trainer(accelerator="cpu", logger=False), LightningModule()
    enter(Phase.BACKWARD)
    try:
        RankPhases().on_exception(trainer, module, RuntimeError("timed out"))
        assert present_phase() is Phase.BACKWARD
        RankPhases().on_exception(trainer, module, Stopped(signal.SIGTERM))
        assert present_phase() is Phase.ENDING
    finally:
        enter(Phase.STARTING)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_bit_of_one_weight_makes_a_rank_another(dtype: torch.dtype) -> None:
    def check(ranks: ThreadRank, changed: int | None) -> str:
        module = nn.Linear(3, 2).to(dtype)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(0.5)
            if ranks.rank == changed:
                module.bias[1] = torch.nextafter(module.bias[1], torch.ones((), dtype=dtype))
        try:
            check_equal_weights(ranks, module)
        except RankError as error:
            return str(error)
        return ""

    assert on_ranks(3, lambda ranks: check(ranks, None)) == ["", "", ""]
    errors = on_ranks(3, lambda ranks: check(ranks, 2))
    assert all(error.startswith("rank 2: its weights differ from those of rank 0 (") for error in errors)


def test_every_rank_publishes_the_first_ones_buffers() -> None:
    def share(ranks: ThreadRank) -> list[float]:
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(float(ranks.rank) + 1.0)
        broadcast_buffers(ranks, norm)
        return norm.running_mean.tolist()

    assert on_ranks(2, share) == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.0, 0.5)])
def test_advantages_are_normalised_over_all_ranks(shares: tuple[float, float]) -> None:
    rollouts = [FakeCollector(trainable_share=share).rollout(rank) for rank, share in enumerate(shares)]
    options = {"gamma": 0.9, "lmbda": 0.8, "normalize": True}

    def own(ranks: ThreadRank) -> tuple[torch.Tensor, list[int]]:
        plies, _, counts = add_advantages_of_all(rollouts[ranks.rank], ranks, **options)  # type: ignore[arg-type]
        return plies["advantage"], counts

    whole, trainable = add_advantages(torch.cat(rollouts), **options)  # type: ignore[arg-type]
    parts = on_ranks(2, own)
    torch.testing.assert_close(torch.cat([advantage for advantage, _ in parts]), whole["advantage"])
    assert [counts for _, counts in parts] == 2 * [[int(32 * share) for share in shares]]
    assert len(trainable) == sum(int(32 * share) for share in shares)
    alone, rows, counts = add_advantages_of_all(rollouts[0], ALONE, **options)  # type: ignore[arg-type]
    expected, _ = add_advantages(rollouts[0], **options)  # type: ignore[arg-type]
    assert torch.equal(alone["advantage"], expected["advantage"])
    assert counts == [len(rows)]
