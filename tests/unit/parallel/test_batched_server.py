"""A CUDA graph serves a group's full request as eager calls do; only a machine with a GPU can show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.models.transfers import Lane
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock, MailboxLayout
from keisei_lightning.parallel.policy.acting import LocalPolicyServer
from keisei_lightning.parallel.policy.batched_server import BatchedPolicyServer
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


def batched(policy: ActorCritic, device: torch.device, block: GroupBlock, *, capture: bool) -> BatchedPolicyServer:
    server = LocalPolicyServer(policy, device)
    return BatchedPolicyServer(server, server, block, Lane(device), is_pinned=False, capture=capture)


def test_a_full_request_is_served_in_the_block_as_by_the_ordinary_server() -> None:
    block, cpu = filled_block(), torch.device("cpu")
    policy = ActorCritic(build_network(game_factory("shogi")(1).spec, num_blocks=1, channels=8)).eval()
    expected = LocalPolicyServer(policy, cpu)
    expected.begin_rollout(4)
    wanted = expected.infer(InferenceRequest(block.observation.copy(), block.legal.copy()))
    server = batched(policy, cpu, block, capture=True)
    assert not server.is_captured
    server.begin_rollout(4)
    pending = server.submit(InferenceRequest(block.observation, block.legal))
    assert pending.is_done()
    got = pending.result()
    assert got.action is block.action
    np.testing.assert_array_equal(got.action, wanted.action)
    np.testing.assert_array_equal(got.log_prob, wanted.log_prob)
    np.testing.assert_array_equal(got.value, wanted.value)


@pytest.mark.gpu
def test_a_cuda_graph_samples_as_eager_calls_with_the_same_seed_and_no_call_waits_before_the_result() -> None:
    block, cuda = filled_block(), torch.device("cuda:0")
    policy = ActorCritic(build_network(game_factory("shogi")(1).spec, num_blocks=1, channels=8)).cuda().eval()
    results = []
    for capture in (False, True):
        server = batched(policy, cuda, block, capture=capture)
        assert server.is_captured is capture
        server.begin_rollout(4)
        for _ in range(3):
            torch.cuda.set_sync_debug_mode("error")
            try:
                pending = server.submit(InferenceRequest(block.observation, block.legal))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            results.append([column.copy() for column in pending.result()])
    eager, graph = results[:3], results[3:]
    assert not np.array_equal(graph[0][0], graph[1][0])  # the stream continues
    for one, other in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], atol=1e-5)
        np.testing.assert_allclose(one[2], other[2], atol=1e-5)
