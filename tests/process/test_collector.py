"""The collector with real worker processes gives the same numbers as without, also when it is paused or resumed."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from collector_helpers import FRAMES, GAMES, PLIES, WORKERS, assert_same, collector_of, take
from fakes import MirrorGame, TinyNetwork, VersionNetwork
from fault_helpers import wait_until
from rollout_checks import assert_continues, assert_whole, worker_rows
from tensordict import TensorDict, TensorDictBase
from torch import nn
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from keisei_lightning.errors import ConfigError, WeightsError
from keisei_lightning.models import ActorCritic

pytestmark = pytest.mark.process


def disturb(policy: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


# ---- the same bits


def run_with_publishes(mode: str, policy: Callable[[], nn.Module], **options: Any) -> list[TensorDictBase]:
    torch.manual_seed(11)
    module = policy()
    out = []
    with collector_of(module, mode=mode, **options) as collector:
        for number, batch in enumerate(collector):
            assert_whole(batch, games_per_worker=GAMES)
            out.append(batch)
            if number == 5:
                break
            if number % 2:
                disturb(module, number)
                collector.update_policy_weights_()
    return out


@pytest.mark.parametrize(
    "policy",
    [lambda: ActorCritic(TinyNetwork()), lambda: ActorCritic(TinyNetwork()).as_policy()],
    ids=["ActorCritic", "TensorDictModule"],
)
def test_workers_give_the_same_bits_as_no_workers_and_as_themselves(policy: Callable[[], nn.Module]) -> None:
    serial, workers, again = (run_with_publishes(mode, policy) for mode in ("serial", "workers", "workers"))
    assert_same(serial, workers)
    assert_same(workers, again)
    versions = [int(batch["collector", "policy_version"].max()) for batch in workers]
    assert versions == [0, 0, 1, 1, 2, 2]


def test_another_seed_and_another_worker_give_other_games() -> None:
    batches = {}
    for seed in (3, 4):
        with collector_of(mode="serial", seed=seed) as collector:
            batches[seed] = take(collector, 1)[0]
    assert not torch.equal(batches[3]["action"], batches[4]["action"])
    first, second = (worker_rows(batches[3], worker_id) for worker_id in range(WORKERS))
    assert not torch.equal(first["action"], second["action"])


def test_a_spawned_worker_gives_the_same_bits_too() -> None:
    with collector_of(mode="serial", num_workers=1) as collector:
        serial = take(collector, 2)
    with collector_of(start_method="spawn", num_workers=1) as collector:
        spawned = take(collector, 2)
    assert spawned[0].names == [None, "time"]
    assert_same(serial, spawned)


def test_every_option_of_the_batch_works_in_workers() -> None:
    options = {"include_next_observation": True, "unpack_action_mask": True, "augment_symmetry": True}
    options["stagger_games"] = True
    policy = ActorCritic(MirrorNetwork())
    batches = {}
    for mode in ("serial", "workers"):
        with collector_of(policy, MirrorGame, mode=mode, **options) as collector:
            batches[mode] = take(collector, 2)
    assert_same(batches["serial"], batches["workers"])
    batch = batches["workers"][0]
    assert batch["action_mask"].dtype == torch.bool
    assert batch["action_mask"].shape == (WORKERS * GAMES, PLIES, 4)
    assert torch.equal(batch["action_mask"], batch["observation"][:, :, 0, 0] == 0)
    assert batch["next", "observation"].shape == (WORKERS * GAMES, PLIES, 1, 1, 4)


class MirrorNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.linear(observation.flatten(1).float())
        return out[:, :4], out[:, 4:]


# ---- versions and lag


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_every_ply_carries_the_version_whose_weights_played_it(schedule: str) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, schedule=schedule, max_policy_lag=2) as collector:
        for number, batch in enumerate(collector):
            assert_whole(batch, games_per_worker=GAMES)
            version = batch["collector", "policy_version"]
            assert torch.equal(batch["state_value"][..., 0], version.float())
            assert collector.policy_version == number
            assert (number - version).max() <= (0 if schedule == "sync" else 2)
            if number == 10:
                break
            policy.network.version.data += 1
            collector.update_policy_weights_()
        assert version.min() > 0


def test_async_refuses_what_is_too_old_and_delivers_what_is_not(caplog: pytest.LogCaptureFixture) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, schedule="async", max_policy_lag=1, slots_per_worker=3) as collector:
        lags: list[int] = []
        for number, batch in enumerate(collector):
            lags += (collector.policy_version - batch["collector", "policy_version"]).unique().tolist()
            if number == 6:
                break
            time.sleep(0.05)  # a slow learner: all slots fill up with the present version
            for _ in range(2):
                collector.update_policy_weights_()
        stats = collector.stats()
    assert set(lags) <= {0, 1}
    assert stats["policy_lag_max"] <= 1
    assert stats["refused_batches"] >= 6 * WORKERS
    assert stats["refused_batches"] == sum("refused a rollout of worker" in line for line in caplog.messages)


def test_workers_play_on_while_the_learner_is_busy_and_stop_when_their_slots_are_full() -> None:
    with collector_of(schedule="async", slots_per_worker=2, max_policy_lag=100) as collector:
        batches = iter(collector)
        next(batches)
        processes = [psutil.Process(worker["pid"]) for worker in collector.health()]
        wait_until(lambda: is_idle(processes))
        for process in processes:
            process.suspend()
        next(batches)  # it was ready: no worker can play now
        for process in processes:
            process.resume()
        sequences = [header.sequence for header in collector._session.intake.last_headers.values()]
        assert max(sequences) <= 4  # nothing was played for the bin


def is_idle(processes: list[psutil.Process], seconds: float = 0.5) -> bool:
    """Whether none of them has used a CPU for so long."""
    before = [process.cpu_times()[:2] for process in processes]
    time.sleep(seconds)
    return [process.cpu_times()[:2] for process in processes] == before


def test_games_continue_from_batch_to_batch() -> None:
    with collector_of() as collector:
        for earlier, later in zip(*(lambda b: (b, b[1:]))(take(collector, 6)), strict=False):
            assert_continues(earlier, later)


# ---- whose memory it is


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_a_batch_stays_intact_however_long_it_is_kept(schedule: str) -> None:
    with collector_of(schedule=schedule, max_policy_lag=9) as collector:
        kept, copies = [], []
        for number, batch in enumerate(collector):
            kept.append(batch)
            copies.append(batch.clone())
            if number == 8:
                break
        time.sleep(0.05)
    assert_same(kept, copies)


def test_a_zero_copy_batch_is_valid_until_the_next_one_is_asked_for() -> None:
    with collector_of(zero_copy=True) as borrowing, collector_of() as copying:
        for number, (borrowed, copied) in enumerate(zip(borrowing, copying, strict=True)):
            assert_same([borrowed], [copied])
            if number == 3:
                break


# ---- as a TorchRL collector


def test_it_ends_after_total_frames_and_counts_exactly() -> None:
    with collector_of(total_frames=3 * FRAMES - 1) as collector:
        assert collector.frames_per_batch == collector.requested_frames_per_batch == FRAMES
        games = sum(int(batch["next", "done"].sum()) for batch in collector)
        assert collector.plies == 3 * FRAMES
        assert collector.games == games > 0
        stats = collector.stats()
    assert stats["plies"] == 3 * FRAMES
    assert stats["games"] == games
    assert stats["first_win_share"] + stats["second_win_share"] == pytest.approx(1.0)
    assert stats["outcome/goal"] == 1.0
    assert stats["plies_per_s"] > 0
    assert stats["restarts"] == stats["lost_rollouts"] == stats["refused_batches"] == 0


def test_batches_go_into_a_replay_buffer_as_plies() -> None:
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(3 * FRAMES), batch_size=10)
    with collector_of(replay_buffer=buffer, total_frames=2 * FRAMES) as collector:
        assert list(collector) == [None, None]
    assert len(buffer) == 2 * FRAMES
    with collector_of(mode="serial", total_frames=2 * FRAMES) as collector:
        expected = torch.cat([batch.reshape(-1)["action"] for batch in collector])
    assert torch.equal(buffer[:]["action"], expected)
    del buffer  # TorchRL's buffer holds named semaphores until it is collected
    gc.collect()


@pytest.mark.parametrize(
    "publish",
    [
        lambda collector, policy: collector.update_policy_weights_(),
        lambda collector, policy: collector.update_policy_weights_(policy),
        lambda collector, policy: collector.update_policy_weights_(TensorDict.from_module(policy)),
        lambda collector, policy: collector.update_policy_weights_(TensorDict.from_module(policy).data),
        lambda collector, policy: collector.update_policy_weights_(weights=policy.state_dict()),
        lambda collector, policy: collector.update_policy_weights_(policy=policy),
        lambda collector, policy: collector.update_policy_weights_(
            weights_dict={"policy": TensorDict.from_module(policy)}
        ),
        lambda collector, policy: collector.update_policy_weights_(policy, model_id="policy"),
    ],
    ids=["none", "module", "TensorDict", "TensorDict.data", "state_dict", "policy=", "weights_dict=", "model_id="],
)
def test_weights_are_taken_in_every_form_that_torchrl_gives_them(publish: Callable[..., None]) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, mode="serial") as collector:
        policy.network.version.data.fill_(7.0)
        assert publish(collector, policy) is None  # before the start
        assert collector.policy_version == 0
        assert (take(collector, 1)[0]["state_value"] == 7).all()
        policy.network.version.data.fill_(8.0)
        publish(collector, policy)
        assert collector.policy_version == 1
        assert (take(collector, 1)[0]["state_value"] == 8).all()


def test_weights_given_before_the_start_become_the_policys_own() -> None:
    policy, other = ActorCritic(TinyNetwork()), ActorCritic(TinyNetwork())
    other.network.scale.fill_(0.7)  # a buffer that no state_dict has
    with collector_of(policy, mode="serial") as collector:
        collector.update_policy_weights_(other)
        assert torch.equal(policy.network.scale, torch.tensor(0.7))
        assert torch.equal(policy.network.linear.weight, other.network.linear.weight)


@pytest.mark.parametrize("started", [False, True])
def test_weights_that_cannot_be_published_change_nothing(started: bool) -> None:
    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, mode="serial") as collector:
        if started:
            collector.start()
        for bad in ({"network.typo": torch.zeros(())}, {"network.version": torch.tensor(torch.nan)}, TinyNetwork()):
            with pytest.raises(WeightsError):
                collector.update_policy_weights_(bad)
        with pytest.raises(ConfigError, match="worker_ids=0: weights are published for all workers at once"):
            collector.update_policy_weights_(worker_ids=0)
        with pytest.raises(ConfigError, match='the only model is "policy"'):
            collector.update_policy_weights_(weights_dict={"critic": policy})
        with pytest.raises(ConfigError, match="give the weights once"):
            collector.update_policy_weights_(policy, weights=policy.state_dict())
        assert collector.policy_version == 0
        assert (take(collector, 1)[0]["state_value"] == 0).all()


def test_it_works_with_torchrls_own_weight_updates_hook() -> None:
    from torchrl.trainers import UpdateWeights

    policy = ActorCritic(VersionNetwork())
    with collector_of(policy, mode="serial") as collector:
        hook = UpdateWeights(collector, 2, policy_weights_getter=lambda: TensorDict.from_module(policy))
        batches = iter(collector)
        for _ in range(4):
            next(batches)
            policy.network.version.data += 1
            hook()
        assert collector.policy_version == 2
        assert (next(batches)["state_value"] == 4).all()


class ValueLoss(nn.Module):
    def __init__(self, policy: ActorCritic) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: TensorDictBase) -> TensorDict:
        value = self.policy.value(batch["observation"].flatten(0, 1))
        return TensorDict({"loss_value": (value - 1).square().mean()}, [])


@pytest.mark.filterwarnings("ignore:The 'optimizer' hook stage will be replaced:FutureWarning")  # its own default
def test_it_works_inside_torchrls_own_trainer() -> None:
    from torchrl.trainers import Trainer, UpdateWeights

    policy = ActorCritic(TinyNetwork())
    before = policy.network.linear.weight.clone()
    loss = ValueLoss(policy)
    with collector_of(policy, total_frames=5 * FRAMES) as collector:
        trainer = Trainer(
            collector=collector,
            total_frames=5 * FRAMES,
            frame_skip=1,
            optim_steps_per_batch=2,
            loss_module=loss,
            optimizer=torch.optim.SGD(loss.parameters(), 0.1),
            progress_bar=False,
        )
        UpdateWeights(collector, 1).register(trainer)
        trainer.train()
        assert trainer.collected_frames == collector.plies == 5 * FRAMES
        assert collector.policy_version == 5
    assert not torch.equal(policy.network.linear.weight, before)


# ---- scripts


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
from fakes import CountingGame, TinyNetwork
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import SelfPlayCollector

class MyGame(CountingGame):
    pass

class MyNetwork(TinyNetwork):
    pass

print("script runs", flush=True)
policy = ActorCritic(MyNetwork())
with SelfPlayCollector(MyGame, policy, num_workers=2, games_per_worker=2, plies_per_rollout=3) as collector:
    for batch in collector:
        print("batch", list(batch.batch_size), flush=True)
        break
"""


def test_classes_of_a_script_without_a_main_guard_reach_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "train_my_game.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, root / "tests", root],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["script runs", "batch [4, 3]"]  # once: no worker ran the script again
    assert done.returncode == 0


def test_a_collector_works_in_a_thread() -> None:
    out: list[TensorDictBase] = []
    with collector_of() as collector:
        thread = threading.Thread(target=lambda: out.extend(take(collector, 2)))
        thread.start()
        thread.join(30)
    assert len(out) == 2
