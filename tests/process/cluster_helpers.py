"""A Ray cluster of several nodes on this machine, which a file of tests shares."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from ray.cluster_utils import Cluster

__all__ = ["STORE_BYTES", "add_node", "ray_cluster"]

STORE_BYTES = 80 * 2**20
"""Of each node's object store; Ray takes no less than 75 MiB."""


@contextlib.contextmanager
def ray_cluster(cpus: Sequence[int]) -> Iterator[Cluster]:
    """A cluster with a node for each entry; an agent needs a CPU for each of its workers.

    Args:
        cpus: of each node; the first one is the head's.
    """
    folder = tempfile.mkdtemp(prefix="kl-", dir="/tmp")  # short: below it are sockets, whose paths may have 107 letters
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED")}
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = Cluster()
    try:
        for number, count in enumerate(cpus):
            add_node(cluster, count, **({"temp_dir": folder} if number == 0 else {}))
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def add_node(cluster: Cluster, cpus: int, **options: Any) -> Any:
    """Let a node with so many CPUs join; ``cluster.remove_node`` takes it away."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False, **options)
