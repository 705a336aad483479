"""Both ends of the mailbox in one process: requests get their results, and tokens of dead processes are ignored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fakes import CountingGame

from keisei_lightning.parallel.central.mailbox import (
    InferenceRestartedError,
    InferenceStoppedError,
    Mailbox,
    RequestKind,
)
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult

SPEC = CountingGame(1).spec


def nothing() -> None:
    pass


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(SPEC, num_workers=2, group_games=[3, 2])
    yield box
    box.close()


def request_of(games: int, start: int, *, legal: bool = True) -> InferenceRequest:
    size = games * int(np.prod(SPEC.observation_shape))
    observation = (start + np.arange(size, dtype=np.uint8)).reshape(games, *SPEC.observation_shape)
    return InferenceRequest(observation, np.full((games, SPEC.mask_bytes), start, np.uint8) if legal else None)


def result_of(games: int, start: int) -> InferenceResult:
    numbers = start + np.arange(games)
    return InferenceResult(numbers, -numbers.astype(np.float32), numbers[:, None].astype(np.float32) / 8)


def test_the_requests_of_all_workers_make_one_batch_and_each_worker_gets_its_own_results(mailbox: Mailbox) -> None:
    clients = [mailbox.client_factory(worker_id, 0)() for worker_id in range(2)]
    server = mailbox.server_factory(1)()
    server.announce()
    for client in clients:
        client._server_incarnation = 1
    requests = [request_of(3, 0), request_of(3, 50)]
    for client, request in zip(clients, requests, strict=True):
        client.submit(0, request)
    tokens = server.read()
    assert [(token.worker_id, token.group, token.kind) for token in tokens] == [
        (0, 0, RequestKind.ACT),
        (1, 0, RequestKind.ACT),
    ]
    batch = server.request(tokens)
    assert batch.legal is not None
    np.testing.assert_array_equal(batch.observation, np.concatenate([request.observation for request in requests]))
    np.testing.assert_array_equal(batch.legal[:, 0], [0, 0, 0, 50, 50, 50])
    server.deliver(tokens, result_of(6, 0))
    for client, expected in zip(clients, ([0, 1, 2], [3, 4, 5]), strict=True):
        ((group, got),) = client.receive(nothing)
        assert group == 0
        np.testing.assert_array_equal(got.action, expected)
        np.testing.assert_array_equal(got.log_prob, np.negative(expected))
        np.testing.assert_array_equal(got.value[:, 0] * 8, expected)


def test_a_request_for_values_gets_only_values(mailbox: Mailbox) -> None:
    client, server = mailbox.client_factory(1, 0)(), mailbox.server_factory(1)()
    server.announce()
    client._server_incarnation = 1
    client.submit(1, request_of(2, 7, legal=False))
    tokens = server.read()
    assert server.request(tokens).legal is None
    server.deliver(tokens, result_of(2, 4))
    ((group, got),) = client.receive(nothing)
    assert (group, got.action.size, got.log_prob.size, got.value[:, 0].tolist()) == (1, 0, 0, [0.5, 0.625])


def test_results_for_an_earlier_incarnation_are_ignored(mailbox: Mailbox) -> None:
    server = mailbox.server_factory(1)()
    server.announce()
    old_client, client = mailbox.client_factory(0, 0)(), mailbox.client_factory(0, 1)()
    old_client._server_incarnation = client._server_incarnation = 1
    old_client.submit(0, request_of(3, 0))
    old = server.read()
    client.submit(0, request_of(3, 9))
    new = server.read()
    server.deliver(old, result_of(3, 100))
    server.deliver(new, result_of(3, 0))
    ((_, got),) = client.receive(nothing)
    assert got.action.tolist() == [0, 1, 2]


def test_a_waiting_worker_notices_that_the_inference_process_was_replaced_or_stopped(mailbox: Mailbox) -> None:
    client, server = mailbox.client_factory(0, 0)(), mailbox.server_factory(1)()
    server.announce()
    client._server_incarnation = 1
    client.submit(0, request_of(3, 0))
    other = mailbox.server_factory(2)()
    other.announce()
    with pytest.raises(InferenceRestartedError):
        client.receive(nothing)
    assert other.read() == []  # the request was for the earlier incarnation
    other.stop()
    with pytest.raises(InferenceStoppedError):
        client.acquire_version(nothing)


def test_a_waiting_worker_sends_heartbeats(mailbox: Mailbox) -> None:
    client, server = mailbox.client_factory(0, 0)(), mailbox.server_factory(1)()
    server.announce()
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:  # the result comes at the third heartbeat
            (token,) = server.read()
            server.grant_version(token, 12)

    assert client.acquire_version(beat) == 12
    assert len(beats) == 3
