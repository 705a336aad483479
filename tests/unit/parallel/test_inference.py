"""When the inference process serves which requests: every rule, with hand-written workers, weights and policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keisei_lightning.parallel.central.inference import InferenceScheduler
from keisei_lightning.parallel.central.mailbox import RequestKind, Token
from keisei_lightning.parallel.policy.inference_requests import (
    InferenceRequest,
    InferenceResult,
    PendingResult,
    PolicyServer,
)
from keisei_lightning.parallel.supervision.messages import BeginRound, WorkerGone


@dataclass
class FakeMailbox:
    """Records the delivered results."""

    versions: dict[int, int] = field(default_factory=dict)
    batches: list[tuple[int, str, list[int]]] = field(default_factory=list)

    def grant_version(self, token: Token, version: int) -> None:
        self.versions[token.worker_id] = version

    def seed_of(self, worker_id: int, group: int) -> int:
        return 10 * worker_id + group

    def request(self, tokens: Sequence[Token]) -> InferenceRequest:
        return InferenceRequest(np.zeros((len(tokens), 1), np.uint8))

    def deliver(self, tokens: Sequence[Token], result: InferenceResult) -> None:
        kind = RequestKind(tokens[0].kind).name
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
class FakeServer(PolicyServer):
    seeds: list[int] = field(default_factory=list)

    def begin_rollout(self, seed: int) -> None:
        self.seeds.append(seed)

    def infer(self, request: InferenceRequest) -> InferenceResult:
        nothing: Any = np.zeros(0)
        return InferenceResult(nothing, nothing, nothing)


class Scene:
    def __init__(self, num_groups: int = 1, *, waits_for_round: bool = False) -> None:
        self.mailbox, self.weights = FakeMailbox(), Weights()
        self.servers = [FakeServer() for _ in range(num_groups)]
        self.scheduler = InferenceScheduler(
            self.mailbox,  # type: ignore[arg-type]
            self.weights,
            self.servers,
            waits_for_round=waits_for_round,
        )

    def send(self, worker_id: int, kind: RequestKind, group: int = 0, incarnation: int = 0) -> None:
        self.scheduler.handle_token(Token(1, incarnation, 1, worker_id, group, kind))
        self.scheduler.serve()

    def begin(self, *workers: int) -> None:
        for worker_id in workers:
            self.send(worker_id, RequestKind.BEGIN)


def test_no_worker_begins_a_round_before_all_have_asked_to() -> None:
    scene = Scene()
    scene.scheduler.handle_message(BeginRound(workers=(0, 1)))
    scene.begin(0)
    assert scene.mailbox.versions == {}
    scene.begin(1)
    assert scene.mailbox.versions == {0: 0, 1: 0}


def test_the_first_round_waits_for_the_learners_message() -> None:
    scene = Scene(waits_for_round=True)
    scene.begin(0, 1)
    assert scene.mailbox.versions == {}
    scene.scheduler.handle_message(BeginRound(workers=(0, 1)))
    scene.scheduler.serve()
    assert scene.mailbox.versions == {0: 0, 1: 0}


def test_a_worker_that_died_is_not_waited_for() -> None:
    scene = Scene()
    scene.scheduler.handle_message(BeginRound(workers=(0, 1)))
    scene.begin(0)
    scene.scheduler.handle_message(WorkerGone(worker_id=1, incarnation=0))
    scene.scheduler.serve()
    assert scene.mailbox.versions == {0: 0}
    scene.send(0, RequestKind.ACT)
    assert scene.mailbox.batches == [(0, "ACT", [0])]


def test_a_group_is_served_when_every_worker_that_plays_it_has_sent_a_request() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT, 0)
    scene.send(0, RequestKind.ACT, 1)
    assert scene.mailbox.batches == []
    scene.send(1, RequestKind.ACT, 1)
    assert scene.mailbox.batches == [(1, "ACT", [0, 1])]
    scene.send(1, RequestKind.LEAVE, 0)  # it sends no more requests there
    assert scene.mailbox.batches[1:] == [(0, "ACT", [0])]


def test_values_and_moves_are_submitted_separately_and_the_stream_begins_once_a_round() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.send(1, RequestKind.VALUE, 1)
    scene.send(0, RequestKind.ACT, 1)
    assert scene.mailbox.batches == [(1, "ACT", [0]), (1, "VALUE", [1])]
    scene.send(0, RequestKind.ACT, 1)
    scene.send(1, RequestKind.ACT, 1)
    assert [server.seeds for server in scene.servers] == [[], [1]]  # of worker 0, group 1


def test_new_weights_are_adopted_only_when_no_worker_is_within_a_rollout() -> None:
    scene = Scene()
    scene.begin(0)
    scene.weights.latest = 5
    scene.begin(1)
    assert scene.mailbox.versions == {0: 0}
    scene.send(0, RequestKind.ACT)  # it is served, though another waits
    assert scene.mailbox.batches == [(0, "ACT", [0])]
    scene.send(0, RequestKind.LEAVE)
    assert scene.mailbox.versions == {0: 0, 1: 5}
    assert scene.weights.verified == 1


def test_a_worker_joins_those_that_play_the_latest_version() -> None:
    scene = Scene()
    scene.begin(0)
    scene.send(0, RequestKind.ACT)
    scene.begin(1)
    assert scene.mailbox.versions == {0: 0, 1: 0}
    scene.send(0, RequestKind.ACT)
    assert len(scene.mailbox.batches) == 1  # the two play in step from now on
    scene.send(1, RequestKind.ACT)
    assert scene.mailbox.batches[1:] == [(0, "ACT", [0, 1])]


def test_a_dead_workers_request_is_dropped_and_its_death_ends_no_later_incarnation() -> None:
    scene = Scene()
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT)
    scene.send(0, RequestKind.BEGIN, incarnation=1)  # read before the message of the death
    scene.scheduler.handle_message(WorkerGone(worker_id=0, incarnation=0))
    scene.send(0, RequestKind.ACT, incarnation=0)  # left in the pipe
    scene.send(1, RequestKind.ACT)
    assert scene.mailbox.batches == []  # the later incarnation plays too, and has sent no request yet
    scene.send(0, RequestKind.ACT, incarnation=1)
    assert scene.mailbox.batches == [(0, "ACT", [0, 1])]


def test_a_worker_that_is_silent_while_others_wait_is_excluded_until_it_sends_a_token() -> None:
    scene = Scene()
    scene.begin(0, 1, 2)
    scene.send(0, RequestKind.ACT)
    scene.send(2, RequestKind.ACT)
    assert scene.mailbox.batches == []
    scene.scheduler.exclude_silent_workers()
    scene.scheduler.serve()
    assert scene.mailbox.batches == [(0, "ACT", [0, 2])]
    scene.send(2, RequestKind.ACT)
    scene.send(0, RequestKind.ACT)  # no second wait
    assert scene.mailbox.batches[1:] == [(0, "ACT", [0, 2])]
    scene.send(1, RequestKind.ACT)  # it was slow, not dead: it is waited for from now on
    scene.send(0, RequestKind.ACT)
    assert len(scene.mailbox.batches) == 2
    scene.send(2, RequestKind.ACT)
    assert scene.mailbox.batches[2:] == [(0, "ACT", [0, 1, 2])]


def test_a_silent_worker_keeps_its_version_and_blocks_no_worker_that_begins_with_the_same() -> None:
    scene = Scene()
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT)
    scene.scheduler.exclude_silent_workers()
    scene.scheduler.serve()
    scene.send(0, RequestKind.LEAVE)
    scene.begin(0)
    assert scene.mailbox.versions == {0: 0, 1: 0}
    scene.send(0, RequestKind.LEAVE)
    scene.weights.latest = 1
    scene.begin(0)
    assert scene.weights.version == 0  # worker 1 may be within a rollout of version 0
    scene.scheduler.handle_message(WorkerGone(worker_id=1, incarnation=0))
    scene.scheduler.serve()
    assert scene.mailbox.versions == {0: 1, 1: 0}


def test_no_worker_is_excluded_where_none_waits() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.scheduler.exclude_silent_workers()
    scene.send(0, RequestKind.ACT, 1)
    assert scene.mailbox.batches == []
    scene.send(1, RequestKind.ACT, 1)
    assert scene.mailbox.batches == [(1, "ACT", [0, 1])]


def test_requests_sent_before_a_worker_fell_silent_are_served_in_every_group() -> None:
    scene = Scene(num_groups=2)
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT, 0)  # the last token of worker 0
    scene.send(1, RequestKind.ACT, 1)
    assert scene.mailbox.batches == []
    scene.scheduler.exclude_silent_workers()
    scene.scheduler.serve()
    assert scene.mailbox.batches == [(0, "ACT", [0]), (1, "ACT", [1])]
    scene.send(1, RequestKind.ACT, 0)
    scene.send(1, RequestKind.ACT, 1)
    assert scene.mailbox.batches[2:] == [(0, "ACT", [1]), (1, "ACT", [1])]


@dataclass
class Later(PendingResult):
    """A result that is complete when the test sets it so."""

    done: bool = False

    def is_done(self) -> bool:
        return self.done

    def result(self) -> InferenceResult:
        assert self.done, "a call waits for a device"
        nothing: Any = np.zeros(0)
        return InferenceResult(nothing, nothing, nothing)


@dataclass
class Device(FakeServer):
    """Completes results later."""

    pending: list[Later] = field(default_factory=list)

    def submit(self, request: InferenceRequest) -> PendingResult:
        self.pending.append(Later())
        return self.pending[-1]


class DeviceScene(Scene):
    """A scene in which a device computes the results."""

    def __init__(self, num_groups: int = 1) -> None:
        super().__init__(num_groups)
        self.devices = [Device() for _ in range(num_groups)]
        self.servers = list(self.devices)
        self.scheduler = InferenceScheduler(self.mailbox, self.weights, self.servers)  # type: ignore[arg-type]

    def finish(self, group: int) -> None:
        self.devices[group].pending[-1].done = True
        self.scheduler.serve()


def test_requests_of_other_groups_are_submitted_meanwhile_and_results_are_delivered_as_they_complete() -> None:
    scene = DeviceScene(num_groups=2)
    scene.begin(0, 1)
    for group in (0, 1):
        for worker_id in (0, 1):
            scene.send(worker_id, RequestKind.ACT, group)
    assert [len(device.pending) for device in scene.devices] == [1, 1]
    assert scene.scheduler.is_waiting
    assert scene.mailbox.batches == []
    scene.finish(1)
    assert scene.mailbox.batches == [(1, "ACT", [0, 1])]
    scene.finish(0)
    assert scene.mailbox.batches[1:] == [(0, "ACT", [0, 1])]
    assert not scene.scheduler.is_waiting
    assert [device.seeds for device in scene.devices] == [[0], [1]]


def test_moves_and_values_of_one_group_are_delivered_together() -> None:
    scene = DeviceScene()
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT)
    scene.send(1, RequestKind.VALUE)
    act, value = scene.devices[0].pending
    value.done = True
    scene.scheduler.serve()
    assert scene.mailbox.batches == []
    act.done = True
    scene.scheduler.serve()
    assert scene.mailbox.batches == [(0, "ACT", [0]), (0, "VALUE", [1])]


def test_no_weights_are_adopted_while_a_dead_workers_request_is_in_flight() -> None:
    scene = DeviceScene()
    scene.begin(0)
    scene.send(0, RequestKind.ACT)
    scene.weights.latest = 1
    scene.scheduler.handle_message(WorkerGone(worker_id=0, incarnation=0))
    scene.send(0, RequestKind.BEGIN, incarnation=1)
    assert scene.weights.version == 0  # no worker plays, and yet the policy is in use
    scene.finish(0)
    assert scene.weights.version == 1
    assert scene.mailbox.versions == {0: 1}


def test_the_next_incarnation_of_a_worker_that_died_waits_for_its_groups_request() -> None:
    scene = DeviceScene()
    scene.begin(0)
    scene.send(0, RequestKind.ACT)
    scene.send(0, RequestKind.BEGIN, incarnation=1)
    scene.finish(0)
    scene.send(0, RequestKind.ACT, incarnation=1)
    assert len(scene.devices[0].pending) == 2
    scene.finish(0)
    assert scene.mailbox.batches == [(0, "ACT", [0]), (0, "ACT", [0])]


def test_no_worker_is_silent_whose_result_the_device_still_computes() -> None:
    scene = DeviceScene()
    scene.begin(0, 1)
    scene.send(0, RequestKind.ACT)
    scene.send(1, RequestKind.ACT)
    scene.scheduler.exclude_silent_workers()
    scene.finish(0)
    scene.send(0, RequestKind.ACT)
    assert len(scene.devices[0].pending) == 1  # the other is waited for
    scene.send(1, RequestKind.ACT)
    assert len(scene.devices[0].pending) == 2
