"""A cluster of fakes: calls that a test answers, and a clock that waiting moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keisei_lightning.parallel.cluster.calls import AgentCalls, Cluster
from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Parcel, Report
from keisei_lightning.parallel.cluster.placement import Node

__all__ = ["Clock", "FakeCall", "FakeCalls", "FakeCluster", "report"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeCall:
    """A call, answered by a test with a value or an error."""

    def __init__(self, name: str, argument: Any) -> None:
        self.name, self.argument = name, argument
        self.answers: list[Any] = []

    def answer(self, value: Any = None) -> None:
        self.answers.append(value)


class FakeCalls(AgentCalls):
    """Calls to one incarnation; remembers them."""

    def __init__(self, boot: AgentBoot | None, node: Node) -> None:
        self.boot, self.node = boot, node
        self.signs: list[FakeCall] = []
        self.polls: list[FakeCall] = []
        self.parcels: list[FakeCall] = []
        self.grants: list[Grant] = []
        self.resets: list[tuple[int, ...]] = []
        self.stops: list[FakeCall] = []
        self.killed = 0

    def stand_by(self) -> FakeCall:
        self.signs.append(FakeCall("stand_by", None))
        return self.signs[-1]

    def begin(self, boot: AgentBoot) -> None:
        assert self.boot is None
        self.boot = boot

    def poll(self, accepted: int) -> FakeCall:
        self.polls.append(FakeCall("poll", accepted))
        return self.polls[-1]

    def grant(self, grant: Grant) -> None:
        self.grants.append(grant)

    def reset_games(self, workers: tuple[int, ...]) -> None:
        self.resets.append(workers)

    def receive(self, parcel: Parcel) -> FakeCall:
        self.parcels.append(FakeCall("receive", parcel))
        return self.parcels[-1]

    def stop(self, timeout_s: float) -> FakeCall:
        self.stops.append(FakeCall("stop", timeout_s))
        self.stops[-1].answer()
        return self.stops[-1]

    def kill(self) -> None:
        self.killed += 1


class FakeCluster(Cluster):
    """Starts nothing. Waiting for calls that are not answered moves the clock.

    Args:
        clock: that waiting moves.
        nodes: that are alive; a test may change them.
    """

    def __init__(self, clock: Clock, nodes: Sequence[Node]) -> None:
        self.clock, self.alive = clock, list(nodes)
        self.started: list[FakeCalls] = []
        self.stored: list[Any] = []
        self.connected = 0
        self.on_wait: Callable[[], None] = lambda: None

    def connect(self) -> None:
        self.connected += 1

    def nodes(self) -> list[Node]:
        return list(self.alive)

    def start_agent(self, boot: AgentBoot, node: Node) -> FakeCalls:
        self.started.append(FakeCalls(boot, node))
        return self.started[-1]

    def start_standby(self, agent_id: int, node: Node) -> FakeCalls:
        self.started.append(FakeCalls(None, node))
        return self.started[-1]

    def put(self, data: Any) -> Any:
        self.stored.append(data.copy())
        return len(self.stored) - 1

    def wait(self, calls: Sequence[FakeCall], timeout_s: float) -> list[FakeCall]:
        self.on_wait()
        ready = [call for call in calls if call.answers]
        if not ready:
            self.clock.now += timeout_s
        return ready

    def result(self, call: FakeCall) -> Any:
        answer = call.answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def disconnect(self) -> None:
        self.connected = 0


def report(**changes: Any) -> Report:
    values: dict[str, Any] = {"pid": 7, "rollouts": (), "workers": (), "lost_rollouts": 0, "version": 0}
    return Report(**{**values, "rss_bytes": None, **changes})
