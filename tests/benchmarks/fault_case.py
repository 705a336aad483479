"""One case of ``faults_side_by_side.py`` in a process of its own: one collector, one fault, and what came of it.

Workers are known by their process id: the game writes it into the observations together with the number of its steps,
so that batches tell who played them, and what each process began but nobody was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.collectors import BaseCollector, MultiAsyncCollector, MultiSyncCollector

from keisei_lightning.envs import BoardGameEnv
from keisei_lightning.games import GameSpec, StepResult, game_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

__all__ = ["ERROR_TEXT", "EXIT_CODE", "FAULTS", "GAME", "GAMES", "LIMITS_S", "PLIES", "Case", "is_ended", "wait_for"]

GAME, GAMES, PLIES = "tic_tac_toe", 8, 32
WARM_UP_BATCHES = 8
EXIT_CODE = 3
ERROR_TEXT = "broken on purpose"
SHUTDOWN_LIMIT_S, AFTER_SHUTDOWN_S, PROOF_S = 30.0, 5.0, 10.0
LIMITS_S = SHUTDOWN_LIMIT_S + AFTER_SHUTDOWN_S + PROOF_S
"""Longest time that a case takes, beside its start and its patience."""
STEPS, FIRE_AT, FAULT, FIRED_NS = range(4)
"""Fields of a process's orders; see ``open_orders``."""


class PatienceOverError(BaseException):
    """Patience has lasted long enough; not an ``Exception``, as ``KeyboardInterrupt`` is none."""


# ---- the faults


def send_myself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def fail() -> NoReturn:
    raise ValueError(ERROR_TEXT)


def kill_actor() -> None:
    """SIGKILL the Ray actor that this process is, or that it plays for."""
    family = [psutil.Process(), *psutil.Process().parents()]
    next(process for process in family if process.name().startswith("ray::")).kill()
    time.sleep(PROOF_S)  # a process that plays for the actor ends with it


FAULTS: dict[str, Callable[[], object]] = {
    "SIGKILL": functools.partial(send_myself, signal.SIGKILL),
    "SIGKILL of the actor": kill_actor,
    "SIGSTOP": functools.partial(send_myself, signal.SIGSTOP),
    "exception": fail,
    "os._exit": functools.partial(os._exit, EXIT_CODE),
}


def open_orders(folder: Path, pid: int) -> NDArray[np.int64]:
    """Memory shared with one process: its steps, and which fault it has to make at which of them, and made when."""
    with open(folder / f"{pid}.orders", "ab") as file:
        file.truncate(4 * 8)
    return np.memmap(file.name, np.int64, mode="r+", shape=(4,))


class WatchedGame:
    """A game that obeys orders, and whose observation has one plane more: the process id and its number of steps."""

    def __init__(self, num_games: int, *, folder: Path) -> None:
        self._game = game_factory(GAME)(num_games)
        planes, *board = self._game.spec.observation_shape
        self.spec: GameSpec = dataclasses.replace(
            self._game.spec, observation_shape=(planes + 1, *board), symmetries=()
        )
        self._orders = open_orders(folder, os.getpid())
        self._mark = np.zeros((1, *board), np.uint8)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._game, name)

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        self._game.observe(observation[:, :-1], legal, mover)
        self._mark.reshape(-1)[:8] = np.array([os.getpid(), self._orders[STEPS]], np.int32).view(np.uint8)
        observation[:, -1:] = self._mark

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = self._game.step(actions)
        orders = self._orders
        orders[STEPS] += 1
        if 0 < orders[FIRE_AT] <= orders[STEPS]:
            orders[FIRE_AT] = 0
            orders[FIRED_NS] = time.monotonic_ns()
            list(FAULTS.values())[orders[FAULT]]()
        return result


class Network(nn.Module):
    """One linear layer; it does not look at the mark."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(27, 10)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation[:, :-1].flatten(1).float())
        return out[:, :-1], torch.tanh(out[:, -1:])


# ---- one case


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is done to what, as told on the command line of its process."""

    maker: str
    schedule: str
    tuned: bool
    fault: str
    workers: int
    patience_s: float
    heartbeat_s: float
    restart_backoff_s: float
    max_idle_count: int
    publish: bool

    @property
    def is_ours(self) -> bool:
        return self.maker.startswith("keisei")

    @property
    def is_possible(self) -> bool:
        """Only an actor can be killed that is one."""
        return self.fault != "SIGKILL of the actor" or self.maker.endswith("-ray")

    @property
    def subject(self) -> str:
        name = {
            "keisei": "SelfPlayCollector",
            "keisei-ray": "SelfPlayCollector",
            "torchrl": f"TorchRL Multi{self.schedule.title()}Collector",
            "torchrl-ray": "TorchRL RayCollector",
        }[self.maker]
        options = ["mode=ray"] if self.maker == "keisei-ray" else []
        options += [] if self.maker == "torchrl" else [f"schedule={self.schedule}"]
        if self.tuned:
            ours = [f"heartbeat_s={self.heartbeat_s:g}", f"restart_backoff_s={self.restart_backoff_s:g}"]
            options += ours if self.is_ours else [f"MAX_IDLE_COUNT={self.max_idle_count}"]
        return f"{name}, {', '.join(options)}" if options else name

    def collector(self, folder: Path) -> BaseCollector:
        torch.manual_seed(0)
        game = functools.partial(WatchedGame, folder=folder)
        policy = ActorCritic(Network())
        if self.is_ours:
            options = {"heartbeat_s": self.heartbeat_s, "restart_backoff_s": self.restart_backoff_s}
            return SelfPlayCollector(
                game,
                policy,
                mode="ray" if self.maker == "keisei-ray" else "workers",
                schedule="sync" if self.schedule == "sync" else "async",
                num_workers=self.workers,
                games_per_worker=GAMES,
                plies_per_rollout=PLIES,
                **(options if self.tuned else {}),  # type: ignore[arg-type]
            )
        makers = [functools.partial(BoardGameEnv, game, GAMES, seed=worker) for worker in range(self.workers)]
        plies = GAMES * PLIES
        if self.maker == "torchrl-ray":
            return self._ray_collector(makers, policy.as_policy())
        if self.schedule == "sync":
            return MultiSyncCollector(
                makers, policy.as_policy(), frames_per_batch=plies * self.workers, cat_results="stack"
            )
        return MultiAsyncCollector(makers, policy.as_policy(), frames_per_batch=plies)

    def _ray_collector(self, makers: list[Callable[[], BoardGameEnv]], policy: Any) -> BaseCollector:
        from torchrl.collectors.distributed import RayCollector

        is_sync = self.schedule == "sync"
        collector = RayCollector(
            makers,
            policy,
            frames_per_batch=GAMES * PLIES * (self.workers if is_sync else 1),
            total_frames=2**62,
            sync=is_sync,
            remote_configs={"num_cpus": 1},
            ray_init_config={
                "address": "local",
                "num_cpus": self.workers,
                "include_dashboard": False,
                "object_store_memory": 256 * 2**20,
            },
        )
        collector.update_policy_weights_()
        return collector


class Ledger:
    """Which rollouts of which process were delivered, by the first mark in each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.delivered: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, batch: TensorDictBase) -> set[int]:
        """The processes that have played a batch [..., T]."""
        marks = batch["observation"][..., 0, -1, :, :].flatten(-2)[..., :8].reshape(-1, 8).contiguous()
        rollouts = {(int(pid), int(step)) for pid, step in marks.numpy().view(np.int32)}
        for pid, step in rollouts:
            assert step not in self.delivered[pid], f"delivered twice: process {pid}, step {step}"
            self.delivered[pid].append(step)
        return {pid for pid, _ in rollouts}

    def undelivered(self, pid: int) -> int:
        """Rollouts that a process has begun since its first delivered one, less those that were delivered."""
        steps = open_orders(self._folder, pid)[STEPS] - min(self.delivered[pid])
        return math.ceil(int(steps) / PLIES) - len(self.delivered[pid])


def is_ended(pid: int) -> bool:
    """Whether a process is gone, or what is left of it is a zombie."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], object], limit_s: float) -> float | None:
    """Seconds until the condition held; None if it never did."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > limit_s:
            return None
        time.sleep(0.005)
    return time.monotonic() - start


def prove(pid: int, orders: NDArray[np.int64], fault: str, proof: dict[str, Any]) -> None:
    """Note when the fault was made and when its process was first seen ended (or stopped), from outside."""
    wait_for(lambda: orders[FIRED_NS], PROOF_S)
    fault_s = orders[FIRED_NS] / 1e9
    if fault_s and wait_for(lambda: (is_stopped if fault == "SIGSTOP" else is_ended)(pid), PROOF_S) is not None:
        proof["seen_after_s"] = time.monotonic() - fault_s


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds, as Ctrl-C would."""

    def interrupt(*_: object) -> None:
        raise PatienceOverError

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def watch(
    case: Case, collector: BaseCollector, batches: Iterator[Any], ledger: Ledger, victim: int, orders: Any
) -> tuple[dict[str, Any], BaseException | None]:
    """Ask for batches after the fault was ordered; what came of it (seconds after the fault), and what was raised."""
    before = set(ledger.delivered)
    arrivals: list[tuple[float, set[int]]] = []
    found: dict[str, Any] = {}
    raised: BaseException | None = None
    doing = "the next batch"
    try:
        with patience(case.patience_s):
            while True:
                doing = "the next batch"
                pids = ledger.take(next(batches))
                if orders[FIRED_NS]:
                    arrivals.append((time.monotonic() - orders[FIRED_NS] / 1e9, pids))
                if case.publish:
                    doing = "update_policy_weights_"
                    collector.update_policy_weights_()
                since = set().union(*(seen for _, seen in arrivals)) - {victim}  # what it had finished may come later
                if since - before and len(since) >= case.workers:
                    found["outcome"] = f"goes on with {case.workers} workers"
                    found["replaced_s"] = next(at for at, seen in arrivals if seen - before)
                    break
    except PatienceOverError as error:
        raised = error
        late = set().union(*(seen for at, seen in arrivals if at > case.patience_s / 2))
        found["outcome"] = f"goes on with {len(late)} of {case.workers} workers" if late else f"hangs in {doing}"
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is to be found out
        raised = error
        found["outcome"] = f"raises {type(error).__name__}"
        found["message"] = str(error).strip()
        found["error_s"] = time.monotonic() - orders[FIRED_NS] / 1e9
    end = time.monotonic() - orders[FIRED_NS] / 1e9
    times = [0.0, *(at for at, _ in arrivals), end]
    found["longest_wait_s"] = max(later - earlier for earlier, later in itertools.pairwise(times))
    return found, raised


def shut_down(collector: BaseCollector, pids: set[int]) -> dict[str, Any]:
    """Shut down; count what is left of the workers when it returns and later, and kill that."""
    found: dict[str, Any] = {"shutdown_error": None}
    start = time.monotonic()
    try:
        with patience(SHUTDOWN_LIMIT_S):
            collector.shutdown()
    except PatienceOverError:
        found["shutdown_error"] = "hangs"
    except Exception as error:  # noqa: BLE001 - as above
        found["shutdown_error"] = f"{type(error).__name__}: {error}"
    found["shutdown_s"] = time.monotonic() - start
    left = {pid for pid in pids if not is_ended(pid)}
    found["alive_at_return"] = len(left)
    found["zombies_at_return"] = sum(psutil.pid_exists(pid) for pid in pids - left)
    waited_s = wait_for(lambda: all(is_ended(pid) for pid in pids), AFTER_SHUTDOWN_S)
    found["gone_s"] = None if waited_s is None else found["shutdown_s"] + waited_s
    for pid in pids:
        if not is_ended(pid):
            os.kill(pid, signal.SIGKILL)
    return found


def run_case(case: Case, folder: Path) -> None:
    """The whole course of one case, which ends as a program does that shuts down in a ``finally``."""
    collector = case.collector(folder)
    ledger = Ledger(folder)
    batches = iter(collector)
    taken = 0
    while taken < WARM_UP_BATCHES or len(ledger.delivered) < case.workers:
        ledger.take(next(batches))
        taken += 1
    assert len(ledger.delivered) == case.workers, "a worker was lost before the fault"
    victim = min(ledger.delivered)
    orders, proof = open_orders(folder, victim), dict[str, Any]()
    assert not is_ended(victim)
    output = folder / "output"
    offset = output.stat().st_size
    orders[FAULT] = list(FAULTS).index(case.fault)
    witness = threading.Thread(target=prove, args=(victim, orders, case.fault, proof), daemon=True)
    witness.start()
    orders[FIRE_AT] = orders[STEPS] + PLIES // 2
    found, raised = watch(case, collector, batches, ledger, victim, orders)
    witness.join()
    assert orders[FIRED_NS], "the fault was never made"
    assert case.fault == "exception" or "seen_after_s" in proof, "the fault was made and nobody saw it"
    broken = not found["outcome"].startswith("goes on")
    counted = collector.stats()["lost_rollouts"] if isinstance(collector, SelfPlayCollector) else None
    lost = sum(ledger.undelivered(pid) for pid in list(ledger.delivered) if broken or is_ended(pid) or is_stopped(pid))
    printed = output.read_bytes()[offset:].decode(errors="replace")
    workers = {int(path.stem) for path in folder.glob("*.orders")} - {os.getpid()}
    result = (
        dataclasses.asdict(case)
        | {"victim_seen_s": proof.get("seen_after_s"), "replaced_s": None, "error_s": None}
        | {"lost_rollouts": lost, "lost_rollouts_by_its_own_count": counted, "message": "", "printed": printed[:4000]}
        | found
        | shut_down(collector, workers)
    )
    (folder / "result.json").write_text(json.dumps(result))
    if raised is not None:
        raise raised


if __name__ == "__main__":
    run_case(Case(**json.loads(sys.argv[1])), Path(sys.argv[2]))
