"""The learner's end, with a cluster of fakes whose answers a test makes up."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fake_cluster import Clock, FakeCalls, FakeCluster, report
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import RolloutError, TooFewWorkersError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.backend import WorkerInputs
from keisei_lightning.parallel.cluster.backend import ClusterBackend
from keisei_lightning.parallel.cluster.calls import AgentGoneError, AnswerLostError
from keisei_lightning.parallel.cluster.messages import Rollout
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.parallel.memory.slots import SlotLayout, Slots
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore
from keisei_lightning.parallel.opponents.memory import OpponentSetup
from keisei_lightning.parallel.opponents.pool import SnapshotPool
from keisei_lightning.parallel.options import ClusterOptions, OpponentOptions
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Failure, Opponent, Play, RolloutHeader
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState

AGENTS, WORKERS, GAMES, PLIES = 2, 2, 3, 4


class Learner:
    """A backend of two agents of two workers, and the weights that a test publishes."""

    def __init__(self, *, with_snapshots: bool = False, options: ClusterOptions | None = None, **policy: Any) -> None:
        torch.manual_seed(0)
        self.policy = ActorCritic(TinyNetwork())
        self.clock = Clock()
        nodes = [Node(node_id=str(number), name=f"host{number}", resources={"CPU": 2.0}) for number in range(AGENTS)]
        self.cluster = FakeCluster(self.clock, nodes)
        layout = SlotLayout.for_game(
            counting_game()(1).spec, num_slots=2, num_workers=AGENTS * WORKERS, num_games=GAMES, num_plies=PLIES
        )
        self.slots = Slots.reserve(layout)
        self.store = WeightStore(WeightLayout.of(self.policy), 0)
        self.pool = SnapshotPool(OpponentOptions(), self.store.memory.layout, 0) if with_snapshots else None
        inputs = WorkerInputs(
            game=counting_game(),
            policy=self.policy,
            options=PlayerOptions(
                device="cpu", precision="32-true", num_threads=1, seed=9, stagger_games=True, augment_symmetry=False
            ),
            slots=self.slots,
            weights=self.store.memory,
            opponents=None if self.pool is None else OpponentSetup(memory=self.pool.memory, share=0.5),
        )
        self.backend = ClusterBackend(
            inputs,
            cluster=self.cluster,
            options=options or ClusterOptions(num_agents=AGENTS),
            num_agents=AGENTS,
            needs={"CPU": 2.0},
            restart_policy=RestartPolicy(**{"heartbeat_s": 8.0, **policy}),
            start_method=None,
            needs_all=True,
        )
        self.publish(0)
        self.backend.start()

    def publish(self, version: int) -> None:
        self.store.publish(self.policy, version)
        self.backend.publish(self.store.latest, version)

    @property
    def agents(self) -> list[FakeCalls]:
        return self.cluster.started

    def tell(self, number: int, *rollouts: Rollout, **changes: Any) -> list[RolloutHeader]:
        self.agents[number].polls[-1].answer(report(rollouts=rollouts, **changes))
        return self.backend.wait(0.0)

    def end(self, number: int) -> None:
        self.agents[number].polls[-1].answer(AgentGoneError("was killed"))
        self.backend.wait(0.0)

    def close(self) -> None:
        self.backend.shutdown(1.0)
        self.slots.close()
        self.store.close()


@pytest.fixture
def learner() -> Any:
    made = Learner()
    yield made
    made.close()


def rollout(number: int, worker: int, *, slot: int = 0, value: int = 1, version: int = 0, **header: Any) -> Rollout:
    layout = SlotLayout.for_game(counting_game()(1).spec, num_slots=1, num_workers=1, num_games=GAMES, num_plies=PLIES)
    columns = layout.views(np.zeros(layout.num_bytes, np.uint8), 0, 0)
    columns["action"][:] = value
    columns["collector", "policy_version"][:] = version
    values = {"incarnation": 0, "sequence": number - 1, "policy_version": version, "plies": GAMES * PLIES, **header}
    return Rollout(sequence=number, header=RolloutHeader(worker_id=worker, slot=slot, **values), columns=columns)


def grants(calls: FakeCalls) -> list[tuple[int, int, int]]:
    return [(grant.worker, grant.play.slot, grant.version) for grant in calls.grants]


def worker_health(worker_id: int, **changes: Any) -> WorkerHealth:
    values: dict[str, Any] = {"name": f"worker {worker_id}", "state": WorkerState.RUNNING, "pid": 100 + worker_id}
    values |= {"incarnation": 0, "restarts": 0, "last_sign_of_life_s": 0.1, "policy_version": 3, "rss_bytes": 5}
    return WorkerHealth(worker_id=worker_id, **{**values, **changes})


def test_workers_of_all_agents_have_random_streams_of_their_own(learner: Learner) -> None:
    boots = [calls.boot for calls in learner.agents]
    assert [boot.options.first_worker for boot in boots] == [0, 2]
    assert {boot.options.plies_per_batch for boot in boots} == {AGENTS * WORKERS * GAMES * PLIES}
    assert {boot.slots.num_workers for boot in boots} == {WORKERS}
    assert {boot.beat_s for boot in boots} == {1.0}


def test_a_grant_goes_to_the_agent_of_its_worker_and_names_the_latest_version(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    learner.publish(1)
    learner.backend.grant(3, Play(slot=1))
    assert [grants(calls) for calls in learner.agents] == [[(0, 0, 0)], [(1, 1, 1)]]


def test_a_rollout_is_copied_into_the_slot_of_its_worker_and_granted_no_more(learner: Learner) -> None:
    for worker_id in range(4):
        learner.backend.grant(worker_id, Play(slot=0))
    headers = learner.tell(1, rollout(1, 0, value=5), rollout(2, 1, value=6, sequence=0))
    assert [(header.worker_id, header.slot) for header in headers] == [(2, 0), (3, 0)]
    actions = learner.slots.views(0)["action"].reshape(4, GAMES, PLIES)
    assert [set(actions[worker].ravel().tolist()) for worker in range(4)] == [{0}, {0}, {5}, {6}]
    assert learner.agents[1].polls[-1].argument == 2
    learner.end(1)
    assert learner.agents[2].grants == []
    assert learner.backend.lost_rollouts == 0


def test_a_rollout_that_comes_again_is_delivered_once(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    first = rollout(1, 0)
    assert len(learner.tell(0, first)) == 1
    assert learner.tell(0, first) == []
    assert learner.backend.duplicate_rollouts == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (rollout(2, 0), r"rollout 2 of agent 0 on host0 \(rollout 1 of worker 0\.0, slot 0\) is out of order"),
        (rollout(1, 0, sequence=1), r"is out of order; expected 1, 0"),
        (rollout(1, 0, slot=1), r"slot 1\) is out of order"),
        (rollout(1, 1), r"worker 1\.0, slot 0\) is out of order"),
    ],
    ids=["a gap", "a gap of the worker", "another slot", "another worker"],
)
def test_a_rollout_that_was_not_granted_or_leaves_a_gap_is_never_delivered(
    learner: Learner, wrong: Rollout, message: str
) -> None:
    learner.backend.grant(0, Play(slot=0))
    with pytest.raises(RuntimeError, match=message):
        learner.tell(0, wrong)


def test_a_rollout_of_two_versions_is_torn_and_never_delivered(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    torn = rollout(1, 0)
    torn.columns["collector", "policy_version"][-1, -1] = 1
    with pytest.raises(RolloutError, match=r"worker 0 is torn: its header names version 0, its plies \[0, 1\]"):
        learner.tell(0, torn)


def test_an_invalid_rollout_is_announced_and_not_copied(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    failure = Failure(kind="RolloutError", message="not finite", traceback="")
    (header,) = learner.tell(0, rollout(1, 0, value=8, failure=failure))
    assert header.failure == failure
    assert not learner.slots.views(0, 0)["action"].any()


def test_what_was_granted_to_an_agent_that_ends_is_counted_and_granted_to_the_next(learner: Learner) -> None:
    for worker_id, slot in ((0, 0), (0, 1), (1, 0), (2, 0)):
        learner.backend.grant(worker_id, Play(slot=slot))
    learner.tell(0, rollout(1, 0), workers=(worker_health(0), worker_health(1, incarnation=4)), lost_rollouts=3)
    assert learner.backend.lost_rollouts == 3
    learner.end(0)
    assert learner.backend.lost_rollouts == 3 + 2
    replacement = learner.agents[2]
    assert grants(replacement) == [(0, 1, 0), (1, 0, 0)]
    assert replacement.boot.first_incarnations == (1, 5)  # their random streams are new ones
    learner.tell(2, lost_rollouts=1)
    assert learner.backend.lost_rollouts == 3 + 2 + 1
    assert learner.backend.grant(1, Play(slot=1)) is None
    assert len(learner.tell(2, rollout(1, 1, incarnation=5, sequence=0))) == 1


def test_an_agent_fetches_one_version_at_a_time_and_only_the_newest(learner: Learner) -> None:
    first, second = learner.agents
    assert [call.argument.version for call in first.parcels] == [0]
    first.parcels[0].answer(True)
    learner.backend.wait(0.0)
    for version in (1, 2, 3):
        learner.publish(version)
    assert [call.argument.version for call in first.parcels] == [0, 1]
    first.parcels[1].answer(True)
    learner.backend.wait(0.0)
    assert [call.argument.version for call in first.parcels] == [0, 1, 3]
    assert [call.argument.version for call in second.parcels] == [0]
    second.parcels[0].answer(True)
    learner.backend.wait(0.0)
    assert [call.argument.version for call in second.parcels] == [0, 3]
    assert first.parcels[-1].argument.data == second.parcels[-1].argument.data
    assert len(learner.cluster.stored) == 3  # each version that anybody fetched, once


def test_weights_that_an_agent_could_not_fetch_are_put_anew_for_it_with_more_time(learner: Learner) -> None:
    first, second = learner.agents
    for answer in (False, False):
        first.parcels[-1].answer(answer)
        learner.backend.wait(0.0)
    second.parcels[0].answer(False)  # of the first copy: the newest one will do for its next try
    learner.backend.wait(0.0)
    tries = [call.argument for call in first.parcels]
    assert [(parcel.version, parcel.data, parcel.within_s) for parcel in tries] == [
        (0, 0, 2.0),
        (0, 1, 4.0),
        (0, 2, 8.0),
    ]
    assert second.parcels[-1].argument.data == 2
    for stored in learner.cluster.stored:
        assert torch.equal(torch.from_numpy(stored), learner.store.latest)
    first.parcels[-1].answer(True)
    learner.publish(1)
    learner.backend.wait(0.0)
    assert first.parcels[-1].argument.within_s == 8.0  # what it needed


def test_the_fifth_try_in_a_row_is_the_last(learner: Learner) -> None:
    calls = learner.agents[0]
    for version in range(7):
        learner.publish(version)
        calls.parcels[-1].answer(version in (0, 5))
        learner.backend.wait(0.0)
    assert [call.argument.is_last_try for call in calls.parcels] == [False] * 5 + [True] + [False] * 2


def test_weights_are_sent_again_although_the_answer_to_their_transfer_was_lost(learner: Learner) -> None:
    calls = learner.agents[0]
    calls.parcels[0].answer(AnswerLostError("the cable"))
    learner.backend.wait(0.0)
    assert len(calls.parcels) == 1
    learner.tell(0)  # it answers polls: so it may have lost them
    assert [call.argument.version for call in calls.parcels] == [0, 0]
    learner.publish(1)
    calls.parcels[1].answer(True)
    learner.backend.wait(0.0)
    assert [call.argument.version for call in calls.parcels] == [0, 0, 1]


def test_a_snapshot_that_an_agent_could_not_fetch_is_put_anew_unless_its_buffer_has_another() -> None:
    learner = Learner(with_snapshots=True)
    try:
        assert learner.pool is not None
        learner.pool.push(learner.policy, 4)
        learner.backend.grant(0, Play(slot=0, opponent=Opponent(version=4, buffer=0)))
        calls = learner.agents[0]
        calls.parcels[1].answer(False)
        learner.backend.wait(0.0)
        tried, again = (calls.parcels[number].argument for number in (1, 2))
        assert (again.version, again.buffer, again.within_s) == (4, 0, 4.0)
        assert again.data != tried.data
        assert (learner.cluster.stored[again.data] == learner.cluster.stored[tried.data]).all()
        layout = learner.store.memory.layout
        learner.pool.memory.write(0, layout.views(learner.store.latest), 9)
        calls.parcels[2].answer(False)
        learner.backend.wait(0.0)
        assert [call.argument.version for call in calls.parcels[1:]] == [4, 4]
    finally:
        learner.close()
        assert learner.pool is not None
        learner.pool.close()


def test_the_next_incarnation_gets_the_latest_weights(learner: Learner) -> None:
    learner.publish(7)
    learner.end(0)
    assert [call.argument.version for call in learner.agents[2].parcels] == [7]
    flat = torch.from_numpy(learner.cluster.stored[learner.agents[2].parcels[0].argument.data])
    assert torch.equal(flat, learner.store.latest)


def test_a_snapshot_is_sent_once_to_each_incarnation_before_the_grant_that_needs_it() -> None:
    learner = Learner(with_snapshots=True)
    try:
        assert learner.pool is not None
        learner.pool.push(learner.policy, 4)
        play = Play(slot=0, opponent=Opponent(version=4, buffer=0))
        for worker_id in (0, 1, 2):
            learner.backend.grant(worker_id, play)
        sent = [[call.argument for call in calls.parcels[1:]] for calls in learner.agents]
        assert [[(parcel.version, parcel.buffer) for parcel in parcels] for parcels in sent] == [[(4, 0)], [(4, 0)]]
        assert sent[0][0].data == sent[1][0].data
        learner.end(0)
        assert (4, 0) in [(call.argument.version, call.argument.buffer) for call in learner.agents[2].parcels]
    finally:
        learner.close()
        assert learner.pool is not None
        learner.pool.close()


def test_health_names_the_node_of_every_worker_and_lists_the_agents(learner: Learner) -> None:
    learner.tell(1, workers=(worker_health(0), worker_health(1)), version=3)
    health = learner.backend.health()
    assert [entry.name for entry in health] == [*(f"worker {number}" for number in range(4)), "agent 0", "agent 1"]
    assert [entry.worker_id for entry in health] == list(range(6))
    assert [entry.node for entry in health] == ["host0", "host0", "host1", "host1", "host0", "host1"]
    assert [entry.pid for entry in health] == [None, None, 100, 101, None, 7]
    assert [entry.policy_version for entry in health] == [None, None, 3, 3, None, 3]
    assert [entry.state.value for entry in health] == [
        "starting",
        "starting",
        "running",
        "running",
        "starting",
        "running",
    ]


def test_with_fewer_workers_than_required_the_training_ends() -> None:
    learner = Learner(min_healthy_workers=3)
    try:
        with pytest.raises(TooFewWorkersError, match=r"agent 0 on host0 was lost; 2 of 4 workers are left"):
            learner.end(0)
    finally:
        learner.close()


def test_games_are_reset_in_the_agents_of_these_workers(learner: Learner) -> None:
    learner.backend.reset_games([1, 2, 3])
    assert [calls.resets for calls in learner.agents] == [[(1,)], [(0, 1)]]


def test_shutdown_ends_the_agents_and_leaves_the_cluster(learner: Learner) -> None:
    learner.backend.shutdown(1.0)
    assert [calls.killed for calls in learner.agents] == [1, 1]
    assert learner.cluster.connected == 0
    assert {entry.state for entry in learner.backend.health()} == {WorkerState.DEAD}


def test_the_answers_of_two_agents_are_delivered_together(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    learner.backend.grant(2, Play(slot=0))
    learner.agents[0].polls[-1].answer(report(rollouts=(rollout(1, 0),)))
    learner.agents[1].polls[-1].answer(report(rollouts=(rollout(1, 0),)))
    assert [header.worker_id for header in learner.backend.wait(1.0)] == [0, 2]


def test_an_interrupted_wait_loses_no_rollout(learner: Learner) -> None:
    learner.backend.grant(0, Play(slot=0))
    learner.backend.grant(2, Play(slot=0))
    learner.agents[0].polls[-1].answer(report(rollouts=(rollout(1, 0),)))
    learner.agents[1].polls[-1].answer(KeyboardInterrupt())
    learner.agents[1].polls[-1].answers = [dataclasses.replace(report(), rollouts=(rollout(1, 0),))]
    original = learner.cluster.result

    def interrupted(call: Any) -> Any:
        if call is learner.agents[1].polls[-1]:
            raise KeyboardInterrupt
        return original(call)

    learner.cluster.result = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        learner.backend.wait(1.0)
    learner.cluster.result = original  # type: ignore[method-assign]
    assert [header.worker_id for header in learner.backend.wait(0.0)] == [0]
    assert [header.worker_id for header in learner.backend.wait(0.0)] == [2]


def test_what_may_have_been_lost_on_the_way_is_sent_again_when_the_agent_answers() -> None:
    learner = Learner(with_snapshots=True)
    try:
        assert learner.pool is not None
        learner.pool.push(learner.policy, 0)
        plays = [Play(slot=0), Play(slot=1, opponent=Opponent(version=0, buffer=0))]
        for play in plays:
            learner.backend.grant(0, play)
        learner.backend.grant(2, Play(slot=0))
        agent, other = learner.agents
        parcels = [call.argument for call in agent.parcels]
        grants, others = list(agent.grants), list(other.grants)
        assert [grant.play for grant in grants] == plays
        agent.parcels[0].answer(AnswerLostError("connection reset"))
        learner.backend.wait(0.0)
        learner.tell(0)
        assert [call.argument for call in agent.parcels[len(parcels) :]] == parcels
        assert agent.grants == [*grants, *grants]
        assert other.grants == others
        assert len({grant.number for grant in [*grants, *others]}) == 3
    finally:
        learner.close()
