"""A Ray cluster: connecting to it, actors for agents, its object store. Only this module and ``actor`` import Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import ray
from ray import exceptions
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from typing_extensions import override

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.cluster import placement
from keisei_lightning.parallel.cluster.actor import AgentActor
from keisei_lightning.parallel.cluster.calls import AgentCalls, AgentGoneError, AnswerLostError, Call, Cluster
from keisei_lightning.parallel.cluster.guard import ClusterGuard
from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Parcel
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.system.environment import environment_variables
from keisei_lightning.system.rank_place import present_place

__all__ = ["RayCluster", "count_places"]

_RESULT_S = 10.0  # for a result that is here already
_CONNECT_S = 10.0  # to the head of a cluster, before Ray is asked to, which waits for a minute
_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # a warning of what we do not do
_OWN_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster that is started here tells nobody on the network ...
    "RAY_worker_niceness": "0",  # ... and its workers are as nice as those of the other modes
}
_AUTHENTICATION = "ray._private.authentication.authentication_token_setup"
"""Logger that warns of Ray's default: only who has the user's token may use a cluster that is started here."""

_LONGEST_FOLDER = 40  # characters: below it are sockets, whose paths may have 107


_Strategy = NodeAffinitySchedulingStrategy | PlacementGroupSchedulingStrategy


class _ActorCalls(AgentCalls):
    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @override
    def stand_by(self) -> Call:
        return self._actor.stand_by.remote()

    @override
    def begin(self, boot: AgentBoot) -> None:
        self._actor.begin.remote(cloudpickle.dumps(boot))

    @override
    def poll(self, accepted: int) -> Call:
        return self._actor.poll.remote(accepted)

    @override
    def grant(self, grant: Grant) -> None:
        self._actor.grant.remote(grant)

    @override
    def reset_games(self, workers: tuple[int, ...]) -> None:
        self._actor.reset_games.remote(workers)

    @override
    def receive(self, parcel: Parcel) -> Call:
        return self._actor.receive.remote(parcel)

    @override
    def stop(self, timeout_s: float) -> Call:
        return self._actor.stop.remote(timeout_s)

    @override
    def kill(self) -> None:
        ray.kill(self._actor, no_restart=True)


class RayCluster(Cluster):
    """A Ray cluster: the one that this program is connected to, or one with an address, or one that is started here.

    Args:
        address: "auto", HOST:PORT of its head, or None for one on this machine, which ends with this object.
        needs: what each agent reserves of its node, by the name of the resource.
        num_agents: that a cluster of our own must have room for.
        object_store_bytes: of a cluster of our own.
        start_method: of worker processes.
        has_standbys: what an agent needs is reserved apart from its processes, which replace each other.
    """

    def __init__(
        self,
        address: str | None,
        *,
        needs: Mapping[str, float],
        num_agents: int,
        object_store_bytes: int,
        start_method: str | None = None,
        has_standbys: bool = False,
    ) -> None:
        self._address, self._needs, self._num_agents = address, dict(needs), num_agents
        self._object_store_bytes, self._start_method = object_store_bytes, start_method
        self._has_standbys = has_standbys
        self._reservations: dict[int, tuple[str, PlacementGroup]] = {}  # node and what is reserved there, by agent
        self._connected = False
        self._guard: ClusterGuard | None = None

    @override
    def connect(self) -> None:
        if ray.is_initialized():
            return
        own = _OWN_ENVIRONMENT if self._address is None else {}
        missing = {name: value for name, value in {**_ENVIRONMENT, **own}.items() if name not in os.environ}
        with environment_variables(missing), _own_signal_handlers(), _silent(_AUTHENTICATION):
            try:
                if self._address is None:
                    self._start()
                else:
                    _check_reachable(self._address)
                    ray.init(
                        address=self._address,
                        logging_level=logging.WARNING,
                        log_to_driver=False,
                        configure_logging=False,
                    )
            except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
                self._end_guard()
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                where = "a cluster on this machine" if self._address is None else f"ray_address={self._address}"
                raise ConfigError(f"{where}: Ray cannot be reached or started ({reason})") from error
        self._connected = True

    def _start(self) -> None:
        folder = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="kl-ray-", dir=folder if len(folder) < _LONGEST_FOLDER else "/tmp")
        self._guard = ClusterGuard(Path(folder))
        resources = {name: amount * self._num_agents for name, amount in self._needs.items()}
        cpus, gpus = resources.pop("CPU", 0.0), resources.pop("GPU", None)
        with environment_variables({"TMPDIR": folder}):  # the guard removes what its agents leave there
            ray.init(
                address="local",
                num_cpus=max(1, round(cpus + 0.499)),
                num_gpus=None if gpus is None else round(gpus + 0.499),
                resources=resources or None,
                object_store_memory=self._object_store_bytes,
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=folder,
            )

    @override
    def nodes(self) -> list[Node]:
        share = 1 / self.num_learners
        return [
            Node(
                node_id=node["NodeID"],
                name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                resources={name: share * amount for name, amount in node["Resources"].items()},
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    @property
    def num_learners(self) -> int:
        """How many learners of this training share the nodes, each an equal part; a cluster of our own is for one."""
        place = present_place() if self._guard is None else None
        return 1 if place is None else place.world_size

    @override
    def start_agent(self, boot: AgentBoot, node: Node) -> AgentCalls:
        pickled = cloudpickle.dumps(boot)
        if self._has_standbys and self._needs:  # Ray knows no empty bundle
            return self._start_actor(pickled, {}, self._reserve(boot.agent_id, node))
        return self._start_actor(pickled, self._needs, _on(node))

    @override
    def start_standby(self, agent_id: int, node: Node) -> AgentCalls:
        return self._start_actor(None, {}, self._reserve(agent_id, node) if self._needs else _on(node))

    def _start_actor(self, boot: bytes | None, needs: Mapping[str, float], strategy: _Strategy) -> AgentCalls:
        needs = dict(needs)
        actor = (
            ray.remote(concurrency_groups={"polls": 1, "transfers": 1})(AgentActor)  # type: ignore[call-overload]
            .options(
                num_cpus=needs.pop("CPU", 0.0),
                num_gpus=needs.pop("GPU", 0.0),
                resources=needs,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=strategy,
            )
            .remote(boot, self._start_method)
        )
        return _ActorCalls(actor)

    def _reserve(self, agent_id: int, node: Node) -> PlacementGroupSchedulingStrategy:
        """A placement group of one bundle, which holds what an agent needs; another one if the agent changes its node.

        It outlives the agent's processes, so that nobody else gets the resources while they replace each other, and
        ends with this program, whatever happens to that.
        """
        node_id, group = self._reservations.get(agent_id, ("", None))
        if group is None or node_id != node.node_id:
            if group is not None:
                self._release(agent_id)
            here = {"ray.io/node-id": node.node_id}
            group = placement_group([self._needs], strategy="STRICT_PACK", bundle_label_selector=[here])
            self._reservations[agent_id] = (node.node_id, group)
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)

    def _release(self, agent_id: int) -> None:
        """End a reservation, and with it what still runs on it."""
        remove_placement_group(self._reservations.pop(agent_id)[1])

    @override
    def put(self, data: Any) -> Any:
        return ray.put(data)

    @override
    def wait(self, calls: Sequence[Call], timeout_s: float) -> list[Call]:
        if not calls:
            time.sleep(timeout_s)
            return []
        with _interrupts_as_they_are():
            ready, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
            if ready and len(calls) > 1:
                ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        done: list[Call] = ready
        return done

    @override
    def result(self, call: Call) -> Any:
        try:
            with _interrupts_as_they_are():
                return ray.get(call, timeout=_RESULT_S)
        except exceptions.ActorUnavailableError as error:
            raise AnswerLostError(_line(error)) from error
        except exceptions.RayActorError as error:
            raise AgentGoneError(f"ended ({_reason(error)})", is_own_fault=_is_own_fault(error)) from error
        except exceptions.RayTaskError as error:
            raise AgentGoneError(f"failed ({_line(error.cause)})", is_own_fault=True) from error
        except exceptions.RayError as error:  # lost with its node, or no room in the object store, or not here in time
            raise AnswerLostError(_line(error)) from error

    @override
    def disconnect(self) -> None:
        if not self._connected and ray.is_initialized():  # the program's own connection, which goes on
            for agent_id in list(self._reservations):
                self._release(agent_id)
        self._reservations.clear()
        if self._connected:
            self._connected = False
            with _own_signal_handlers():
                ray.shutdown()
            self._end_guard()

    def _end_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.end()


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False)


def count_places(address: str | None, needs: Mapping[str, float]) -> int:
    """How many nodes have room for an agent now; 1 for a cluster that will be started on this machine.

    Args:
        address: as :class:`RayCluster` takes it.
        needs: likewise.

    Raises:
        ConfigError: the cluster cannot be reached, or no node has room.
    """
    if address is None and not ray.is_initialized():
        return 1
    cluster = RayCluster(address, needs=needs, num_agents=1, object_store_bytes=0)
    cluster.connect()
    try:
        nodes = cluster.nodes()
    finally:
        cluster.disconnect()
    number = placement.count_places(nodes, needs)
    if number == 0:
        of_each = f" for each of {cluster.num_learners} learners" if cluster.num_learners > 1 else ""
        raise ConfigError(
            f"num_agents=auto: none of the {len(nodes)} nodes of the cluster has {dict(needs)}{of_each}; lower "
            "num_workers or cpus_per_agent, or say how many agents are to wait for nodes"
        )
    return number


def _is_own_fault(error: exceptions.RayActorError) -> bool:
    return isinstance(error, exceptions.ActorDiedError) and "creation task" in str(error)


def _reason(error: exceptions.RayActorError) -> str:
    """How an actor ended, without Ray's list of what it may have been."""
    text = _line(error)
    _, _, detail = text.partition("Worker exit detail: ")
    return (detail or text).partition(" Some common causes")[0].rstrip(".")


def _line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:500]


def _check_reachable(address: str) -> None:
    """Whether something listens at an address.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


@contextlib.contextmanager
def _interrupts_as_they_are() -> Iterator[None]:
    """Context in which what a signal handler raises comes out of Ray as it is, not as the cause of a SystemError."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


@contextlib.contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Context in which a logger says nothing."""
    before, logging.getLogger(logger).disabled = logging.getLogger(logger).disabled, True
    try:
        yield
    finally:
        logging.getLogger(logger).disabled = before


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Context in which a library may set signal handlers: afterwards they are what they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
