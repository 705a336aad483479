"""What the room makes of Ray's own answers; no cluster is started."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray import exceptions

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.cluster.calls import AgentGoneError, AnswerLostError
from keisei_lightning.parallel.cluster.ray_cluster import RayCluster, count_places
from keisei_lightning.system.stopping import Stopped


@pytest.fixture
def cluster() -> RayCluster:
    return RayCluster("127.0.0.1:1", needs={"CPU": 1.0}, num_agents=1, object_store_bytes=0)


def raising(error: BaseException, cause: BaseException | None = None) -> Any:
    def fail(*args: Any, **keywords: Any) -> Any:
        raise error from cause

    return fail


@pytest.mark.parametrize("interrupt", [Stopped(15), KeyboardInterrupt()], ids=["a stop", "Ctrl-C"])
def test_an_interrupt_of_a_wait_comes_out_as_it_is(
    cluster: RayCluster, interrupt: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wait", "get"):
        monkeypatch.setattr(ray, name, raising(SystemError("returned a result with an exception set"), interrupt))
    for call in (lambda: cluster.wait(["call"], 1.0), lambda: cluster.result("call")):
        with pytest.raises(type(interrupt)) as info:
            call()
        assert info.value is interrupt


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (exceptions.ObjectLostError("0" * 56, "", ""), AnswerLostError, "lost"),
        (exceptions.GetTimeoutError("too slow"), AnswerLostError, "too slow"),
        (exceptions.ActorUnavailableError("no connection", None), AnswerLostError, "no connection"),
        (exceptions.ActorDiedError(), AgentGoneError, "ended"),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_an_answer_that_is_lost_is_told_from_an_agent_that_has_ended(
    cluster: RayCluster, error: Exception, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get", raising(error))
    with pytest.raises(kind, match=words):
        cluster.result("call")


def test_a_cluster_that_is_not_there_is_told_at_once(cluster: RayCluster) -> None:
    with pytest.raises(
        ConfigError, match=r"^ray_address=127\.0\.0\.1:1: Ray cannot be reached or started \(Connection"
    ):
        cluster.connect()
    cluster.disconnect()  # it was never connected, and nothing is to be done


def test_learners_of_one_training_share_each_node_of_a_cluster(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {
        "NodeID": "a",
        "NodeManagerHostname": "host",
        "NodeManagerAddress": "10.0.0.1",
        "Resources": {"CPU": 3.0, "tpu": 1.0},
        "Alive": True,
    }
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    assert cluster.nodes()[0].resources == node["Resources"]
    ranks = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert cluster.nodes()[0].resources == {"CPU": 1.5, "tpu": 0.5}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(
        ConfigError, match=r"none of the 1 nodes of the cluster has \{'CPU': 2\.0\} for each of 2 learners"
    ):
        count_places(None, {"CPU": 2.0})
