"""Both ends of the mailbox in one process: what is asked is answered, and what the dead have said is not heard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fakes import CountingGame

from keisei_lightning.parallel.central.mailbox import (
    InferenceRestartedError,
    InferenceStoppedError,
    Kind,
    Mailbox,
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


def question(games: int, start: int, *, legal: bool = True) -> InferenceRequest:
    size = games * int(np.prod(SPEC.observation_shape))
    observation = (start + np.arange(size, dtype=np.uint8)).reshape(games, *SPEC.observation_shape)
    return InferenceRequest(observation, np.full((games, SPEC.mask_bytes), start, np.uint8) if legal else None)


def answer(games: int, start: int) -> InferenceResult:
    numbers = start + np.arange(games)
    return InferenceResult(numbers, -numbers.astype(np.float32), numbers[:, None].astype(np.float32) / 8)


def test_the_questions_of_all_workers_make_one_batch_and_each_gets_its_own_answers(mailbox: Mailbox) -> None:
    workers = [mailbox.worker_end(worker_id, 0)() for worker_id in range(2)]
    desk = mailbox.inference_end(1)()
    desk.announce()
    for worker in workers:
        worker._life = 1
    asked = [question(3, 0), question(3, 50)]
    for worker, one in zip(workers, asked, strict=True):
        worker.ask(0, one)
    tokens = desk.read()
    assert [(token.worker_id, token.group, token.kind) for token in tokens] == [(0, 0, Kind.ACT), (1, 0, Kind.ACT)]
    batch = desk.question(tokens)
    assert batch.legal is not None
    np.testing.assert_array_equal(batch.observation, np.concatenate([one.observation for one in asked]))
    np.testing.assert_array_equal(batch.legal[:, 0], [0, 0, 0, 50, 50, 50])
    desk.answer(tokens, answer(6, 0))
    for worker, expected in zip(workers, ([0, 1, 2], [3, 4, 5]), strict=True):
        ((group, got),) = worker.receive(nothing)
        assert group == 0
        np.testing.assert_array_equal(got.action, expected)
        np.testing.assert_array_equal(got.log_prob, np.negative(expected))
        np.testing.assert_array_equal(got.value[:, 0] * 8, expected)


def test_a_question_for_values_brings_values_alone(mailbox: Mailbox) -> None:
    worker, desk = mailbox.worker_end(1, 0)(), mailbox.inference_end(1)()
    desk.announce()
    worker._life = 1
    worker.ask(1, question(2, 7, legal=False))
    tokens = desk.read()
    assert desk.question(tokens).legal is None
    desk.answer(tokens, answer(2, 4))
    ((group, got),) = worker.receive(nothing)
    assert (group, got.action.size, got.log_prob.size, got.value[:, 0].tolist()) == (1, 0, 0, [0.5, 0.625])


def test_answers_for_the_life_before_are_not_heard(mailbox: Mailbox) -> None:
    desk = mailbox.inference_end(1)()
    desk.announce()
    dead, living = mailbox.worker_end(0, 0)(), mailbox.worker_end(0, 1)()
    dead._life = living._life = 1
    dead.ask(0, question(3, 0))
    old = desk.read()
    living.ask(0, question(3, 9))
    new = desk.read()
    desk.answer(old, answer(3, 100))
    desk.answer(new, answer(3, 0))
    ((_, got),) = living.receive(nothing)
    assert got.action.tolist() == [0, 1, 2]


def test_who_waits_hears_that_the_inference_process_is_another_or_none(mailbox: Mailbox) -> None:
    worker, desk = mailbox.worker_end(0, 0)(), mailbox.inference_end(1)()
    desk.announce()
    worker._life = 1
    worker.ask(0, question(3, 0))
    other = mailbox.inference_end(2)()
    other.announce()
    with pytest.raises(InferenceRestartedError):
        worker.receive(nothing)
    assert other.read() == []  # the question was for the life before
    other.stop()
    with pytest.raises(InferenceStoppedError):
        worker.begin(nothing)


def test_who_waits_shows_life(mailbox: Mailbox) -> None:
    worker, desk = mailbox.worker_end(0, 0)(), mailbox.inference_end(1)()
    desk.announce()
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:  # at the third sign of life the answer comes
            (token,) = desk.read()
            desk.grant_version(token, 12)

    assert worker.begin(beat) == 12
    assert len(beats) == 3
