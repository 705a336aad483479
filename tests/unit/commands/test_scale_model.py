"""The model of scale: numbers worked out by hand, and what must hold whatever the numbers are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei_lightning.commands.bench.scale_model import (
    LOCAL,
    MOST_NODES,
    STAGES,
    Cluster,
    Network,
    Rates,
    ScaleModel,
    Training,
)

RATES = Rates(
    worker_plies_per_s=100.0,
    node_efficiency=0.5,
    learner_plies_per_s=800.0,
    overhead_s=0.5,
    node_variation=0.0,
    bytes_per_ply=10.0,
    weight_bytes=4000.0,
)
TRAINING = Training(plies_per_rollout=200, num_epochs=2, minibatch_size=100, slots_per_worker=2)
NETWORK = Network(bytes_per_s=8000.0, latency_s=0.25, store_bytes_per_s=16_000.0, rollout_s=0.125)
MODEL = ScaleModel(rates=RATES, training=TRAINING, network=NETWORK)
CLUSTER = Cluster(nodes=2, workers_per_node=4, cpus_per_node=4)
"""D = 2·4·200 = 1600 plies an iteration; Q = 2·4·0.5·100 = 400 plies/s."""


class TestByHand:
    def test_the_seconds_of_an_iteration(self) -> None:
        assert MODEL.seconds(CLUSTER) == {
            "play": 4.0,  # 1600 / 400
            "deliver": 2.25,  # 16,000 B / 8,000 B/s + 0.25
            "take": 2.0,  # 8 rollouts x 0.125 + 16,000 B / 16,000 B/s
            "learn": 2.0,  # 1600 / 800
            "publish": 0.75,  # 0.5 + 4,000 B / 16,000 B/s
            "broadcast": 1.25,  # 2 x 4,000 B / 8,000 B/s + 0.25
        }

    def test_sync_is_the_sum_of_them(self) -> None:
        predicted = MODEL.predict(CLUSTER, "sync")
        assert predicted.iteration_s == 12.25
        assert predicted.plies_per_s == 1600 / 12.25
        assert predicted.slowest == "play"
        assert predicted.learner_share == pytest.approx(2 / 12.25)
        assert predicted.worker_share == pytest.approx(4 / 12.25)
        assert predicted.policy_lag == 0
        assert predicted.steps_per_publish == 32  # 1600 x 2 / 100
        assert predicted.rollouts_bytes_per_s == pytest.approx(16_000 / 12.25)
        assert predicted.weights_bytes_per_s == pytest.approx(8000 / 12.25)  # both nodes fetch from the learner
        assert predicted.store_bytes_per_s == pytest.approx(20_000 / 12.25)  # rollouts, and the weights once
        assert predicted.rollouts_bytes == 32_000  # 2 slots x 16,000

    def test_async_is_as_fast_as_its_slowest_stage(self) -> None:
        assert MODEL.limits(CLUSTER) == {
            "play": 400.0,
            "deliver": 800.0,  # 8,000 / 10
            "broadcast": 1600.0,  # 1600 x 8,000 / 8,000
            "store": 1280.0,  # 16,000 / (10 + 4,000 / 1600)
            "learn": pytest.approx(1600 / 4.75),  # take, learn, publish
        }
        predicted = MODEL.predict(CLUSTER, "async")
        assert predicted.slowest == "learn"
        assert predicted.plies_per_s == pytest.approx(1600 / 4.75)
        assert predicted.learner_share == pytest.approx(2 / 4.75)
        # 1 rollout waits; 2,000 B / 8,000 B/s + 0.25 on its way, 1.25 for the weights, in iterations of 4.75 s
        assert predicted.policy_lag == pytest.approx(1 + 1.75 / 4.75)

    def test_rollouts_that_wait_in_more_slots_are_older(self) -> None:
        model = replace(MODEL, training=replace(TRAINING, slots_per_worker=5))
        assert model.predict(CLUSTER, "async").policy_lag == pytest.approx(4 + 1.75 / 4.75)
        quick = replace(model, rates=replace(RATES, learner_plies_per_s=1e9, overhead_s=0.0))
        assert quick.predict(CLUSTER, "async").slowest == "play"
        assert quick.predict(CLUSTER, "async").policy_lag == pytest.approx(1 + 1.75 / 4)

    def test_ranks_share_the_learning_and_add_an_all_reduce(self) -> None:
        two = replace(CLUSTER, ranks=2)
        # a rank's 800 plies, 16 steps, each 2 x 1/2 x 4,000 B through the store of the machine that both are on
        assert MODEL.seconds(two)["learn"] == 1600 / 1600 + 16 * 0.25
        assert MODEL.seconds(two)["take"] == 0.5 + 1.0
        apart = replace(two, ranks_per_machine=1)
        assert MODEL.seconds(apart)["learn"] == 1600 / 1600 + 16 * (0.5 + 2 * 0.25)  # over the network, two messages
        assert MODEL.seconds(apart)["deliver"] == 1.25  # a card each
        assert MODEL.seconds(apart)["broadcast"] == 0.75  # a node each

    def test_a_tree_takes_as_many_turns_as_the_logarithm_of_the_nodes(self) -> None:
        tree = replace(MODEL, network=replace(NETWORK, broadcast="tree"))
        cluster = replace(CLUSTER, nodes=7)
        assert MODEL.seconds(cluster)["broadcast"] == 7 * 0.5 + 0.25
        assert tree.seconds(cluster)["broadcast"] == 3 * (0.5 + 0.25)
        assert tree.limits(cluster)["broadcast"] == pytest.approx(MODEL.limits(cluster)["broadcast"] * 7 / 2)

    def test_the_slowest_of_many_nodes_is_waited_for(self) -> None:
        model = replace(MODEL, rates=replace(RATES, node_variation=0.1))
        cluster = replace(CLUSTER, nodes=100)
        assert model.seconds(cluster)["play"] == pytest.approx(4 * (1 + 0.1 * math.sqrt(2 * math.log(100))))
        assert model.seconds(replace(CLUSTER, nodes=1))["play"] == 4.0

    def test_workers_beyond_the_cpus_play_no_more(self) -> None:
        for workers, rate in [(1, 100), (2, 100), (3, 100), (8, 100)]:  # two CPUs at half the pace each
            cluster = Cluster(nodes=1, workers_per_node=workers, cpus_per_node=2)
            assert cluster.workers * 200 / MODEL.seconds(cluster)["play"] == rate

    def test_nodes_of_one_machine_share_its_cpus_with_the_learner(self) -> None:
        model = replace(MODEL, network=LOCAL, rates=replace(RATES, overhead_s=0.0))
        cluster = Cluster(nodes=3, workers_per_node=2, cpus_per_node=4, is_one_machine=True)
        both = 1 / (1 / 200 + 1 / 800)  # four CPUs play 200 plies/s or learn 800
        assert model.predict(cluster, "async").plies_per_s == pytest.approx(both)
        assert model.predict(cluster, "sync").plies_per_s == pytest.approx(both)

    def test_where_it_stops(self) -> None:
        quick = replace(MODEL, rates=replace(RATES, learner_plies_per_s=1e9, overhead_s=0.0))
        quick = replace(quick, network=replace(NETWORK, rollout_s=0.0, store_bytes_per_s=1e9))
        # a node plays 200 plies/s, the card lets 800 in: nine tenths of them with 3.6 nodes
        assert quick.nodes_for(CLUSTER, "async") == 4
        assert quick.predict(replace(CLUSTER, nodes=4), "async").plies_per_s == 800
        assert quick.predict(replace(CLUSTER, nodes=5), "async").slowest == "deliver"
        assert quick.nodes_for(CLUSTER, "async", share=0.75) == 3

    def test_what_the_learners_memory_holds(self) -> None:
        # 2 slots x 800 plies x 10 B a node
        assert MODEL.nodes_that_fit(CLUSTER, 32_000) == 2
        assert MODEL.nodes_that_fit(CLUSTER, 31_999) == 1
        assert MODEL.nodes_that_fit(CLUSTER, 100) == 0
        assert MODEL.nodes_that_fit(replace(CLUSTER, ranks=2, ranks_per_machine=1), 32_000) == 4


# ---- whatever the numbers are


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


MODELS = st.builds(
    ScaleModel,
    rates=st.builds(
        Rates,
        worker_plies_per_s=numbers(1, 1e5),
        node_efficiency=numbers(0.3, 1),
        learner_plies_per_s=numbers(1, 1e6),
        overhead_s=numbers(0, 1),
        node_variation=numbers(0, 0.5),
        bytes_per_ply=numbers(1, 1e4),
        weight_bytes=numbers(1, 1e9),
    ),
    training=st.builds(
        Training,
        plies_per_rollout=st.integers(1, 100_000),
        num_epochs=st.integers(1, 8),
        minibatch_size=st.integers(1, 8192),
        slots_per_worker=st.integers(1, 8),
    ),
    network=st.builds(
        Network,
        bytes_per_s=numbers(1e6, 1e11),
        latency_s=numbers(0, 0.1),
        store_bytes_per_s=numbers(1e6, 1e11),
        rollout_s=numbers(0, 0.1),
        broadcast=st.sampled_from(["star", "tree"]),
    ),
)
CLUSTERS = st.builds(
    Cluster,
    nodes=st.integers(1, 2000),
    workers_per_node=st.integers(1, 64),
    cpus_per_node=st.integers(1, 64),
    ranks=st.integers(1, 16),
    ranks_per_machine=st.integers(1, 8),
    is_one_machine=st.booleans(),
)
SCHEDULES = st.sampled_from(["sync", "async"])
ROUNDING = 1 + 1e-9


@given(MODELS, CLUSTERS, SCHEDULES)
def test_shares_are_shares_and_the_slowest_stage_is_a_stage(model: ScaleModel, cluster: Cluster, schedule: str) -> None:
    predicted = model.predict(cluster, schedule)  # type: ignore[arg-type]
    assert 0 < predicted.learner_share <= ROUNDING
    assert 0 < predicted.worker_share <= ROUNDING
    assert predicted.slowest in STAGES
    assert predicted.plies_per_s * predicted.iteration_s == pytest.approx(
        cluster.workers * model.training.plies_per_rollout
    )
    assert predicted.rollouts_bytes_per_s <= ROUNDING * model.network.bytes_per_s
    assert predicted.weights_bytes_per_s <= ROUNDING * model.network.bytes_per_s or schedule == "sync"


@given(MODELS, CLUSTERS, SCHEDULES, st.integers(1, 1000))
def test_more_nodes_never_collect_less(model: ScaleModel, cluster: Cluster, schedule: str, further: int) -> None:
    cluster = replace(cluster, is_one_machine=False)
    more = replace(cluster, nodes=cluster.nodes + further)
    before = model.predict(cluster, schedule).plies_per_s  # type: ignore[arg-type]
    assert model.predict(more, schedule).plies_per_s * ROUNDING >= before  # type: ignore[arg-type]


@given(MODELS, CLUSTERS)
def test_async_is_at_least_as_fast_as_sync(model: ScaleModel, cluster: Cluster) -> None:
    pipelined, in_turn = (model.predict(cluster, schedule).plies_per_s for schedule in ("async", "sync"))  # type: ignore[arg-type]
    assert pipelined * ROUNDING >= in_turn


@given(MODELS, CLUSTERS, SCHEDULES)
def test_a_better_network_never_harms(model: ScaleModel, cluster: Cluster, schedule: str) -> None:
    before = model.predict(cluster, schedule).plies_per_s  # type: ignore[arg-type]
    network = model.network
    for better in (
        replace(network, bytes_per_s=2 * network.bytes_per_s),
        replace(network, latency_s=network.latency_s / 2),
        replace(network, store_bytes_per_s=2 * network.store_bytes_per_s),
        replace(network, rollout_s=network.rollout_s / 2),
        LOCAL,
    ):
        assert replace(model, network=better).predict(cluster, schedule).plies_per_s * ROUNDING >= before  # type: ignore[arg-type]


@given(MODELS, CLUSTERS)
def test_with_few_nodes_and_a_quick_learner_players_are_all_that_counts(model: ScaleModel, cluster: Cluster) -> None:
    quick = replace(
        model,
        network=LOCAL,
        rates=replace(model.rates, learner_plies_per_s=1e15, overhead_s=0.0, node_variation=0.0),
    )
    for schedule in ("sync", "async"):
        assert quick.predict(cluster, schedule).worker_share == pytest.approx(1, rel=1e-3)  # type: ignore[arg-type]


@given(MODELS, CLUSTERS, SCHEDULES)
def test_the_number_of_nodes_that_is_enough_is_the_smallest(model: ScaleModel, cluster: Cluster, schedule: str) -> None:
    cluster = replace(cluster, is_one_machine=False)

    def rate(nodes: int) -> float:
        return model.predict(replace(cluster, nodes=nodes), schedule).plies_per_s  # type: ignore[arg-type]

    enough, wanted = model.nodes_for(cluster, schedule), 0.9 * rate(MOST_NODES)  # type: ignore[arg-type]
    assert rate(enough) >= wanted
    assert enough == 1 or rate(enough - 1) < wanted * ROUNDING
