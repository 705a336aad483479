"""Learning from searches beside PPO: what is kept of a search, its loss by hand, and when a training searches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import COUNTING_GOAL, TinyNetwork, counting_game
from tensordict import TensorDict
from thread_ranks import on_ranks
from training_fakes import SPEC, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel.collector import SelfPlayCollector
from keisei_lightning.search import Found, Roots, TreeSearch
from keisei_lightning.training import PPOModule, SearchTargets, SelfPlayDataModule, SelfPlayMetrics, WeightSyncCallback
from keisei_lightning.training import search_targets as searching
from keisei_lightning.training.options import SearchTargetOptions
from keisei_lightning.training.random_state import random_state
from keisei_lightning.training.search_loss import PLIES, SEARCHED, SearchMeter, joined_minibatch, search_losses
from keisei_lightning.training.search_window import SearchWindow

CPU = torch.device("cpu")


def found_of(actions: list[int], policy: list[float], value: float) -> Found:
    return Found(
        action=actions[0],
        value=value,
        actions=np.array(actions),
        visits=np.ones(len(actions), np.int64),
        values=np.zeros(len(actions)),
        priors=np.array(policy),
        policy=np.array(policy),
        variations=((actions[0],),),
        result=None,
    )


def positions(*legal: list[int], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observations that are numbers, and legal moves of the game with three actions."""
    observation = np.arange(first, first + len(legal), dtype=np.uint8)[:, None].repeat(4, axis=1)
    bits = np.array([[action in row for action in range(3)] for row in legal])
    return observation, np.packbits(bits, axis=1)


def searched(legal: list[list[int]], policy: list[list[float]], value: list[float]) -> TensorDict:
    columns = {"policy": torch.tensor(policy), "value": torch.tensor(value)[:, None]}
    columns["action_mask"] = torch.from_numpy(positions(*legal)[1])
    return TensorDict(columns, batch_size=len(value))


# ---- the loss


def test_the_loss_is_the_cross_entropy_and_the_squared_distance_worked_out_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 50.0], [1.0, 1.0, 1.0]])
    value = torch.tensor([[0.5], [-1.0]])
    losses = search_losses(
        logits, value, searched([[0, 1], [0, 1, 2]], [[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], [1.0, 0.0])
    )
    of_the_first = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))  # the third move is not legal
    assert float(losses.policy) == pytest.approx((of_the_first + math.log(3.0)) / 2)
    assert float(losses.value) == pytest.approx((0.25 + 1.0) / 2)
    assert float(losses.agreement) == 1.0  # of equal ones the first


def test_its_gradients_are_the_differences_of_the_probabilities_and_of_the_values() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), -2.0], [0.5, -0.5, 1.5]], requires_grad=True)
    value = torch.tensor([[0.5], [-1.0]], requires_grad=True)
    target = [[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]
    losses = search_losses(logits, value, searched([[0, 1], [0, 1, 2]], target, [1.0, 0.25]))
    minibatch = joined_minibatch(
        TensorDict({}, batch_size=0), TensorDict({"value": value.detach()}, batch_size=2), policy_coeff=3.0,
        value_coeff=0.5,
    )  # fmt: skip
    losses.total(minibatch).backward()
    own = torch.stack([torch.tensor([0.25, 0.75, 0.0]), torch.tensor([0.5, -0.5, 1.5]).softmax(0)])
    assert logits.grad is not None
    assert value.grad is not None
    torch.testing.assert_close(logits.grad, 3.0 * (own - torch.tensor(target)) / 2)
    torch.testing.assert_close(value.grad, 0.5 * 2.0 * torch.tensor([[-0.5], [-1.25]]) / 2)
    assert logits.grad[0, 2] == 0.0


def test_an_illegal_move_with_a_huge_logit_leaves_the_loss_finite() -> None:
    logits = torch.tensor([[1e30, 0.0, 0.0]], requires_grad=True)
    losses = search_losses(logits, torch.zeros(1, 1), searched([[1, 2]], [[0.0, 1.0, 0.0]], [0.0]))
    losses.policy.backward()
    assert losses.policy.item() == pytest.approx(math.log(2.0))
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, -0.5, 0.5]]


def test_the_metrics_are_means_over_the_minibatches_of_all_ranks_also_after_a_checkpoint() -> None:
    def work(rank: Any) -> tuple[dict[str, float], dict[str, float]]:
        meter = SearchMeter(CPU)
        for target in [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]][: 1 + rank.rank]:
            logits = torch.tensor([[2.0, 0.0, 0.0]])
            meter.add(search_losses(logits, torch.full((1, 1), rank.rank), searched([[0, 1, 2]], [target], [0.0])))
        state = meter.joined_state(rank)
        restored = SearchMeter.of_rank(rank.collect("telling", lambda: state)[0], CPU, rank.rank)
        return meter.compute(rank), restored.compute(rank)

    normal = math.log(math.exp(2.0) + 2.0)
    expected = {
        "search_policy_loss": (2 * (normal - 2.0) + normal) / 3,
        "search_value_loss": 2 / 3,
        "search_agreement": 2 / 3,
    }
    for metrics, restored in on_ranks(2, work):
        assert metrics == pytest.approx(expected)
        assert restored == pytest.approx(expected)
    assert SearchMeter(CPU).compute() == {}


# ---- what is kept


def test_a_position_is_kept_with_the_policy_by_its_labels() -> None:
    window = SearchWindow(SPEC, 10)
    window.add(*positions([0, 2], [1]), [found_of([2, 0], [0.75, 0.25], 0.5), found_of([1], [1.0], -1.0)])
    taken = window.take(np.array([1, 0, 0]), CPU)
    assert taken["observation"][:, 0].tolist() == [1, 0, 0]
    assert taken["policy"].tolist() == [[0.0, 1.0, 0.0], [0.25, 0.0, 0.75], [0.25, 0.0, 0.75]]
    assert taken["value"].tolist() == [[-1.0], [0.5], [0.5]]
    assert taken["action_mask"].tolist() == [[0b01000000], [0b10100000], [0b10100000]]


def test_the_oldest_positions_make_room_for_new_ones() -> None:
    window = SearchWindow(SPEC, 3)
    for number in range(5):
        window.add(*positions([0, 1], first=number), [found_of([0, 1], [number / 10, 1 - number / 10], number / 10)])
    taken = window.take(np.arange(len(window)), CPU)
    assert taken["observation"][:, 0].tolist() == [2, 3, 4]
    assert taken["policy"][:, 0].tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert taken["value"][:, 0].tolist() == pytest.approx([0.2, 0.3, 0.4])


@pytest.mark.parametrize(("size", "kept"), [(3, [0, 1, 2]), (2, [1, 2])])
def test_what_is_kept_comes_back_from_a_checkpoint(size: int, kept: list[int]) -> None:
    window, other = SearchWindow(SPEC, 3), SearchWindow(SPEC, size)
    found = [found_of([0, 1], [0.5, 0.5], 0.0), found_of([2], [1.0], 1.0), found_of([0, 1, 2], [0.2, 0.3, 0.5], -1.0)]
    window.add(*positions([0, 1], [2], [0, 1, 2]), found)
    other.load_state_dict(window.state_dict())
    for key, column in other.take(np.arange(len(other)), CPU).items():
        assert torch.equal(column, window.take(np.array(kept), CPU)[key]), key
    other.load_state_dict(SearchWindow(SPEC, 3).state_dict())
    assert len(other) == 0


# ---- the games


class RecordedSearch(TreeSearch):
    """Keeps what it was asked and what it found."""

    runs: list[tuple[Roots, list[Found]]] = []  # noqa: RUF012 - of all searches of a test

    def run(self, roots: Roots) -> list[Found]:
        found = super().run(roots)
        self.runs.append((roots, found))
        return found


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Roots, list[Found]]]:
    monkeypatch.setattr(RecordedSearch, "runs", [])
    monkeypatch.setattr(searching, "TreeSearch", RecordedSearch)
    return RecordedSearch.runs


def all_of(targets: SearchTargets) -> TensorDict:
    window = targets._window
    assert window is not None
    return window.take(np.arange(len(window)), CPU)


def test_the_targets_are_what_the_searches_found_of_the_positions_they_were_asked_for(
    runs: list[tuple[Roots, list[Found]]],
) -> None:
    torch.manual_seed(0)
    game = game_factory("tic_tac_toe")
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16))
    targets = SearchTargets(game, games=4, simulations=12, share=0.5)
    targets.play(policy, iteration=1, plies=100)  # half of 100, in whole plies of four games
    assert len(runs) == 12
    assert targets.stats()["searched_positions"] == targets.stats()["search_window"] == 48
    found = [each for _, some in runs for each in some]
    taken = all_of(targets)
    assert np.array_equal(taken["observation"].numpy(), np.concatenate([roots.observation for roots, _ in runs]))
    assert np.array_equal(taken["action_mask"].numpy(), np.concatenate([roots.legal for roots, _ in runs]))
    assert taken["value"][:, 0].tolist() == [np.float32(each.value) for each in found]
    for policy_row, each in zip(taken["policy"].numpy(), found, strict=True):
        expected = np.zeros(9, np.float32)
        expected[each.actions] = each.policy
        assert np.array_equal(policy_row, expected)


def test_of_a_game_that_searches_solve_the_exact_values_and_winning_moves_are_learned() -> None:
    targets = SearchTargets(counting_game(), games=8, simulations=3000, share=1.0)
    targets.play(ActorCritic(TinyNetwork()), iteration=1, plies=48)
    taken = all_of(targets)
    left = COUNTING_GOAL - taken["observation"][:, 0, 0, 0].long()
    assert len(set(left.tolist())) > 4
    # Who is to move with a multiple of four left has lost; else the win is to leave one.
    assert taken["value"][:, 0].tolist() == [-1.0 if count % 4 == 0 else 1.0 for count in left.tolist()]
    winning = [(row, count % 4 - 1) for row, count in enumerate(left.tolist()) if count % 4]
    assert all(taken["policy"][row, action] > 0.99 for row, action in winning)


def test_the_same_seed_searches_the_same_and_another_rank_something_else() -> None:
    torch.manual_seed(0)
    game = game_factory("tic_tac_toe")
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16))

    def played(rank: int) -> TensorDict:
        targets = SearchTargets(game, games=8, simulations=8, seed=3)
        for iteration in (1, 2):
            targets.play(policy, iteration=iteration, plies=500, rank=rank)
        return all_of(targets)

    first, again, other = played(0), played(0), played(1)
    assert all(torch.equal(column, again[key]) for key, column in first.items())
    assert not torch.equal(first["observation"], other["observation"])


def test_searching_draws_nothing_from_the_global_random_streams() -> None:
    policy = ActorCritic(TinyNetwork())
    before = random_state()
    SearchTargets(counting_game(), games=4).play(policy, iteration=1, plies=100)
    after = random_state()
    assert torch.equal(after.pop("torch"), before.pop("torch"))
    assert after == before


# ---- a training


class KeptMinibatches(PPOModule):
    """Keeps its minibatches."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.minibatches: list[TensorDict] = []

    def training_step(self, minibatch: Any, batch_idx: int) -> torch.Tensor:
        self.minibatches.append(minibatch.clone())
        return super().training_step(minibatch, batch_idx)


def trained(tmp_path: Path, targets: SearchTargets | None, *, epochs: int = 3) -> tuple[KeptMinibatches, Any]:
    torch.manual_seed(5)
    policy = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(
        counting_game(), policy, mode="serial", games_per_worker=8, plies_per_rollout=16, seed=3
    )
    module = KeptMinibatches(policy, learning_rate=0.05)
    rows: list[dict[str, float]] = []

    class Rows(SelfPlayMetrics):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            rows.append(dict(self.latest))

    trainer = quiet_trainer(tmp_path, max_epochs=epochs, callbacks=[WeightSyncCallback(), Rows()])
    data = SelfPlayDataModule(collector, minibatch_size=32, num_epochs=2, seed=1, search_targets=targets)
    trainer.fit(module, datamodule=data)
    return module, (rows, {name: float(value) for name, value in trainer.callback_metrics.items()}, data)


def weights(module: PPOModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_what_is_not_enabled_changes_no_bit_and_searches_nothing(tmp_path: Path) -> None:
    plain, (_, plain_metrics, plain_data) = trained(tmp_path, None)
    off = SearchTargets(counting_game(), SearchTargetOptions())
    module, (rows, metrics, data) = trained(tmp_path, off)
    assert torch.equal(weights(module), weights(plain))
    assert metrics.keys() == plain_metrics.keys()
    assert data.state_dict().keys() == plain_data.state_dict().keys() == {"iteration", "collector", "rollout"}
    assert data.hparams == plain_data.hparams
    assert off.is_empty
    assert "search_s" not in rows[-1]


def test_with_weights_of_zero_what_ppo_alone_learns_is_learned(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path, None)
    module, _ = trained(tmp_path, SearchTargets(counting_game(), games=4, policy_coeff=0.0, value_coeff=0.0))
    assert torch.equal(weights(module), weights(plain))
    for ours, theirs in zip(module.minibatches, plain.minibatches, strict=True):
        for key, column in theirs.items():
            assert torch.equal(ours[PLIES, key], column), key
        assert len(ours[SEARCHED]) == 64


def test_the_searches_begin_after_their_part_of_the_training(tmp_path: Path) -> None:
    targets = SearchTargets(counting_game(), games=4, simulations=8, share=0.25, from_fraction=0.5, minibatch_size=5)
    module, (rows, metrics, _) = trained(tmp_path, targets, epochs=4)
    assert [row["searched_positions"] for row in rows] == [0, 0, 32, 32]
    assert [row["search_window"] for row in rows] == [0, 0, 32, 64]
    assert [row["search_s"] > 0 for row in rows] == [False, False, True, True]
    assert [PLIES in minibatch.keys() for minibatch in module.minibatches] == 16 * [False] + 16 * [True]  # noqa: SIM118
    assert [len(minibatch[SEARCHED]) for minibatch in module.minibatches[16:]] == 16 * [5]
    assert {"train/search_policy_loss", "train/search_value_loss", "train/search_agreement"} <= metrics.keys()
    assert 0.0 <= metrics["train/search_agreement"] <= 1.0


def test_the_policy_comes_to_agree_with_the_searches(tmp_path: Path) -> None:
    losses = []
    for policy_coeff in (0.0, 3.0):
        targets = SearchTargets(counting_game(), games=8, simulations=32, share=0.25, policy_coeff=policy_coeff)
        _, (_, metrics, _) = trained(tmp_path, targets, epochs=5)
        losses.append(metrics["train/search_policy_loss"])
    assert losses[1] < losses[0] - 0.05  # a network of few weights, and the targets are not those of one policy


def test_a_value_out_of_its_bounds_and_a_misspelt_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"share=0: must be a number, more than 0"):
        SearchTargets(counting_game(), share=0.0)
    with pytest.raises(ConfigError, match=r"from_fraction=1: must be a number, 0 or more and less than 1"):
        SearchTargets(counting_game(), from_fraction=1.0)
    with pytest.raises(TypeError, match="shares"):
        SearchTargets(counting_game(), shares=0.5)


def test_searches_of_another_game_are_refused_before_anything_is_played(tmp_path: Path) -> None:
    targets = SearchTargets(game_factory("tic_tac_toe"), games=4)
    with pytest.raises(ConfigError, match="search_targets: search tic_tac_toe; must search counting"):
        trained(tmp_path, targets)
    assert targets.is_empty
