"""When the inference process answers whom: every rule with hand-written workers, weights and policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keisei_lightning.parallel.central.inference import InferenceScheduler
from keisei_lightning.parallel.central.mailbox import Kind, Token
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult, Pending, PolicyServer
from keisei_lightning.parallel.supervision.messages import BeginRound, WorkerGone


@dataclass
class Box:
    """Notes what is answered."""

    versions: dict[int, int] = field(default_factory=dict)
    batches: list[tuple[int, str, list[int]]] = field(default_factory=list)

    def grant_version(self, token: Token, version: int) -> None:
        self.versions[token.worker_id] = version

    def seed_of(self, worker_id: int, group: int) -> int:
        return 10 * worker_id + group

    def question(self, tokens: Sequence[Token]) -> InferenceRequest:
        return InferenceRequest(np.zeros((len(tokens), 1), np.uint8))

    def answer(self, tokens: Sequence[Token], answer: InferenceResult) -> None:
        kind = Kind(tokens[0].kind).name
        self.batches.append((tokens[0].group, kind, [token.worker_id for token in tokens]))


@dataclass
class Weights:
    version: int = -1
    latest: int = 0
    verified: int = 0

    def adopt(self) -> int:
        self.version = self.latest
        return self.version

    def verify(self) -> None:
        self.verified += 1

    def is_latest(self) -> bool:
        return self.version == self.latest


@dataclass
class Moves(PolicyServer):
    seeds: list[int] = field(default_factory=list)

    def begin_rollout(self, seed: int) -> None:
        self.seeds.append(seed)

    def answer(self, question: InferenceRequest) -> InferenceResult:
        nothing: Any = np.zeros(0)
        return InferenceResult(nothing, nothing, nothing)


class Scene:
    def __init__(self, num_groups: int = 1, *, waits_for_round: bool = False) -> None:
        self.box, self.weights = Box(), Weights()
        self.moves = [Moves() for _ in range(num_groups)]
        self.desk = InferenceScheduler(
            self.box,  # type: ignore[arg-type]
            self.weights,
            self.moves,
            waits_for_round=waits_for_round,
        )

    def say(self, worker_id: int, kind: Kind, group: int = 0, incarnation: int = 0) -> None:
        self.desk.hear_worker(Token(1, incarnation, 1, worker_id, group, kind))
        self.desk.serve()

    def begin(self, *workers: int) -> None:
        for worker_id in workers:
            self.say(worker_id, Kind.BEGIN)


def test_nobody_begins_a_round_before_all_have_asked() -> None:
    scene = Scene()
    scene.desk.hear_learner(BeginRound(workers=(0, 1)))
    scene.begin(0)
    assert scene.box.versions == {}
    scene.begin(1)
    assert scene.box.versions == {0: 0, 1: 0}


def test_the_first_round_waits_for_the_learners_word() -> None:
    scene = Scene(waits_for_round=True)
    scene.begin(0, 1)
    assert scene.box.versions == {}
    scene.desk.hear_learner(BeginRound(workers=(0, 1)))
    scene.desk.serve()
    assert scene.box.versions == {0: 0, 1: 0}


def test_a_worker_that_died_is_not_waited_for() -> None:
    scene = Scene()
    scene.desk.hear_learner(BeginRound(workers=(0, 1)))
    scene.begin(0)
    scene.desk.hear_learner(WorkerGone(worker_id=1, incarnation=0))
    scene.desk.serve()
    assert scene.box.versions == {0: 0}
    scene.say(0, Kind.ACT)
    assert scene.box.batches == [(0, "ACT", [0])]


def test_a_group_is_answered_when_every_worker_that_plays_it_has_asked() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.say(0, Kind.ACT, 0)
    scene.say(0, Kind.ACT, 1)
    assert scene.box.batches == []
    scene.say(1, Kind.ACT, 1)
    assert scene.box.batches == [(1, "ACT", [0, 1])]
    scene.say(1, Kind.LEAVE, 0)  # it has nothing more to ask there
    assert scene.box.batches[1:] == [(0, "ACT", [0])]


def test_values_and_moves_are_asked_for_apart_and_the_stream_begins_once_a_round() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.say(1, Kind.VALUE, 1)
    scene.say(0, Kind.ACT, 1)
    assert scene.box.batches == [(1, "ACT", [0]), (1, "VALUE", [1])]
    scene.say(0, Kind.ACT, 1)
    scene.say(1, Kind.ACT, 1)
    assert [moves.seeds for moves in scene.moves] == [[], [1]]  # of worker 0, group 1


def test_new_weights_are_taken_over_only_when_nobody_plays() -> None:
    scene = Scene()
    scene.begin(0)
    scene.weights.latest = 5
    scene.begin(1)
    assert scene.box.versions == {0: 0}
    scene.say(0, Kind.ACT)  # it is answered, though another waits
    assert scene.box.batches == [(0, "ACT", [0])]
    scene.say(0, Kind.LEAVE)
    assert scene.box.versions == {0: 0, 1: 5}
    assert scene.weights.verified == 1


def test_a_worker_joins_those_that_play_the_latest_version() -> None:
    scene = Scene()
    scene.begin(0)
    scene.say(0, Kind.ACT)
    scene.begin(1)
    assert scene.box.versions == {0: 0, 1: 0}
    scene.say(0, Kind.ACT)
    assert len(scene.box.batches) == 1  # the two play in step from now on
    scene.say(1, Kind.ACT)
    assert scene.box.batches[1:] == [(0, "ACT", [0, 1])]


def test_what_a_dead_worker_asked_is_forgotten_and_its_death_ends_no_later_life() -> None:
    scene = Scene()
    scene.begin(0, 1)
    scene.say(0, Kind.ACT)
    scene.say(0, Kind.BEGIN, incarnation=1)  # heard before the news of the death
    scene.desk.hear_learner(WorkerGone(worker_id=0, incarnation=0))
    scene.say(0, Kind.ACT, incarnation=0)  # left in the pipe
    scene.say(1, Kind.ACT)
    assert scene.box.batches == []  # the later life plays too, and has asked nothing yet
    scene.say(0, Kind.ACT, incarnation=1)
    assert scene.box.batches == [(0, "ACT", [0, 1])]


def test_who_is_silent_while_others_wait_is_left_out_until_it_speaks_again() -> None:
    scene = Scene()
    scene.begin(0, 1, 2)
    scene.say(0, Kind.ACT)
    scene.say(2, Kind.ACT)
    assert scene.box.batches == []
    scene.desk.leave_out_the_silent()
    scene.desk.serve()
    assert scene.box.batches == [(0, "ACT", [0, 2])]
    scene.say(2, Kind.ACT)
    scene.say(0, Kind.ACT)  # nobody waits a second time
    assert scene.box.batches[1:] == [(0, "ACT", [0, 2])]
    scene.say(1, Kind.ACT)  # it was slow, not dead: it is waited for from now on
    scene.say(0, Kind.ACT)
    assert len(scene.box.batches) == 2
    scene.say(2, Kind.ACT)
    assert scene.box.batches[2:] == [(0, "ACT", [0, 1, 2])]


def test_the_silent_keep_their_version_and_hold_up_nobody_who_begins_with_the_same() -> None:
    scene = Scene()
    scene.begin(0, 1)
    scene.say(0, Kind.ACT)
    scene.desk.leave_out_the_silent()
    scene.desk.serve()
    scene.say(0, Kind.LEAVE)
    scene.begin(0)
    assert scene.box.versions == {0: 0, 1: 0}
    scene.say(0, Kind.LEAVE)
    scene.weights.latest = 1
    scene.begin(0)
    assert scene.weights.version == 0  # worker 1 may be in the middle of a rollout of version 0
    scene.desk.hear_learner(WorkerGone(worker_id=1, incarnation=0))
    scene.desk.serve()
    assert scene.box.versions == {0: 1, 1: 0}


def test_nobody_is_left_out_where_nobody_waits() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.desk.leave_out_the_silent()
    scene.say(0, Kind.ACT, 1)
    assert scene.box.batches == []
    scene.say(1, Kind.ACT, 1)
    assert scene.box.batches == [(1, "ACT", [0, 1])]


def test_all_that_was_asked_before_the_silence_is_answered_in_every_group() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.say(0, Kind.ACT, 0)  # the last that is heard of worker 0
    scene.say(1, Kind.ACT, 1)
    assert scene.box.batches == []
    scene.desk.leave_out_the_silent()
    scene.desk.serve()
    assert scene.box.batches == [(0, "ACT", [0]), (1, "ACT", [1])]
    scene.say(1, Kind.ACT, 0)
    scene.say(1, Kind.ACT, 1)
    assert scene.box.batches[2:] == [(0, "ACT", [1]), (1, "ACT", [1])]


@dataclass
class Later(Pending):
    """An answer that is there when the test says so."""

    done: bool = False

    def is_done(self) -> bool:
        return self.done

    def result(self) -> InferenceResult:
        assert self.done, "somebody waits for a device"
        nothing: Any = np.zeros(0)
        return InferenceResult(nothing, nothing, nothing)


@dataclass
class Device(Moves):
    """Answers later."""

    pending: list[Later] = field(default_factory=list)

    def submit(self, question: InferenceRequest) -> Pending:
        self.pending.append(Later())
        return self.pending[-1]


class DeviceScene(Scene):
    """As a scene, but a device is at work on what was submitted."""

    def __init__(self, num_groups: int = 1) -> None:
        super().__init__(num_groups)
        self.devices = [Device() for _ in range(num_groups)]
        self.moves = list(self.devices)
        self.desk = InferenceScheduler(self.box, self.weights, self.moves)  # type: ignore[arg-type]

    def finish(self, group: int) -> None:
        self.devices[group].pending[-1].done = True
        self.desk.serve()


def test_another_groups_request_is_submitted_while_the_device_is_at_work_and_whichever_is_done_is_handed_out() -> None:
    scene = DeviceScene(num_groups=2)
    scene.begin(0, 1)
    for group in (0, 1):
        for worker_id in (0, 1):
            scene.say(worker_id, Kind.ACT, group)
    assert [len(device.pending) for device in scene.devices] == [1, 1]
    assert scene.desk.is_waiting
    assert scene.box.batches == []
    scene.finish(1)
    assert scene.box.batches == [(1, "ACT", [0, 1])]
    scene.finish(0)
    assert scene.box.batches[1:] == [(0, "ACT", [0, 1])]
    assert not scene.desk.is_waiting
    assert [device.seeds for device in scene.devices] == [[0], [1]]


def test_moves_and_values_of_one_group_are_handed_out_together() -> None:
    scene = DeviceScene()
    scene.begin(0, 1)
    scene.say(0, Kind.ACT)
    scene.say(1, Kind.VALUE)
    act, value = scene.devices[0].pending
    value.done = True
    scene.desk.serve()
    assert scene.box.batches == []
    act.done = True
    scene.desk.serve()
    assert scene.box.batches == [(0, "ACT", [0]), (0, "VALUE", [1])]


def test_no_weights_are_adopted_while_a_dead_workers_request_is_in_flight() -> None:
    scene = DeviceScene()
    scene.begin(0)
    scene.say(0, Kind.ACT)
    scene.weights.latest = 1
    scene.desk.hear_learner(WorkerGone(worker_id=0, incarnation=0))
    scene.say(0, Kind.BEGIN, incarnation=1)
    assert scene.weights.version == 0  # nobody plays, and yet the policy is in use
    scene.finish(0)
    assert scene.weights.version == 1
    assert scene.box.versions == {0: 1}


def test_the_next_life_of_a_worker_that_died_meanwhile_waits_for_its_groups_request() -> None:
    scene = DeviceScene()
    scene.begin(0)
    scene.say(0, Kind.ACT)
    scene.say(0, Kind.BEGIN, incarnation=1)
    scene.finish(0)
    scene.say(0, Kind.ACT, incarnation=1)
    assert len(scene.devices[0].pending) == 2
    scene.finish(0)
    assert scene.box.batches == [(0, "ACT", [0]), (0, "ACT", [0])]


def test_nobody_counts_as_silent_whose_answer_the_device_still_owes() -> None:
    scene = DeviceScene()
    scene.begin(0, 1)
    scene.say(0, Kind.ACT)
    scene.say(1, Kind.ACT)
    scene.desk.leave_out_the_silent()
    scene.finish(0)
    scene.say(0, Kind.ACT)
    assert len(scene.devices[0].pending) == 1  # the other is waited for
    scene.say(1, Kind.ACT)
    assert len(scene.devices[0].pending) == 2
