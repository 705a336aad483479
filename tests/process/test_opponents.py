"""Games against snapshots: which policy moves, in which seat, and that no result is lost."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from collector_helpers import assert_same, collector_of
from fakes import CountingGame, TinyNetwork, VersionNetwork
from tensordict import TensorDictBase
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.rl.advantages import batch_advantages

pytestmark = pytest.mark.process

GAMES, PLIES = 8, 6


def pool_collector(policy: nn.Module | None = None, share: float = 0.5, **options: Any) -> SelfPlayCollector:
    pool = OpponentOptions(share=share, max_snapshots=3)
    return collector_of(
        policy, opponents=pool, **{"games_per_worker": GAMES, "plies_per_rollout": PLIES, "mode": "serial"} | options
    )


def run(collector: SelfPlayCollector, policy: nn.Module, num_batches: int) -> Iterator[TensorDictBase]:
    """Publish after each batch, and freeze every third version."""
    batches = iter(collector)
    for _ in range(num_batches):
        yield next(batches)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.01
        collector.update_policy_weights_()
        if collector.policy_version % 3 == 0:
            assert collector.push_snapshot()


def versioned(collector: SelfPlayCollector, policy: ActorCritic, num_batches: int) -> TensorDictBase:
    """All batches behind one another; the policy values every state at its version / 100."""
    return torch.cat(list(run(collector, policy, num_batches)), 1)


@pytest.mark.parametrize("mode", ["serial", "central"])
def test_only_the_learners_plies_are_trainable_and_one_snapshot_plays_the_others_of_a_game(mode: str) -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, mode=mode) as collector:
        batch = versioned(collector, policy, 30)
        pushed = {0.01 * version for version in range(3, 31, 3)}
    version = batch["collector", "policy_version"]
    value = batch["state_value"].squeeze(-1)
    trainable = batch["trainable"]
    assert torch.allclose(value[trainable], 0.01 * version[trainable])
    assert 0.15 < float((~trainable).float().mean()) < 0.3  # half of the games, half of their plies
    met = set()
    for trajectory in batch["collector", "traj_ids"].unique().tolist():
        mine = batch["collector", "traj_ids"] == trajectory
        theirs = mine & ~trainable
        if not theirs.any():
            continue
        values = value[theirs].unique()
        assert len(values) == 1  # one snapshot from the first ply to the last
        met.add(round(float(values), 4))
        assert len(batch["mover"][theirs].unique()) == 1  # in one seat
        assert set(batch["mover"][mine & trainable].tolist()) <= {1 - int(batch["mover"][theirs][0])}
    assert met <= {round(version, 4) for version in pushed}
    assert len(met) > 5


def test_the_learner_sits_in_each_seat_half_of_the_time() -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, share=1.0) as collector:
        batch = versioned(collector, policy, 40)
    seats: Counter[int] = Counter()
    for row in range(batch.shape[0]):
        trajectories = batch["collector", "traj_ids"][row].tolist()
        learners = {}
        for ply, trajectory in enumerate(trajectories):
            if not batch["trainable"][row, ply]:
                learners[trajectory] = 1 - int(batch["mover"][row, ply])
        order = list(learners.values())
        assert all(one != other for one, other in itertools.pairwise(order))
        seats.update(order)
    assert abs(seats[0] - seats[1]) <= batch.shape[0]


def test_a_share_of_the_boards_meets_snapshots_and_the_others_never() -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, share=0.25) as collector:
        batch = versioned(collector, policy, 20)
    boards = (~batch["trainable"]).any(1).reshape(-1, GAMES)
    assert boards.tolist() == [[True, True, *[False] * 6]] * len(boards)


@pytest.mark.parametrize(("groups", "met"), [(2, [0, 1, 4, 5]), (3, [0, 1, 3, 6]), (8, [1, 2, 5, 6])])
def test_groups_of_games_meet_snapshots_alike(groups: int, met: list[int]) -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, mode="central", groups_per_worker=groups) as collector:
        batch = versioned(collector, policy, 20)
    boards = (~batch["trainable"]).any(1).reshape(-1, GAMES)
    assert [row.nonzero().flatten().tolist() for row in boards] == [met] * len(boards)


POLICIES = pytest.mark.parametrize("as_policy", [False, True], ids=["ActorCritic", "TensorDictModule"])


def batches_of(mode: str, *, as_policy: bool, **options: Any) -> list[TensorDictBase]:
    torch.manual_seed(4)
    actor_critic = ActorCritic(TinyNetwork())
    policy = actor_critic.as_policy() if as_policy else actor_critic
    with pool_collector(policy, mode=mode, **options) as collector:
        batches = [batch.clone() for batch in run(collector, policy, 12)]
    assert not batches[-1]["trainable"].all()
    return batches


@POLICIES
def test_workers_give_the_same_bits_as_no_workers(as_policy: bool) -> None:
    assert_same(batches_of("serial", as_policy=as_policy), batches_of("workers", as_policy=as_policy))


@POLICIES
def test_an_inference_process_gives_the_same_bits_too(as_policy: bool) -> None:
    options = {"num_workers": 1, "groups_per_worker": 1}
    expected = batches_of("serial", as_policy=as_policy, num_workers=1)
    assert_same(expected, batches_of("central", as_policy=as_policy, **options))


def _slow_first_worker(num_games: int) -> CountingGame:
    """The rollout of the first worker arrives last."""
    is_first = multiprocessing.current_process().name.startswith("keisei-worker-0.")
    return CountingGame(num_games, before_step=lambda step: time.sleep(0.0003 if is_first else 0.0))


def test_prioritised_opponents_do_not_depend_on_which_workers_rollout_arrives_first() -> None:
    """Scores, and so draws, depend on the order of what they are given."""
    pool = OpponentOptions(share=1.0, max_snapshots=3, choice="prioritised")
    batches, standings = {}, {}
    for mode in ("serial", "workers"):
        torch.manual_seed(4)
        policy = ActorCritic(TinyNetwork())
        with collector_of(
            policy, game=_slow_first_worker, mode=mode, opponents=pool, games_per_worker=GAMES, plies_per_rollout=72
        ) as collector:
            batches[mode] = [batch.clone() for batch in run(collector, policy, 14)]
            standings[mode] = collector.snapshots
    assert standings["serial"] == standings["workers"]
    assert standings["serial"][0].games > 200  # then a score forgets
    assert_same(batches["serial"], batches["workers"])


def test_with_many_workers_and_groups_every_run_is_the_same() -> None:
    first, second = (batches_of("central", as_policy=False, num_workers=3) for _ in range(2))
    assert_same(first, second)


def test_the_pool_survives_a_resume_to_the_last_bit() -> None:
    game = game_factory("tic_tac_toe", opening_plies=1)

    def network() -> ActorCritic:
        return ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16))

    torch.manual_seed(4)
    policy = network()
    with pool_collector(policy, game=game) as collector:
        playing = run(collector, policy, 14)
        for _ in range(7):
            next(playing)
        weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        file = io.BytesIO()
        torch.save(collector.state_dict(), file)
        whole = [batch.clone() for batch in playing]
    file.seek(0)
    again = network()
    again.load_state_dict(weights)
    with pool_collector(again, game=game) as resumed:
        resumed.load_state_dict(torch.load(file, weights_only=True))
        resumed.start()  # so that the publish counts
        playing = run(resumed, again, 8)
        # The first run stopped after a batch and before what follows it.
        with torch.no_grad():
            for parameter in again.parameters():
                parameter += 0.01
        resumed.update_policy_weights_()
        rest = [next(playing).clone() for _ in range(7)]
        standings = resumed.snapshots
    assert_same(rest, whole)
    assert not all(batch["trainable"].all() for batch in rest)
    assert [snapshot.version for snapshot in standings] == [6, 9, 12]


@pytest.mark.parametrize("mode", ["workers", "central"])
def test_a_killed_worker_leaves_the_pool_as_it_is(mode: str) -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, mode=mode, max_restarts=50) as collector:
        for number, batch in enumerate(run(collector, policy, 24)):
            assert torch.isfinite(batch["state_value"]).all()
            theirs = ~batch["trainable"]
            versions = (100 * batch["state_value"].squeeze(-1)[theirs]).round().unique().tolist()
            assert all(version % 3 == 0 for version in versions)
            if number % 4 == 2:
                processes = collector.health()  # in central, the last one evaluates the positions
                os.kill(processes[number // 4 % len(processes)]["pid"], signal.SIGKILL)
        assert collector.stats()["restarts"] >= 5
        assert collector.stats()["snapshots"] == 3


def test_snapshots_are_bit_identical_after_a_thousand_publishes() -> None:
    torch.manual_seed(4)
    policy = ActorCritic(TinyNetwork())
    with pool_collector(policy) as collector:
        collector.push_snapshot()
        before = collector.state_dict()["opponents"]["weights"][0].clone()
        for _ in range(1000):
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter += 0.001
            collector.update_policy_weights_()
        next(iter(collector))
        assert torch.equal(collector.state_dict()["opponents"]["weights"][0], before)


def test_a_snapshots_opinion_of_its_own_position_changes_no_advantage() -> None:
    policy = ActorCritic(TinyNetwork())
    with pool_collector(policy, share=1.0) as collector:
        batch = list(run(collector, policy, 8))[-1].clone()
    advantage, _ = batch_advantages(batch, gamma=0.99, lmbda=0.9)
    theirs = ~batch["trainable"]
    assert theirs.any()
    batch["state_value"][theirs] += 7.0
    shifted = batch["next", "state_value"]
    followed = torch.zeros_like(theirs)
    followed[:, :-1] = theirs[:, 1:] & ~batch["next", "done"][:, :-1, 0]
    shifted[followed] += 7.0
    again, _ = batch_advantages(batch, gamma=0.99, lmbda=0.9)
    assert torch.allclose(advantage, again, atol=1e-5)


@pytest.mark.parametrize("mode", ["serial", "central"])
def test_results_against_snapshots_are_counted(mode: str) -> None:
    policy = ActorCritic(VersionNetwork())
    with pool_collector(policy, share=1.0, mode=mode) as collector:
        list(run(collector, policy, 30))
        stats, standings = collector.stats(), collector.snapshots
    assert sum(snapshot.games for snapshot in standings) > 20
    assert all(0.0 < snapshot.score < 1.0 for snapshot in standings if snapshot.games > 20)
    assert 0.2 < stats["snapshot_score_mean"] < 0.8  # both sides play evenly


def test_a_collector_without_a_pool_refuses_a_snapshot() -> None:
    with collector_of(mode="serial") as collector, pytest.raises(ConfigError, match="has no pool"):
        collector.push_snapshot()


def test_a_share_of_less_than_one_game_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"opponents.share=0.01: must be at least 0.125, one of games_per_worker=8 games"
    ):
        pool_collector(share=0.01)
