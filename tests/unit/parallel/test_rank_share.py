"""Collectors of several learners (ranks), without processes: together they are one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.parallel.state.figures import Figure, combine, values_of
from keisei_lightning.parallel.state.rank_share import RankShare, joined_states, own_state

GAMES, PLIES = 4, 6


def collector_of(num_workers: int, rank: int = 0, num_ranks: int = 1, **options: Any) -> SelfPlayCollector:
    torch.manual_seed(0)
    game = game_factory("tic_tac_toe", opening_plies=2)
    collector = SelfPlayCollector(
        game,
        ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=8)),
        mode="serial",
        num_workers=num_workers,
        games_per_worker=GAMES,
        plies_per_rollout=PLIES,
        seed=3,
        **options,
    )
    collector.set_rank(rank, num_ranks)
    return collector


def ranks_of(number: int, num_workers: int, **options: Any) -> list[SelfPlayCollector]:
    return [collector_of(num_workers, rank, number, **options) for rank in range(number)]


def together(collectors: list[SelfPlayCollector], num_batches: int) -> list[TensorDictBase]:
    """Batches of all collectors, one's games after the other's."""
    iterators = [iter(collector) for collector in collectors]
    return [torch.cat([next(iterator) for iterator in iterators]) for _ in range(num_batches)]


def assert_same(batches: list[TensorDictBase], others: list[TensorDictBase]) -> None:
    for batch, other in zip(batches, others, strict=True):
        for key in batch.keys(True, True):
            assert torch.equal(batch[key], other[key]), key


def state_of(collectors: list[SelfPlayCollector]) -> dict[str, Any]:
    return joined_states([collector.state_dict() for collector in collectors])


def resume(collectors: list[SelfPlayCollector], state: dict[str, Any]) -> None:
    for rank, collector in enumerate(collectors):
        workers = collector.num_workers
        own = own_state(state, rank=rank, num_ranks=len(collectors), workers_per_rank=workers)
        collector.load_state_dict(own)


def test_two_ranks_play_the_very_games_of_one_with_as_many_workers() -> None:
    assert_same(together(ranks_of(2, 1), 4), together([collector_of(2)], 4))
    assert_same(together(ranks_of(2, 2), 3), together([collector_of(4)], 3))


@pytest.mark.parametrize(("before", "after"), [((2, 1), (1, 2)), ((1, 2), (2, 1)), ((2, 3), (3, 2))])
def test_another_number_of_ranks_with_as_many_workers_continues_the_very_games(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    whole = together([collector_of(before[0] * before[1])], 5)
    collectors, later = ranks_of(*before), ranks_of(*after)
    assert_same(together(collectors, 2), whole[:2])
    resume(later, state_of(collectors))
    assert_same(together(later, 3), whole[2:])


def test_counts_are_exact_over_any_numbers_of_ranks() -> None:
    collectors, batch = ranks_of(2, 1), GAMES * PLIES
    together(collectors, 3)
    games = sum(collector.games for collector in collectors)
    state = state_of(collectors)
    assert (state["plies"], state["games"]) == (3 * 2 * batch, games)
    one = [collector_of(1)]
    resume(one, state)
    together(one, 2)
    three = ranks_of(3, 1)
    resume(three, state_of(one))
    assert sum(collector.plies for collector in three) == (3 * 2 + 2) * batch
    together(three, 1)
    assert state_of(three)["plies"] == (3 * 2 + 2 + 3) * batch
    assert sum(collector.plies for collector in three) == (3 * 2 + 2 + 3) * batch


def test_no_stream_repeats_after_a_resume_with_fewer_ranks() -> None:
    collectors = ranks_of(2, 1)
    before = together(collectors, 3)
    one = [collector_of(1)]
    resume(one, state_of(collectors))
    after = together(one, 3)[0]
    assert not any(torch.equal(batch["action"][:GAMES], after["action"]) for batch in before)


def test_the_plies_of_all_ranks_end_a_collection() -> None:
    collectors = ranks_of(2, 1, total_frames=4 * GAMES * PLIES)
    assert [len(list(collector)) for collector in collectors] == [2, 2]


def test_each_rank_keeps_only_the_snapshots_that_its_own_games_need() -> None:
    collectors = ranks_of(2, 1, opponents=OpponentOptions(share=0.5))
    iterators = [iter(collector) for collector in collectors]
    for collector, iterator in zip(collectors, iterators, strict=True):
        collector.push_snapshot()
        next(iterator), next(iterator)
    state = state_of(collectors)["opponents"]
    assert set(state["in_flight"]) == {0, 1}
    assert dict(state["draws"]) == {0: 2, 1: 2}
    whole = state_of(collectors)
    for rank in (0, 1):
        own = own_state(whole, rank=rank, num_ranks=2, workers_per_rank=1)["opponents"]
        assert set(own["in_flight"]) == {rank}


def test_the_rank_is_set_before_the_start() -> None:
    collector = collector_of(1)
    next(iter(collector))
    collector.set_rank(0, 1)  # it is that already
    with pytest.raises(ConfigError, match=r"^rank=1: the workers have started; set the rank before the first batch$"):
        collector.set_rank(1, 2)


def test_a_share_counts_the_plies_of_all() -> None:
    share = RankShare.counting(1, 3, plies=100, own=20)
    assert [share.plies(own) for own in (20, 30)] == [100, 130]
    assert list(share.workers(4)) == [4, 5, 6, 7]


def test_figures_combine_by_what_they_are() -> None:
    one = {
        "plies": Figure("sum", 10),
        "lag": Figure("largest", 2),
        "length": Figure("mean", 30, 3),
        "outcome/draw": Figure("mean", 1, 3, beside="length"),
        "snapshots": Figure("same", 4),
    }
    other = {
        "plies": Figure("sum", 5),
        "lag": Figure("largest", 1),
        "length": Figure("mean", 7, 1),
        "outcome/mate": Figure("mean", 1, 1, beside="length"),
        "snapshots": Figure("same", 4),
    }
    assert values_of(combine([one, other])) == {
        "plies": 15,
        "lag": 2,
        "length": 37 / 4,
        "outcome/draw": 1 / 4,  # no game of the other was a draw
        "snapshots": 4,
        "outcome/mate": 1 / 4,
    }
    assert values_of(combine([one])) == values_of(one)
