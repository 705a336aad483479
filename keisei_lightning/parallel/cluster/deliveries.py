"""Brings weights and snapshots to the agents: each is put into the object store once, and fetched by each agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keisei_lightning.parallel.cluster.calls import Agent, Call
from keisei_lightning.parallel.cluster.messages import Parcel
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.opponents.pool import SnapshotMemory
from keisei_lightning.parallel.supervision.messages import Opponent

__all__ = ["Deliveries"]


@dataclass(slots=True)
class _Delivered:
    """What was sent to one incarnation of an agent.

    Attributes:
        sent: version of the weights that were sent last.
        call: their transfer, while it goes on.
        snapshots: version of the snapshot in each of its buffers.
    """

    sent: int = -1
    call: Call | None = None
    snapshots: dict[int, int] = field(default_factory=dict)


class Deliveries:
    """The learner's side of all transfers of weights.

    An agent fetches one version at a time. Those that are published meanwhile are skipped, except the newest. Nothing
    is encoded before an agent can take it, and the object store holds the latest version alone (beside those that are
    on the way, and snapshots of the ring).

    Args:
        codec: encodes weights.
        put: puts data into the object store, and returns the reference.
        watch: has :meth:`on_done` called when a transfer has ended.
        snapshots: the learner's; None: there are none.
    """

    def __init__(
        self,
        codec: WeightCodec,
        *,
        put: Callable[[NDArray[np.uint8]], Any],
        watch: Callable[[Agent, Call], None],
        snapshots: SnapshotMemory | None,
    ) -> None:
        self._codec, self._put, self._watch, self._snapshots = codec, put, watch, snapshots
        self._weights: Tensor | None = None
        self._parcel: Parcel | None = None
        self._snapshot_parcels: dict[int, Parcel] = {}  # by buffer
        self._delivered: dict[int, _Delivered] = {}  # by agent
        self.version = -1
        self.num_bytes = 0
        """Bytes that were put into the object store."""

    def publish(self, weights: Tensor, version: int) -> None:
        """There is a new version; :meth:`send` sends it.

        Args:
            weights: uint8 [layout.num_bytes], valid until the second publish from now.
            version: of them.
        """
        self._weights, self.version, self._parcel = weights, version, None

    def begin(self, agent: Agent) -> None:
        """An incarnation was started, and has nothing yet."""
        self._delivered[agent.agent_id] = _Delivered()
        self.send(agent)

    def send(self, agent: Agent) -> None:
        """Send the newest weights, unless it has them or still fetches others."""
        delivered = self._delivered.get(agent.agent_id)
        if agent.calls is None or delivered is None or delivered.call is not None or delivered.sent >= self.version:
            return
        if self._parcel is None:
            assert self._weights is not None
            self._parcel = Parcel(version=self.version, data=self._packed(self._weights))
        delivered.sent, delivered.call = self.version, agent.calls.receive(self._parcel)
        self._watch(agent, delivered.call)

    def on_done(self, agent: Agent, call: Call) -> None:
        """A transfer has ended: send what was published meanwhile."""
        delivered = self._delivered[agent.agent_id]
        if delivered.call is call:
            delivered.call = None
            self.send(agent)

    def begin_again(self, agent: Agent) -> None:
        """What was sent may have been lost: send it again, as far as it is asked for (an agent that has it says so)."""
        delivered = self._delivered[agent.agent_id]
        delivered.sent = -1
        delivered.snapshots.clear()
        self.send(agent)

    def send_snapshot(self, agent: Agent, opponent: Opponent) -> None:
        """Send a snapshot, if the agent does not have it."""
        delivered = self._delivered[agent.agent_id]
        if agent.calls is None or delivered.snapshots.get(opponent.buffer) == opponent.version:
            return
        parcel = self._snapshot_parcels.get(opponent.buffer)
        if parcel is None or parcel.version != opponent.version:
            assert self._snapshots is not None
            data = self._packed(self._snapshots.buffers()[opponent.buffer])
            parcel = Parcel(version=opponent.version, data=data, buffer=opponent.buffer)
            self._snapshot_parcels[opponent.buffer] = parcel
        delivered.snapshots[opponent.buffer] = opponent.version
        self._watch(agent, agent.calls.receive(parcel))

    def _packed(self, weights: Tensor) -> Any:
        data = self._codec.encode(weights)
        self.num_bytes += len(data)
        return self._put(data)
