"""Groups of games played concurrently: the group whose result comes first continues first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from fakes import CountingGame
from hypothesis import given
from hypothesis import strategies as st

from keisei_lightning.errors import RolloutError
from keisei_lightning.parallel.central.worker import GroupedPlayer, split_games
from keisei_lightning.parallel.memory.slots import SlotLayout
from keisei_lightning.parallel.options import MAX_GROUPS
from keisei_lightning.parallel.playing.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.playing.streams import RolloutStreams
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult

NUM_PLIES = 20


@given(st.integers(1, 300), st.integers(1, 20))
def test_groups_share_out_the_games_evenly_and_none_is_empty(num_games: int, num_groups: int) -> None:
    groups = split_games(num_games, num_groups)
    assert sum(groups) == num_games
    assert len(groups) == min(num_games, num_groups)
    assert 1 <= min(groups) <= max(groups) <= min(groups) + 1


class FakeClient:
    """Serves at once, the group that sent its request last first, always with the first legal move."""

    def __init__(self, *, value: float = 0.25) -> None:
        self.requests: list[tuple[int, InferenceRequest]] = []
        self.left: list[int] = []
        self.order: list[int] = []
        self._value = value

    def begin_rollout(self, seed: int) -> None:
        pass

    def submit(self, group: int, request: InferenceRequest) -> None:
        self.requests.append((group, request))

    def receive(self, beat: Any) -> list[tuple[int, InferenceResult]]:
        group, request = self.requests.pop()
        self.order.append(group)
        games = len(request.observation)
        value = np.full((games, 1), self._value, np.float32)
        if request.legal is None:
            return [(group, InferenceResult(np.zeros(0, np.int64), np.zeros(0, np.float32), value))]
        legal = np.unpackbits(request.legal, axis=1)
        return [(group, InferenceResult(legal.argmax(1), np.zeros(games, np.float32), value))]

    def leave(self, group: int) -> None:
        self.left.append(group)


def grouped(client: FakeClient, sizes: list[int]) -> GroupedPlayer:
    players = [
        RolloutPlayer(
            game=CountingGame(size),
            server=client,  # type: ignore[arg-type]
            num_plies=NUM_PLIES,
            streams=RolloutStreams(worker_id=0, incarnation=0, group=group),
        )
        for group, size in enumerate(sizes)
    ]
    return GroupedPlayer(players, sizes, client)  # type: ignore[arg-type]


def new_slot(num_games: int) -> dict[Any, Any]:
    layout = SlotLayout.for_game(
        CountingGame(1).spec, num_slots=1, num_workers=1, num_games=num_games, num_plies=NUM_PLIES
    )
    return layout.views(np.zeros(layout.num_bytes, np.uint8), 0, 0)


def test_each_group_fills_its_rows_in_whatever_order_results_come() -> None:
    client, slot = FakeClient(), new_slot(5)
    result = grouped(client, [3, 2]).play(slot, policy_version=4)
    assert (slot["state_value"] == 0.25).all()
    assert (slot["collector", "policy_version"] == 4).all()
    ids = slot["collector", "traj_ids"]
    assert not set(ids[:3].flat) & set(ids[3:].flat)  # the groups' games are numbered apart
    assert client.order == [1] * (NUM_PLIES + 1) + [0] * (NUM_PLIES + 1)  # a ply each, and the last values
    assert sorted(client.left) == [0, 1]
    assert result.games == int(slot["next", "done"].sum()) == sum(result.outcomes.values()) > 0


def test_games_of_all_groups_of_all_incarnations_are_numbered_apart() -> None:
    seen: set[int] = set()
    for worker_id in range(2):
        for incarnation in range(3):
            for group in range(MAX_GROUPS):
                player = RolloutPlayer(
                    game=CountingGame(1),
                    server=FakeClient(),  # type: ignore[arg-type]
                    num_plies=NUM_PLIES,
                    streams=RolloutStreams(worker_id=worker_id, incarnation=incarnation, group=group),
                )
                first = player._next_trajectory
                assert first >> 48 == worker_id
                assert first >> 32 & 0xFFFF == incarnation
                seen.add(first >> 28)
    assert len(seen) == 2 * 3 * MAX_GROUPS


def test_a_group_that_fails_takes_the_whole_rollout_with_it_and_all_groups_leave() -> None:
    client = FakeClient(value=np.nan)
    with pytest.raises(RolloutError, match="not finite"):
        grouped(client, [3, 2]).play(new_slot(5), policy_version=0)
    assert sorted(client.left) == [0, 1]


def test_results_of_groups_add_up() -> None:
    one = RolloutResult(games=2, game_plies=9, results=Counter(first=2), outcomes=Counter(mate=2))
    one.add(RolloutResult(games=1, game_plies=4, results=Counter(draw=1), outcomes=Counter(mate=1)))
    assert (one.games, one.game_plies, one.results, one.outcomes) == (
        3,
        13,
        Counter(first=2, draw=1),
        Counter(mate=3),
    )
