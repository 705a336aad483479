"""A Ray cluster of several nodes on this machine, whose nodes and network can be made to fail.

A node is what Ray starts on a machine: a raylet with its object store and its agents. Ray's own tests simulate clusters
in the same way (``ray.cluster_utils``). All nodes share this machine's processors, memory and, but for
:class:`NodeBehindCable`, its network.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest.mock
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

# Nobody else may use our clusters; by a token of our own, so that none is written into the home folder.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex + uuid.uuid4().hex)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: beside a busy process an agent would hardly start

import ray
from ray._raylet import Config
from ray.cluster_utils import Cluster

Config.initialize("")  # as Ray does when it turns tokens on: TorchRL may have imported it before they were

__all__ = ["MIB", "NodeBehindCable", "SimulatedCluster", "actor_of", "can_make_networks", "family_of", "kill_all"]

MIB = 2**20
STORE_BYTES = 80 * MIB  # Ray wants 75 MiB at least
START_TIMEOUT_S = 120.0


def family_of(pid: int) -> list[psutil.Process]:
    """A process and its descendants; none if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: list[psutil.Process], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to all of them, as nearly at once as one can."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def actor_of(pid: int) -> psutil.Process:
    """The Ray actor that a process is, or was started by.

    Raises:
        StopIteration: there is none: the process is gone, or its actor is.
        psutil.NoSuchProcess: the process is gone.
    """
    process = psutil.Process(pid)
    return next(one for one in (process, *process.parents()) if one.name().startswith("ray::"))


def no_signal_handlers() -> contextlib.AbstractContextManager[Any]:
    """Context in which Ray leaves the handling of SIGTERM alone: it is ours, and nodes may start in any thread."""
    return unittest.mock.patch("ray._private.utils.set_sigterm_handler")


class SimulatedCluster:
    """A head without processors for anybody, and nodes; a context manager that leaves nothing behind.

    Args:
        num_nodes: beside the head.
        cpus_per_node: that each of them offers.
        store_bytes: object store of each, and of the head.
        head_ip: address of the head and of all ordinary nodes; None: Ray's choice.
    """

    def __init__(
        self,
        num_nodes: int = 3,
        *,
        cpus_per_node: int = 1,
        store_bytes: int = STORE_BYTES,
        head_ip: str | None = None,
    ) -> None:
        # Names of Unix sockets may have 107 characters; and nobody else's cluster is found, nor ours by anybody.
        self.folder = Path(tempfile.mkdtemp(prefix="kr", dir="/tmp"))
        modules = os.pathsep.join(filter(None, sys.path))  # nodes can import what this process can
        self._environment = unittest.mock.patch.dict(os.environ, RAY_TMPDIR=str(self.folder), PYTHONPATH=modules)
        self._environment.start()
        self._node_options = {"num_cpus": cpus_per_node, "object_store_memory": store_bytes}
        if head_ip is not None:
            self._node_options["node_ip_address"] = head_ip
        head = {**self._node_options, "num_cpus": 0, "include_dashboard": False}
        with no_signal_handlers():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        for _ in range(num_nodes):
            self.add_node()

    @property
    def address(self) -> str:
        """For ``ray.init``."""
        return str(self._cluster.address)

    def add_node(self) -> Any:
        """Let a further node join; returns when it has. It ends with the thread that calls this."""
        with no_signal_handlers():
            node = self._cluster.add_node(**self._node_options)
        self.nodes.append(node)
        return node

    @staticmethod
    def raylet_of(node: Any) -> psutil.Process:
        """The process that a node consists of; all its others are descendants."""
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def remove_node(self, node: Any) -> None:
        """Let a node end as a machine does that loses its power: everything on it at once."""
        kill_all(family_of(self.raylet_of(node).pid))
        self._forget(node)

    def kill_raylet(self, node: Any) -> None:
        """SIGKILL the raylet alone; what else runs on the node is told by nobody."""
        self.raylet_of(node).kill()
        self._forget(node)

    def _forget(self, node: Any) -> None:
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """Disconnect this process, end all nodes and the head, and remove what they wrote."""
        processes = [
            process
            for node in self._cluster.list_all_nodes()
            for information in node.all_processes.values()
            for one in information
            for process in family_of(one.process.pid)
        ]
        ray.shutdown()
        self._cluster.shutdown()
        kill_all([process for process in processes if process.is_running()])
        self._environment.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> SimulatedCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# ---- a network that can be cut


_NUMBERS = itertools.count(os.getpid() % 200 * 256)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


def can_make_networks() -> bool:
    """Whether this process may make network namespaces and bridges."""
    try:
        with _bridge():
            return True
    except (OSError, subprocess.SubprocessError):
        return False


@contextlib.contextmanager
def _bridge() -> Iterator[tuple[str, str]]:
    """A switch of its own, as long as the block lasts: its name, and the first three numbers of its addresses."""
    number = next(_NUMBERS)
    name, network = f"krb{number}", f"10.{77 + number // 65536}.{number // 256 % 256}"
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", f"{network}.1/24", "dev", name)
        _ip("link", "set", name, "up")
        yield name, network
    finally:
        _ip("link", "delete", name)


class NodeBehindCable:
    """A node in a network namespace of its own, whose cable can be pulled: packets vanish, nobody is told.

    Make one with :meth:`on_a_switch`, which needs to be allowed to (:func:`can_make_networks`).

    Attributes:
        head_ip: address of the switch on this machine: the one to give to :class:`SimulatedCluster`.
    """

    def __init__(self, bridge: str, network: str) -> None:
        self.head_ip, self._bridge, self._address = f"{network}.1", bridge, f"{network}.2"
        self._namespace, self._cable = f"{bridge}n", f"{bridge}c"
        self._process: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._cable, "master", bridge, "up")
        for words in (f"address add {self._address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _ip("-n", self._namespace, *words.split())

    @classmethod
    @contextlib.contextmanager
    def on_a_switch(cls) -> Iterator[NodeBehindCable]:
        """A node (not started) and its switch, as long as the block lasts."""
        with _bridge() as (bridge, network):
            node = cls(bridge, network)
            try:
                yield node
            finally:
                node.close()

    def start(self, cluster: SimulatedCluster) -> None:
        """Join a cluster whose head has the address ``head_ip``; returns when the cluster knows the node."""
        before = len(_alive_nodes())
        command = [
            *("ip", "netns", "exec", self._namespace, sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *(f"--address={cluster.address}", f"--node-ip-address={self._address}", "--num-cpus=1"),
            *(f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats", "--log-color=false"),
        ]
        with open(cluster.folder / "node_behind_cable.txt", "wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _wait_until(lambda: len(_alive_nodes()) > before, START_TIMEOUT_S)

    def pull_cable(self) -> None:
        """Cut the node off: what is sent either way is lost."""
        _ip("link", "set", self._cable, "nomaster")

    def plug_in_cable(self) -> None:
        """Let packets through again."""
        _ip("link", "set", self._cable, "master", self._bridge)

    def processes(self) -> list[psutil.Process]:
        """All processes of the node."""
        return [] if self._process is None else family_of(self._process.pid)

    def close(self) -> None:
        """End everything in the namespace, and remove it."""
        inside = subprocess.run(
            ["ip", "netns", "pids", self._namespace], check=True, capture_output=True, text=True, timeout=30
        ).stdout.split()
        processes = {*self.processes(), *itertools.chain.from_iterable(family_of(int(pid)) for pid in inside)}
        kill_all(list(processes))
        if self._process is not None:
            self._process.wait()
        psutil.wait_procs(processes, timeout=10)
        _ip("netns", "delete", self._namespace)


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s")
        time.sleep(0.1)
