"""Brings weights and snapshots to the agents: each is put into the object store once, and fetched by each agent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keisei_lightning.parallel.cluster.calls import Agent, AgentCalls, Call
from keisei_lightning.parallel.cluster.messages import Parcel
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.opponents.memory import SnapshotMemory
from keisei_lightning.parallel.supervision.messages import Opponent

__all__ = ["Deliveries"]

_logger = logging.getLogger("keisei_lightning.cluster")
_FIRST_TRY_S = 2.0  # for an agent to fetch weights; each further try takes twice as long ...
_LONGEST_TRY_S = 32.0  # ... at most so long
_MAX_TRIES = 5  # in a row


@dataclass(slots=True)
class _Delivered:
    """What was sent to one incarnation of an agent.

    Attributes:
        sent: version of the weights that were sent last.
        snapshots: version of the snapshot in each of its buffers.
        on_the_way: transfers that go on.
        within_s: how long it tries to fetch.
        misses: how many tries in a row have failed.
    """

    sent: int = -1
    snapshots: dict[int, int] = field(default_factory=dict)
    on_the_way: dict[Call, Parcel] = field(default_factory=dict)
    within_s: float = _FIRST_TRY_S
    misses: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether it fetches weights of the policy."""
        return any(parcel.buffer is None for parcel in self.on_the_way.values())


class Deliveries:
    """The learner's side of all transfers of weights.

    An agent fetches one version at a time. Those that are published meanwhile are skipped, except the newest. Nothing
    is encoded before an agent can take it, and the object store holds the latest version alone (beside those that are
    on the way, and snapshots of the ring).

    Ray fetches from any node that has a copy, also from one that does not answer any more. So what an agent could not
    fetch in time is put anew, where the learner's is the only copy.

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
        self._stored: Any = None  # reference to the weights in the object store
        self._stored_snapshots: dict[int, tuple[int, Any]] = {}  # by buffer: version, and the same
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
        self._weights, self.version, self._stored = weights, version, None

    def begin(self, agent: Agent) -> None:
        """An incarnation was started, and has nothing yet."""
        self._delivered[agent.agent_id] = _Delivered()
        self.send(agent)

    def send(self, agent: Agent) -> None:
        """Send the newest weights, unless it has them or still fetches others."""
        delivered = self._delivered.get(agent.agent_id)
        if agent.calls is None or delivered is None or delivered.is_busy or delivered.sent >= self.version:
            return
        if self._stored is None:
            assert self._weights is not None
            self._stored = self._packed(self._weights)
        delivered.sent = self.version
        self._send(agent, agent.calls, self.version, self._stored)

    def on_done(self, agent: Agent, call: Call, *, has_arrived: bool) -> None:
        """A transfer has ended: send what was published meanwhile, or the same again."""
        delivered = self._delivered[agent.agent_id]
        parcel = delivered.on_the_way.pop(call, None)
        if parcel is None:  # it was sent again since
            return
        if has_arrived:
            delivered.misses = 0
        else:
            self._on_missed(agent, delivered, parcel)
        self.send(agent)

    def _on_missed(self, agent: Agent, delivered: _Delivered, parcel: Parcel) -> None:
        _logger.warning("%s has not got weights within %g s; they are sent again", agent.name, parcel.within_s)
        delivered.misses += 1
        delivered.within_s = min(2 * parcel.within_s, _LONGEST_TRY_S)
        if parcel.buffer is None:
            delivered.sent = -1
            if self._stored is parcel.data:
                self._stored = None
            return
        delivered.snapshots.pop(parcel.buffer, None)
        assert self._snapshots is not None
        if self._snapshots.versions.array()[parcel.buffer] == parcel.version:  # else no grant waits for it any more
            if self._stored_snapshots[parcel.buffer][1] is parcel.data:
                del self._stored_snapshots[parcel.buffer]
            self.send_snapshot(agent, Opponent(version=parcel.version, buffer=parcel.buffer))

    def begin_again(self, agent: Agent) -> None:
        """What was sent may have been lost: send it again, as far as it is asked for (an agent that has it says so)."""
        delivered = self._delivered[agent.agent_id]
        delivered.sent = -1
        delivered.snapshots.clear()
        delivered.on_the_way.clear()
        self.send(agent)

    def send_snapshot(self, agent: Agent, opponent: Opponent) -> None:
        """Send a snapshot, if the agent does not have it; a player needs nothing to be sent."""
        delivered = self._delivered[agent.agent_id]
        if (
            opponent.buffer is None
            or agent.calls is None
            or delivered.snapshots.get(opponent.buffer) == opponent.version
        ):
            return
        version, stored = self._stored_snapshots.get(opponent.buffer, (-1, None))
        if version != opponent.version:
            assert self._snapshots is not None
            stored = self._packed(self._snapshots.buffers()[opponent.buffer])
            self._stored_snapshots[opponent.buffer] = opponent.version, stored
        delivered.snapshots[opponent.buffer] = opponent.version
        self._send(agent, agent.calls, opponent.version, stored, buffer=opponent.buffer)

    def _send(self, agent: Agent, calls: AgentCalls, version: int, data: Any, *, buffer: int | None = None) -> None:
        delivered = self._delivered[agent.agent_id]
        parcel = Parcel(
            version=version,
            data=data,
            within_s=delivered.within_s,
            is_last_try=delivered.misses + 1 >= _MAX_TRIES,
            buffer=buffer,
        )
        call = calls.receive(parcel)
        delivered.on_the_way[call] = parcel
        self._watch(agent, call)

    def _packed(self, weights: Tensor) -> Any:
        data = self._codec.encode(weights)
        self.num_bytes += len(data)
        return self._put(data)
