"""The pool of snapshots against a model of it: a buffer that games still need is never written to."""

from __future__ import annotations

import io
from collections import deque
from typing import Any

import pytest
import torch
from fakes import VersionNetwork
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keisei_lightning.errors import ConfigError, WeightsError
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.opponents.pool import SnapshotPool
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.parallel.supervision.messages import Opponent, RolloutHeader

RING, NUM_WORKERS = 2, 3


def network(version: float) -> VersionNetwork:
    module = VersionNetwork()
    with torch.no_grad():
        module.version.fill_(version)
    return module


def pool_of(seed: int = 0, **options: Any) -> SnapshotPool:
    return SnapshotPool(OpponentOptions(**options), WeightLayout.of(VersionNetwork()), seed)


def header_of(
    worker_id: int,
    *,
    slot: int = 0,
    in_use: tuple[int, ...] = (),
    results: dict[int, tuple[int, int, int]] | None = None,
) -> RolloutHeader:
    return RolloutHeader(
        worker_id=worker_id,
        incarnation=0,
        sequence=0,
        slot=slot,
        policy_version=0,
        plies=1,
        opponents_in_use=in_use,
        opponent_results=results or {},
    )


def weight_in(pool: SnapshotPool, buffer: int) -> float:
    views = pool.memory.layout.views(pool.memory.buffers()[buffer])
    return float(views["version"])


@settings(max_examples=60, stateful_step_count=60, deadline=None)
class PoolAndItsReaders(RuleBasedStateMachine):
    """Workers that play several grants ahead and keep games for as long as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of(max_snapshots=RING, choice="prioritised")
        self.version = 0
        self.ring: deque[int] = deque(maxlen=RING)
        self.granted: dict[int, deque[tuple[int, Opponent | None]]] = {w: deque() for w in range(NUM_WORKERS)}
        self.held: dict[int, list[Opponent]] = {w: [] for w in range(NUM_WORKERS)}

    @rule()
    def push(self) -> None:
        self.version += 1
        has_room = self.pool.has_room
        pushed = self.pool.push(network(self.version), self.version)
        assert pushed is has_room  # so that ranks can agree on it before
        if pushed:
            self.ring.append(self.version)

    @rule(worker=st.integers(0, NUM_WORKERS - 1), slot=st.integers(0, 1))
    def grant(self, worker: int, slot: int) -> None:
        if slot not in [granted for granted, _ in self.granted[worker]]:
            self.granted[worker].append((slot, self.pool.draw(worker, slot)))

    @rule(worker=st.integers(0, NUM_WORKERS - 1), kept=st.sets(st.integers(0, 9)), begins=st.booleans())
    def play(self, worker: int, kept: set[int], begins: bool) -> None:
        if not self.granted[worker]:
            return
        slot, opponent = self.granted[worker].popleft()
        held = [other for number, other in enumerate(self.held[worker]) if number in kept]
        if begins and opponent is not None:
            held.append(opponent)
        self.held[worker] = held
        in_use = tuple({other.buffer for other in held})
        self.pool.note(header_of(worker, slot=slot, in_use=in_use, results={self.version: (1, 0, 0)}))
        self.pool.update_scores()

    @precondition(lambda self: self.ring)
    @rule()
    def resume(self) -> None:
        """As after a stop: grants are lost, games in flight continue."""
        state = torch.load(saved(self.pool), weights_only=True)
        self.pool = pool_of(max_snapshots=RING, choice="prioritised")
        self.pool.load_state_dict(state)
        places = {version: buffer for buffer, version in enumerate(self.pool.memory.versions.array().tolist())}
        self.granted = {worker: deque() for worker in range(NUM_WORKERS)}
        for worker, held in self.held.items():
            self.held[worker] = [Opponent(version=o.version, buffer=places[o.version]) for o in held]

    @invariant()
    def what_games_need_is_as_it_was(self) -> None:
        promised = [o for grants in self.granted.values() for _, o in grants if o is not None]
        for opponent in [*promised, *(o for held in self.held.values() for o in held)]:
            assert weight_in(self.pool, opponent.buffer) == opponent.version
            assert self.pool.memory.versions.array()[opponent.buffer] == opponent.version

    @invariant()
    def the_ring_holds_the_newest(self) -> None:
        assert [snapshot.version for snapshot in self.pool.standings] == list(self.ring)
        assert all(weight_in(self.pool, snapshot.buffer) == snapshot.version for snapshot in self.pool.standings)


TestPoolAndItsReaders = pytest.mark.slow(PoolAndItsReaders.TestCase)


def saved(pool: SnapshotPool) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    return file


def test_a_push_is_put_off_while_games_need_every_buffer() -> None:
    pool = pool_of(max_snapshots=1)
    for version in range(1, 6):  # one in the ring, four that left it and are still needed
        assert pool.push(network(version), version)
        opponent = pool.draw(version, 0)
        assert opponent is not None
        pool.note(header_of(version, in_use=(opponent.buffer,)))
    assert not pool.push(network(6), 6)
    assert (pool.postponed, pool.standings[-1].version) == (1, 5)
    pool.note(header_of(2))
    assert pool.push(network(6), 6)
    assert pool.standings[-1].version == 6
    assert pool.summary()["snapshots_postponed"] == 1


def test_without_a_snapshot_no_opponent_is_drawn() -> None:
    assert pool_of().draw(0, 0) is None


def test_one_version_is_pushed_once() -> None:
    pool = pool_of()
    assert pool.push(network(1), 1)
    assert pool.push(network(1), 1)
    assert len(pool.standings) == 1


def test_weights_that_are_not_finite_leave_the_pool_as_it_was() -> None:
    pool = pool_of()
    pool.push(network(1), 1)
    with pytest.raises(WeightsError, match="not finite"):
        pool.push(network(float("nan")), 2)
    assert [snapshot.version for snapshot in pool.standings] == [1]


def test_uniform_draws_are_uniform_and_repeat_themselves() -> None:
    def draws(seed: int) -> list[int]:
        pool = pool_of(seed, max_snapshots=4)
        for version in range(4):
            pool.push(network(version), version)
        drawn = [pool.draw(0, 0) for _ in range(2000)]
        return [opponent.version for opponent in drawn if opponent is not None]

    one = draws(1)
    assert one == draws(1)
    assert one != draws(2)
    assert all(abs(one.count(version) - 500) < 95 for version in range(4))  # 4.9 standard deviations


def pool_with_scores(scores: list[float], games: int = 200) -> SnapshotPool:
    """A prioritised pool of snapshots 0, 1, 2, ... that the learner has these scores against."""
    pool = pool_of(max_snapshots=len(scores), choice="prioritised")
    for version in range(len(scores)):
        pool.push(network(version), version)
    for standing, score in zip(pool.standings, scores, strict=True):
        standing.games, standing.score = games, score
    return pool


def test_prioritised_draws_follow_the_squared_rule_however_strong_the_learner_is() -> None:
    """f_hard of Vinyals et al. (2019) with p = 2: weights 0.0025, 0.01, 0.0225, 0.04."""
    pool = pool_with_scores([0.95, 0.90, 0.85, 0.80])
    assert pool.probabilities() == pytest.approx([1 / 30, 4 / 30, 9 / 30, 16 / 30])
    drawn = [pool.draw(0, 0) for _ in range(4000)]
    counts = [sum(o is not None and o.version == version for o in drawn) for version in range(4)]
    assert counts == pytest.approx([4000 * share / 30 for share in (1, 4, 9, 16)], abs=150)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1.0, 1.0], [0.5, 0.5]), ([1.0, 0.5], [0.0, 1.0]), ([0.0, 0.5], [0.8, 0.2])],
)
def test_where_no_snapshot_is_hard_the_draw_is_uniform(scores: list[float], expected: list[float]) -> None:
    assert pool_with_scores(scores).probabilities() == pytest.approx(expected)


def test_a_snapshot_that_lost_a_thousand_games_at_once_can_still_be_met() -> None:
    pool = pool_with_scores([0.5, 0.5])
    pool.note(header_of(0, results={0: (1000, 0, 0)}))
    pool.update_scores()
    assert pool.standings[0].score == pytest.approx(0.5 + 0.5 * 1000 / 1200)
    assert pool.probabilities() == pytest.approx([1 / 37, 36 / 37])


def test_scores_do_not_depend_on_the_order_in_which_rollouts_arrive() -> None:
    """45 of 50 points and 10 of 50, after many games at 0.6: one after the other would give 0.556 or 0.600."""
    headers = [header_of(0, results={0: (45, 0, 5)}), header_of(1, results={0: (10, 0, 40)})]
    scores = []
    for order in (headers, headers[::-1]):
        pool = pool_with_scores([0.6])
        for header in order:
            pool.note(header)
            assert pool.standings[0].score == 0.6  # a draw in between sees no part of a batch
        pool.update_scores()
        scores.append(pool.standings[0].score)
    assert scores[0] == scores[1] == pytest.approx((200 * 0.6 + 55) / 300)


def test_draws_do_not_depend_on_the_order_in_which_workers_are_granted() -> None:
    def drawn(order: list[int]) -> dict[int, list[int | None]]:
        pool = pool_of(seed=1, max_snapshots=4)
        for version in range(4):
            pool.push(network(version), version)
        out: dict[int, list[int | None]] = {0: [], 1: []}
        for worker_id in order:
            opponent = pool.draw(worker_id, 0)
            out[worker_id].append(None if opponent is None else opponent.version)
        return out

    one = drawn([0, 1] * 20)
    assert one == drawn([1, 0] * 20)
    assert one[0] != one[1]


def test_a_score_is_the_mean_of_all_games_and_of_one_draw_at_first() -> None:
    pool = pool_of(max_snapshots=3)
    for version in range(3):
        pool.push(network(version), version)
    pool.note(header_of(0, results={0: (20, 0, 0), 1: (0, 20, 0), 2: (0, 0, 20)}))
    pool.update_scores()
    scores = {snapshot.version: snapshot.score for snapshot in pool.standings}
    assert scores == pytest.approx({0: 0.5 + 0.5 * 20 / 21, 1: 0.5, 2: 0.5 - 0.5 * 20 / 21})


def test_a_score_follows_the_last_two_hundred_games_or_so() -> None:
    pool = pool_of()
    pool.push(network(1), 1)
    for result in ((0, 0, 20), (20, 0, 0)):
        for _ in range(50):
            pool.note(header_of(0, results={1: result}))
            pool.update_scores()
    (standing,) = pool.standings
    assert standing.games == 2000
    assert standing.score > 0.99
    assert pool.summary()["snapshot_score_min"] == standing.score


def test_a_smaller_ring_keeps_the_newest_on_resume() -> None:
    pool = pool_of(max_snapshots=5)
    for version in range(5):
        pool.push(network(version), version)
    smaller = pool_of(max_snapshots=2)
    smaller.load_state_dict(torch.load(saved(pool), weights_only=True))
    assert [snapshot.version for snapshot in smaller.standings] == [3, 4]
    assert [weight_in(smaller, snapshot.buffer) for snapshot in smaller.standings] == [3.0, 4.0]


def test_draws_resume_where_they_stopped_and_from_an_earlier_versions_checkpoint() -> None:
    def draws(pool: SnapshotPool) -> list[Opponent | None]:
        return [pool.draw(worker_id, 0) for worker_id in (0, 1, 0, 1)]

    pool = pool_of(max_snapshots=4)
    for version in range(4):
        pool.push(network(version), version)
    draws(pool)
    state = torch.load(saved(pool), weights_only=True)
    again = pool_of(max_snapshots=4)
    again.load_state_dict(state)
    assert [draws(again) for _ in range(5)] == [draws(pool) for _ in range(5)]
    again.load_state_dict(state | {"draws": 4})  # one number for all workers
    assert None not in draws(again)


def test_a_pool_of_another_network_is_refused() -> None:
    pool = pool_of()
    pool.push(network(1), 1)
    other = SnapshotPool(OpponentOptions(), WeightLayout.of(torch.nn.Linear(40, 40)), 0)
    with pytest.raises(ConfigError, match=r"snapshot 1: has \d+ bytes of weights, must have \d+"):
        other.load_state_dict(pool.state_dict())


def test_options_that_cannot_work_are_refused_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        OpponentOptions(share=0.0, max_snapshots=0, choice="best")  # type: ignore[arg-type]
    assert [error.split(":")[0] for error in caught.value.errors] == ["share=0", "max_snapshots=0", "choice=best"]


def test_pools_of_two_ranks_that_add_the_results_of_both_are_the_pool_of_one() -> None:
    headers = [header_of(worker, results={1: (worker, 1, 0), 2: (0, 0, worker + 1)}) for worker in range(4)]
    one, ranks = pool_of(), [pool_of(), pool_of()]
    for pool in (one, *ranks):
        for version in (1, 2):
            pool.push(network(version), version)
    for header in headers:
        one.note(header)
        ranks[header.worker_id // 2].note(header)
    one.update_scores()
    results = [pool.take_results() for pool in ranks]
    assert [pool.take_results() for pool in ranks] == [{}, {}]
    total = {v: [sum(column) for column in zip(*(each[v] for each in results), strict=True)] for v in (1, 2)}
    for pool in ranks:
        pool.add_results(total)
        assert pool.standings == one.standings
    assert [standing.games for standing in one.standings] == [10, 10]


def test_the_draws_of_a_rank_are_those_of_its_workers_among_all() -> None:
    one = pool_of()
    second = SnapshotPool(OpponentOptions(), WeightLayout.of(VersionNetwork()), 0, 2)
    for pool in (one, second):
        for version in range(5):
            pool.push(network(version), version)
    assert [second.draw(0, 0) for _ in range(9)] == [one.draw(2, 0) for _ in range(9)]
    assert [second.draw(1, 0) for _ in range(9)] == [one.draw(3, 0) for _ in range(9)]
