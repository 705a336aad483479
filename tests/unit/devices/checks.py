"""The checks that run in a process of their own, on a device that is not there; see ``test_devices.py``.

Each is a function that raises. What is planted by ``planted`` is a fault that the others are to find: it is run here
too, and must be refused.
"""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "training"), str(FOLDER.parents[1])]

from faraway import NAME, MixedDevicesError, Watch, far_away, install  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, unset_fake_temporarily  # noqa: E402

from keisei_lightning.games import game_factory  # noqa: E402
from keisei_lightning.models import ActorCritic, build_network  # noqa: E402
from keisei_lightning.models.transfers import plies_to_device  # noqa: E402
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock, MailboxLayout  # noqa: E402
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightStore  # noqa: E402
from keisei_lightning.parallel.opponents.memory import OpponentSetup  # noqa: E402
from keisei_lightning.parallel.opponents.pool import SnapshotPool  # noqa: E402
from keisei_lightning.parallel.options import OpponentOptions  # noqa: E402
from keisei_lightning.parallel.playing.policy_worker import PolicyReplica  # noqa: E402
from keisei_lightning.parallel.policy import acting  # noqa: E402
from keisei_lightning.parallel.policy.inference_requests import LEARNER, InferenceRequest  # noqa: E402
from keisei_lightning.training import optimizer  # noqa: E402
from keisei_lightning.training.minibatches import (  # noqa: E402
    add_advantages,
    decouple,
    minibatches,
    shuffle_generator,
)
from keisei_lightning.training.module import PPOModule  # noqa: E402
from keisei_lightning.training.ppo_loss import OUTCOME_TARGET  # noqa: E402

DEVICE = torch.device("privateuseone")  # its name until it is given another
CPU = torch.device("cpu")
SPEC = game_factory("shogi")(1).spec
GAMES, PLIES = 8, 4
WORKERS, GROUP_GAMES = 2, 3
PRECISIONS = ("32-true", "bf16-mixed")


def network(**options: Any) -> ActorCritic:
    return ActorCritic(build_network(SPEC, num_blocks=1, channels=8, **options))


@contextmanager
def device_there() -> Iterator[Watch]:
    """Fakes, the device, and a watch; random streams there are the default one, which is all that fakes have."""
    with (
        far_away(),
        mock.patch.object(acting, "new_generator", return_value=_NoStream()),
        mock.patch.object(copy, "deepcopy", copied),
        Watch() as watch,
    ):
        yield watch


_deepcopy = copy.deepcopy


def copied(structure: Any, memo: Any = None) -> Any:
    """Fakes cannot be copied deeply: another structure of the same kind."""
    if not isinstance(structure, ActorCritic):
        return _deepcopy(structure, memo)
    with unset_fake_temporarily():
        return network().to("meta")


class _NoStream:
    """In place of a generator: the backend has none. ``torch.rand`` is told so by :func:`rand_there`."""

    device = DEVICE

    def manual_seed(self, seed: int) -> _NoStream:
        return self


def rand_there(*args: Any, generator: Any = None, **options: Any) -> Tensor:
    return _torch_rand(*args, **options)


_torch_rand = torch.rand


def lay_there(module: nn.Module) -> None:
    """Let a module's tensors lie on the device: a fake cannot be moved as a module."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(like_there(parameter))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = like_there(buffer)


def like_there(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)


def policy_there(**options: Any) -> ActorCritic:
    with unset_fake_temporarily():
        policy = network(**options)
    lay_there(policy)
    return policy


# The learner's path.


def rollout() -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    shape, bits = (GAMES, PLIES), SPEC.mask_bytes
    mover = (torch.arange(PLIES) % 2).to(torch.int8).expand(shape).contiguous()
    flag = torch.zeros(*shape, 1, dtype=torch.bool)
    return TensorDict(
        {
            "observation": torch.zeros(*shape, *SPEC.observation_shape, dtype=torch.uint8),
            "action_mask": torch.full((*shape, bits), 255, dtype=torch.uint8),
            "action": torch.randint(SPEC.num_actions, shape, generator=generator),
            "action_log_prob": torch.zeros(shape),
            "state_value": torch.rand(*shape, 1, generator=generator),
            "mover": mover,
            "trainable": torch.ones(shape, dtype=torch.bool),
            "next": {
                "reward": torch.randn(*shape, 1, generator=generator),
                "done": flag,
                "terminated": flag,
                "truncated": flag,
                "state_value": torch.rand(*shape, 1, generator=generator),
                "mover": 1 - mover,
            },
        },
        batch_size=shape,
    )


_plies, _trainable = add_advantages(rollout(), gamma=0.99, lmbda=0.95, normalize=True)
PLIES_OF_A_ROLLOUT = {key: column.contiguous().numpy() for key, column in _plies.items()}
TRAINABLE = _trainable.numpy()


class Learner:
    """What Lightning's loop does with a module, one minibatch at a time."""

    def __init__(
        self, *, precision: str, decoupled: bool = False, equivariant: bool = False, outcomes: bool = False
    ) -> None:
        self.precision = precision
        columns = {key: torch.from_numpy(column) for key, column in PLIES_OF_A_ROLLOUT.items()}  # fakes by now
        self.plies = TensorDict(columns, batch_size=GAMES * PLIES)
        self.trainable = torch.from_numpy(TRAINABLE)
        self.actor_critic = policy_there(equivariant=equivariant, value_head="wdl" if outcomes else "scalar")
        with unset_fake_temporarily():
            self.module = PPOModule(self.actor_critic)  # its check of a network against a game reads numbers
        lay_there(self.module.loss)  # as on_fit_start moves it
        self.module._meter = type(self.module._meter)(self.module._meter._names, DEVICE)
        with mock.patch.object(optimizer, "_may_fuse", return_value=True):  # as on a CUDA device
            self.optimizer = self.module.configure_optimizers()
        self.decoupled, self.outcomes = decoupled, outcomes

    def learn(self) -> tuple[int, int, int]:
        """One PPO iteration; what was counted per minibatch (the pass's permutation is one transfer more)."""
        plies = plies_to_device(self.plies, DEVICE)
        if self.decoupled:
            with torch.autocast(NAME, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                plies = decouple(plies, self.trainable, self.module, num_minibatches=2)
        if self.outcomes:  # as add_outcomes does it, whose advantages are computed on the CPU
            plies = plies.clone(recurse=False).set(OUTCOME_TARGET, torch.zeros(len(plies), 3, device=DEVICE))
        steps, epochs = 0, 2
        options: Any = {"num_epochs": epochs, "num_minibatches": 2, "generator": shuffle_generator(0, 1)}
        with Watch() as watch:
            for minibatch in minibatches(plies, self.trainable, **options):
                self.optimizer.zero_grad()
                with torch.autocast(NAME, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    loss = self.module.training_step(minibatch, steps)
                loss.backward()
                self.module.configure_gradient_clipping(self.optimizer, 0.5, "norm")
                self.optimizer.step()
                steps += 1
        assert steps == 2 * epochs
        to_device, to_host, waits = watch.counts()
        return to_device - epochs, to_host, waits


def learner_waits_for_nothing(precision: str, **options: bool) -> None:
    with device_there():
        learner = Learner(precision=precision, **options)
        counts = learner.learn()
        assert counts == (0, 0, 0), counts
        assert all(parameter.grad is not None for parameter in learner.actor_critic.parameters())
        assert {parameter.device.type for parameter in learner.actor_critic.parameters()} == {NAME}
        with Watch() as watch:
            metrics = learner.module._meter.compute()
        assert watch.counts() == (0, 1, 0), watch.counts()
        assert "grad_norm" in metrics


def weights_go_out_in_one_transfer() -> None:
    store, pool = WeightStore(WeightLayout.of(network()), 1), snapshot_pool()
    try:
        with device_there():
            policy = policy_there()
            for publish in (lambda: store.publish(policy, 1), lambda: pool.push(policy, 1)):
                with Watch() as watch:
                    publish()
                assert watch.counts() == (0, 1, 0), watch.counts()
        assert store.latest_version == 1
        assert [standing.version for standing in pool.standings] == [1]
    finally:
        store.close()
        pool.close()


# The inference process's path.


def snapshot_pool() -> SnapshotPool:
    return SnapshotPool(OpponentOptions(), WeightLayout.of(network()), 0)


class Inference:
    """The inference process's policy, and a mailbox of two workers."""

    def __init__(self, precision: str, *, with_snapshots: bool = False) -> None:
        structure = network()
        self.store, self.pool = WeightStore(WeightLayout.of(structure), 1), snapshot_pool()
        self.store.publish(structure, 0)
        for version in (3, 7):
            self.pool.push(structure, version)
        self._precision, self._with_snapshots = precision, with_snapshots
        self._structure = copy.deepcopy(structure).to("meta")
        layout = MailboxLayout(
            num_workers=WORKERS,
            group_games=(GROUP_GAMES,),
            observation_shape=SPEC.observation_shape,
            mask_bytes=SPEC.mask_bytes,
        )
        memory = np.zeros(layout.num_bytes, np.uint8)
        self.block: GroupBlock = layout.views(memory).groups[0].block(memory)

    def start(self) -> None:
        """On the device."""
        self.replica = PolicyReplica(
            self._structure,
            weights=self.store.memory,
            reader_id=0,
            device=DEVICE,
            precision=self._precision,
            num_actions=SPEC.num_actions,
            opponents=OpponentSetup(memory=self.pool.memory, share=0.5) if self._with_snapshots else None,
        )
        (self.server,) = self.replica.make_batched_servers([self.block], is_pinned=False)
        self.server.begin_rollout(5)

    def request(self, request: InferenceRequest) -> tuple[int, int, int]:
        """What one request costs."""
        with mock.patch.object(torch, "rand", rand_there), Watch() as watch:
            result = self.server.submit(request).result()
        games = len(request.observation)
        moves = games if request.legal is not None else 0
        shapes = (result.action.shape, result.log_prob.shape, result.value.shape)
        assert shapes == ((moves,), (moves,), (games, 1)), shapes
        assert (result.action.dtype, result.log_prob.dtype) == (np.int64, np.float32)
        return watch.counts()

    def close(self) -> None:
        self.store.close()
        self.pool.close()


@contextmanager
def inference(precision: str = "32-true", **options: bool) -> Iterator[Inference]:
    process = Inference(precision, **options)
    try:
        with device_there():
            process.start()
            yield process
    finally:
        process.close()


def a_full_request_is_one_transfer_each_way(precision: str) -> None:
    with inference(precision) as process:
        block = process.block
        counts = process.request(InferenceRequest(block.observation, block.legal))
        assert counts == (1, 1, 0), counts


def a_request_without_a_dead_workers_games_comes_back_in_one_transfer(precision: str) -> None:
    with inference(precision) as process:
        block = process.block
        counts = process.request(InferenceRequest(block.observation[:GROUP_GAMES], block.legal[:GROUP_GAMES]))
        assert counts == (2, 1, 0), counts


def values_alone_come_back_in_one_transfer(precision: str) -> None:
    with inference(precision) as process:
        counts = process.request(InferenceRequest(process.block.observation))
        assert counts == (1, 1, 0), counts


def moves_of_learner_and_snapshots_come_back_in_one_transfer(precision: str) -> None:
    with inference(precision, with_snapshots=True) as process:
        to_move = np.array([LEARNER, 3, 7, 3, LEARNER, 7])
        request = InferenceRequest(process.block.observation, process.block.legal, to_move)
        first, again = process.request(request), process.request(request)
        assert first == (6 + 2, 1, 0), first  # observation and mask of each of three, and two snapshots' weights, once
        assert again == (6, 1, 0), again


def new_weights_are_adopted_in_one_transfer_and_lie_where_the_old_ones_did() -> None:
    with inference() as process:
        named = dict(process.replica._policy.named_parameters())
        with Watch() as watch:
            assert process.replica.weights.adopt() == 0
        assert watch.counts() == (1, 0, 0), watch.counts()
        for name, parameter in process.replica._policy.named_parameters():
            assert parameter is named[name]
            assert parameter.device.type == NAME


CHECKS: dict[str, Callable[[], None]] = {
    "weights_go_out_in_one_transfer": weights_go_out_in_one_transfer,
    "adoption": new_weights_are_adopted_in_one_transfer_and_lie_where_the_old_ones_did,
}
for _precision in PRECISIONS:
    CHECKS |= {
        f"learner-{_precision}": lambda p=_precision: learner_waits_for_nothing(p),  # type: ignore[misc]
        f"learner-decoupled-{_precision}": lambda p=_precision: learner_waits_for_nothing(p, decoupled=True),  # type: ignore[misc]
        f"learner-equivariant-{_precision}": lambda p=_precision: learner_waits_for_nothing(p, equivariant=True),  # type: ignore[misc]
        f"learner-outcomes-{_precision}": lambda p=_precision: learner_waits_for_nothing(p, outcomes=True),  # type: ignore[misc]
        f"full-request-{_precision}": lambda p=_precision: a_full_request_is_one_transfer_each_way(p),  # type: ignore[misc]
        f"partial-request-{_precision}": lambda p=_precision: (  # type: ignore[misc]
            a_request_without_a_dead_workers_games_comes_back_in_one_transfer(p)
        ),
        f"values-{_precision}": lambda p=_precision: values_alone_come_back_in_one_transfer(p),  # type: ignore[misc]
        f"snapshots-{_precision}": lambda p=_precision: (  # type: ignore[misc]
            moves_of_learner_and_snapshots_come_back_in_one_transfer(p)
        ),
    }


# Faults, each planted in one place: the checks above must find them.


@contextmanager
def planted(owner: Any, name: str, fault: Callable[[Any], Any]) -> Iterator[None]:
    """Let what a function gives pass through a fault."""
    right = getattr(owner, name)

    def wrong(*args: Any, **options: Any) -> Any:
        return fault(right(*args, **options))

    with mock.patch.object(owner, name, wrong):
        yield


def on_the_cpu(given: Any) -> Any:
    """The same, but on the CPU."""
    return torch.zeros(given.shape, dtype=given.dtype, device="cpu")


def by_the_cpu(given: Any) -> Any:
    """The same, but by way of the CPU."""
    return given.to("cpu").to(DEVICE)


def _module(name: str) -> Any:
    return sys.modules[f"keisei_lightning.{name}"]


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "the minibatch's index": (
        lambda: planted(_module("training.minibatches"), "to_device", on_the_cpu),
        "learner-32-true",
    ),
    "the learner's mask": (
        lambda: planted(_module("models.distribution"), "unpack_mask", on_the_cpu),
        "learner-32-true",
    ),
    "the metrics": (lambda: planted(_module("training.meter").torch, "cat", by_the_cpu), "learner-32-true"),
    "the proximal policy's log-probabilities": (
        lambda: planted(_module("training.minibatches"), "to_device", on_the_cpu),
        "learner-decoupled-32-true",
    ),
    "the policy's mask": (
        lambda: planted(_module("models.distribution"), "unpack_mask", on_the_cpu),
        "full-request-32-true",
    ),
    "the uniform numbers": (lambda: planted(sys.modules[__name__], "rand_there", on_the_cpu), "full-request-32-true"),
    "the moves drawn": (
        lambda: planted(_module("models.dense_rows").torch, "searchsorted", by_the_cpu),
        "full-request-bf16-mixed",
    ),
    "a snapshot's weights": (
        lambda: planted(_module("parallel.opponents.policy_server"), "to_device", on_the_cpu),
        "snapshots-32-true",
    ),
    "a partial request": (
        lambda: planted(_module("parallel.policy.acting"), "to_device", on_the_cpu),
        "partial-request-32-true",
    ),
    "values alone": (lambda: planted(_module("parallel.policy.acting"), "to_device", on_the_cpu), "values-bf16-mixed"),
    "weights leaf by leaf": (
        lambda: mock.patch.object(
            _module("parallel.memory.weight_transfer").WeightFetcher, "on_host", lambda self, tensors: dict(tensors)
        ),
        "weights_go_out_in_one_transfer",
    ),
}


def is_found(fault: str) -> None:
    """The check that a fault is planted under fails, and for that reason."""
    plant, check = FAULTS[fault]
    try:
        with plant():
            CHECKS[check]()
    except (MixedDevicesError, FakeTensorDeviceMismatchError, AssertionError) as error:
        said = f"{type(error).__name__}: {error}"
        if not any(word in said for word in ("device", "(")):
            raise
        return
    raise AssertionError(f"{check} has not noticed that {fault} went by way of the CPU")


def main() -> None:
    """Run everything; on standard output: JSON of what each has raised, "" where nothing."""
    install()
    results = {}
    runs = {**CHECKS, **{f"planted: {fault}": (lambda fault=fault: is_found(fault)) for fault in FAULTS}}  # type: ignore[misc]
    chosen = sys.argv[1:] or list(runs)
    for name in chosen:
        try:
            runs[name]()
            results[name] = ""
        except Exception:  # noqa: BLE001 - whatever it is, the test of this name shows it
            results[name] = traceback.format_exc()
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    main()
