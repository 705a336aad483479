"""A group's full request by a CUDA graph is the same as step by step; only a machine with a GPU can show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.transfers import Lane
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock, MailboxLayout
from keisei_lightning.parallel.policy.acting import PolicyMoves
from keisei_lightning.parallel.policy.batched_moves import BatchedMoves
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest

GAMES = 16


def filled_block() -> GroupBlock:
    game = game_factory("shogi")(GAMES)
    layout = MailboxLayout(
        num_workers=1,
        group_games=(GAMES,),
        observation_shape=game.spec.observation_shape,
        mask_bytes=game.spec.mask_bytes,
    )
    memory = np.zeros(layout.num_bytes, np.uint8)
    block = layout.views(memory).groups[0].block(memory)
    game.reset(np.arange(GAMES))
    game.observe(block.observation, block.legal, np.zeros(GAMES, np.int8))
    return block


def batched(policy: ActorCritic, device: torch.device, block: GroupBlock, *, record: bool) -> BatchedMoves:
    moves = PolicyMoves(policy, device)
    return BatchedMoves(moves, moves, block, Lane(device), is_pinned=False, record=record)


def test_a_full_request_is_answered_in_the_block_as_by_the_ordinary_source_of_moves() -> None:
    block, cpu = filled_block(), torch.device("cpu")
    policy = ActorCritic(build_network(game_factory("shogi")(1).spec, num_blocks=1, channels=8)).eval()
    expected = PolicyMoves(policy, cpu)
    expected.begin_rollout(4)
    wanted = expected.answer(InferenceRequest(block.observation.copy(), block.legal.copy()))
    moves = batched(policy, cpu, block, record=True)
    assert not moves.is_recorded
    moves.begin_rollout(4)
    pending = moves.submit(InferenceRequest(block.observation, block.legal))
    assert pending.is_done()
    got = pending.result()
    assert got.action is block.action
    np.testing.assert_array_equal(got.action, wanted.action)
    np.testing.assert_array_equal(got.log_prob, wanted.log_prob)
    np.testing.assert_array_equal(got.value, wanted.value)


@pytest.mark.gpu
def test_a_cuda_graph_draws_the_moves_that_the_same_seed_draws_step_by_step_and_nobody_waits_before_the_result() -> (
    None
):
    block, cuda = filled_block(), torch.device("cuda:0")
    policy = ActorCritic(build_network(game_factory("shogi")(1).spec, num_blocks=1, channels=8)).cuda().eval()
    answers = []
    for record in (False, True):
        moves = batched(policy, cuda, block, record=record)
        assert moves.is_recorded is record
        moves.begin_rollout(4)
        for _ in range(3):
            torch.cuda.set_sync_debug_mode("error")
            try:
                pending = moves.submit(InferenceRequest(block.observation, block.legal))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            answers.append([column.copy() for column in pending.result()])
    eager, graph = answers[:3], answers[3:]
    assert not np.array_equal(graph[0][0], graph[1][0])  # the stream goes on
    for one, other in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], atol=1e-5)
        np.testing.assert_allclose(one[2], other[2], atol=1e-5)
