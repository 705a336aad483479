"""Self-play collectors side by side: plies a second with the same game, network, number of processes and threads.

About twenty minutes, and for a first look one::

    python tests/benchmarks/collectors.py --json collectors.json
    python tests/benchmarks/collectors.py --model tiny --rounds 1 --seconds 2

Each subject has a process of its own (this file with ``--subject``), which starts its collector, takes two batches, and
then measures for so many seconds. The subjects take turns, round after round, so that a machine which changes its pace
is fair to all; medians over the rounds are quoted, and ratios within a round.

Subjects:

- *ours*: ``SelfPlayCollector`` in its modes and schedules.
- *TorchRL*: ``MultiSyncCollector`` and ``MultiAsyncCollector`` over ``BoardGameEnv`` (as many boards, masks bit-packed,
  which is quicker than 2187 bools) with the same network and the same legal-moves-only distribution, one torch thread a
  worker. Of their options, the quicker of ``cat_results`` and, for sync, of ``use_buffers`` were taken.
- *by hand*: one process, no workers: a loop over rules, network and sampling that stores what PPO needs. The bound for
  one process; with ``--workers`` above 1 it is multiplied by them.
- *TorchRL RayCollector*: as many actors as workers, one CPU each, on a Ray cluster of this machine; ours with
  ``mode="ray"`` beside it. Both are left out where the extra ``ray`` is not installed. (Weights are not published here.
  ``RayCollector.update_policy_weights_()`` of TorchRL 0.14.1 raises "input tensor has to be contiguous" with a network
  whose weights are in ``channels_last``, as ours are.)
- *the original's way*: as described of keisei's self-play workers, but with our rules: one game for each process,
  batches of one position, a dense masked softmax, experiences in lists, pickled, gzipped, put into a queue.
- *the original itself*, where ``--original`` names a checkout: its own manager, workers, rules, queues and buffer, and
  a network of as many blocks and channels. The last version with parallel workers::

    git clone https://github.com/tachyon-beep/keisei && git -C keisei checkout ae8d7d70
    pip install pydantic python-dotenv
"""

from __future__ import annotations

import argparse
import functools
import gzip
import importlib.util
import json
import logging
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchrl.collectors import MultiAsyncCollector, MultiSyncCollector

from keisei_lightning.commands.bench.networks import policy_of
from keisei_lightning.commands.bench.options import MODELS
from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.envs import BoardGameEnv
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.models import ActorCritic, LegalCategorical
from keisei_lightning.parallel import SelfPlayCollector

OPENING_PLIES = 60
MAX_PLIES = 2**62  # RayCollector ends after so many; its own -1 for "no end" ends it at once
HAS_RAY = importlib.util.find_spec("ray") is not None
Batches = Iterator[int]  # plies of each batch, as it arrives
WARM_UP = 2
# Our workers let the allocator keep freed memory; by its variables the others' processes have it too.
ALIKE = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1)}


RAY = {"address": "local", "include_dashboard": False, "log_to_driver": False, "object_store_memory": 512 * 2**20}


def game_of(arguments: argparse.Namespace) -> GameFactory:
    return game_factory(arguments.game, **({"opening_plies": OPENING_PLIES} if arguments.game == "shogi" else {}))


# ---- the subjects: each yields the plies of each batch


def ours(arguments: argparse.Namespace, policy: ActorCritic, **options: Any) -> Batches:
    with SelfPlayCollector(
        game_of(arguments),
        policy,
        num_workers=arguments.workers,
        games_per_worker=arguments.games,
        plies_per_rollout=arguments.plies,
        threads_per_worker=1,
        zero_copy=True,
        **options,
    ) as collector:
        for batch in collector:
            yield batch.numel()


def torchrl(arguments: argparse.Namespace, policy: ActorCritic, *, asynchronous: bool) -> Batches:
    makers = [
        functools.partial(BoardGameEnv, game_of(arguments), arguments.games, packed_action_mask=True, seed=worker)
        for worker in range(arguments.workers)
    ]
    plies = arguments.games * arguments.plies
    if asynchronous:
        collector = MultiAsyncCollector(makers, policy.as_policy(), frames_per_batch=plies, num_threads=1)
    else:
        collector = MultiSyncCollector(
            makers,
            policy.as_policy(),
            frames_per_batch=plies * arguments.workers,
            cat_results="stack",
            num_threads=1,
        )
    try:
        for batch in collector:
            yield batch.numel()
    finally:
        collector.shutdown()


def torchrl_ray(arguments: argparse.Namespace, policy: ActorCritic, *, sync: bool) -> Batches:
    from torchrl.collectors.distributed import RayCollector

    plies = arguments.games * arguments.plies
    collector = RayCollector(
        [
            functools.partial(BoardGameEnv, game_of(arguments), arguments.games, packed_action_mask=True, seed=worker)
            for worker in range(arguments.workers)
        ],
        policy.as_policy(),
        frames_per_batch=plies * (arguments.workers if sync else 1),
        total_frames=MAX_PLIES,
        sync=sync,
        remote_configs={"num_cpus": 1},
        ray_init_config={**RAY, "num_cpus": arguments.workers},
    )
    try:
        for batch in collector:
            yield batch.numel()
    finally:
        collector.shutdown(shutdown_ray=True)


def by_hand(arguments: argparse.Namespace, policy: ActorCritic) -> Batches:
    """One loop; its rate is multiplied by the number of workers where they have a CPU each."""
    torch.set_num_threads(1)
    games, plies = arguments.games, arguments.plies
    game = game_of(arguments)(games)
    game.seed(0)
    game.reset()
    spec, generator = game.spec, torch.Generator().manual_seed(0)
    observation = np.zeros((plies, games, *spec.observation_shape), np.uint8)
    legal = np.zeros((plies, games, spec.mask_bytes), np.uint8)
    mover = np.zeros((plies, games), np.int8)
    action, log_prob, value = (
        torch.zeros(plies, games, dtype=dtype) for dtype in (torch.int64, torch.float, torch.float)
    )
    reward, done = np.zeros((plies, games), np.float32), np.zeros((plies, games), np.bool_)
    while True:
        with torch.inference_mode():
            for ply in range(plies):
                game.observe(observation[ply], legal[ply], mover[ply])
                logits, values = policy(torch.from_numpy(observation[ply]))
                moves = LegalCategorical(logits, torch.from_numpy(legal[ply]))
                action[ply] = moves.sample_with(generator)
                log_prob[ply], value[ply] = moves.log_prob(action[ply]), values[:, 0]
                step = game.step(action[ply].numpy())
                reward[ply], done[ply] = step.reward, step.terminated | step.truncated
                if done[ply].any():
                    game.reset(np.flatnonzero(done[ply]))
        yield games * plies * arguments.workers


def originals_worker(arguments: argparse.Namespace, policy: ActorCritic, seed: int, queue: Any) -> None:
    torch.set_num_threads(1)
    game = game_of(arguments)(1)
    game.seed(seed)
    game.reset()
    spec = game.spec
    observation = np.zeros((1, *spec.observation_shape), np.uint8)
    legal, mover = np.zeros((1, spec.mask_bytes), np.uint8), np.zeros(1, np.int8)
    experiences = []
    while True:
        game.observe(observation, legal, mover)
        mask = torch.from_numpy(np.unpackbits(legal, axis=1, count=spec.num_actions).astype(np.bool_))
        with torch.no_grad():
            logits, value = policy(torch.from_numpy(observation))
            moves = torch.distributions.Categorical(logits=logits.masked_fill(~mask, -torch.inf))
            action = moves.sample()
        step = game.step(action.numpy())
        done = bool(step.terminated[0] or step.truncated[0])
        experiences.append(
            {
                "obs": torch.from_numpy(observation.copy()),
                "action": int(action),
                "reward": float(step.reward[0]),
                "log_prob": float(moves.log_prob(action)),
                "value": float(value),
                "done": done,
                "legal_mask": mask,
            }
        )
        if done:
            game.reset()
        if len(experiences) == arguments.plies:
            queue.put(gzip.compress(pickle.dumps(experiences)))
            experiences = []


def originals_way(arguments: argparse.Namespace, policy: ActorCritic) -> Batches:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=8)
    workers = [
        context.Process(target=originals_worker, args=(arguments, policy, seed, queue), daemon=True)
        for seed in range(arguments.workers)
    ]
    for worker in workers:
        worker.start()
    try:
        while True:
            experiences = pickle.loads(gzip.decompress(queue.get()))
            torch.stack([experience["obs"] for experience in experiences])
            torch.stack([experience["legal_mask"] for experience in experiences])
            yield len(experiences)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def original_itself(arguments: argparse.Namespace, policy: ActorCritic) -> Batches:
    sys.path.insert(0, str(arguments.original))  # spawned workers get it from this process
    logging.getLogger("keisei").setLevel(logging.CRITICAL)  # its workers' end is told as a warning
    from keisei.core.experience_buffer import ExperienceBuffer
    from keisei.training.models import model_factory
    from keisei.training.parallel import ParallelManager

    blocks, channels = MODELS[arguments.model]
    network = {"model_type": "resnet", "tower_depth": blocks, "tower_width": channels, "se_ratio": None}
    model = model_factory(obs_shape=(46, 9, 9), num_actions=13527, **network)
    options = {
        "enabled": True,
        "num_workers": arguments.workers,
        "batch_size": 32,
        "max_queue_size": 1000,
        "timeout_seconds": 10.0,
        "sync_interval": 100,
        "compression_enabled": True,
        "worker_seed_offset": 1000,
    }
    buffer = ExperienceBuffer(4096, gamma=0.99, lambda_gae=0.95)
    with ParallelManager({"seed": 0}, network, options, device="cpu") as manager:
        if not manager.start_workers(model):
            raise RuntimeError("keisei's workers did not start")
        while True:
            if plies := manager.collect_experiences(buffer):
                buffer.clear()
                yield plies
            else:
                time.sleep(0.001)


SUBJECTS: dict[str, Callable[[argparse.Namespace, ActorCritic], Batches]] = {
    "ours, sync": functools.partial(ours, schedule="sync"),
    "ours, async": functools.partial(ours, schedule="async"),
    "ours, central": functools.partial(ours, mode="central"),
    "TorchRL MultiSyncCollector": functools.partial(torchrl, asynchronous=False),
    "TorchRL MultiAsyncCollector": functools.partial(torchrl, asynchronous=True),
    "ours, ray, sync": functools.partial(ours, mode="ray", schedule="sync"),
    "ours, ray, async": functools.partial(ours, mode="ray", schedule="async"),
    "TorchRL RayCollector, sync": functools.partial(torchrl_ray, sync=True),
    "TorchRL RayCollector, async": functools.partial(torchrl_ray, sync=False),
    "by hand": by_hand,
    "the original's way": originals_way,
    "the original itself": original_itself,
}


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One subject, in this process."""
    policy = policy_of(game_of(arguments), arguments.model, 0)
    start = time.perf_counter()
    batches = SUBJECTS[arguments.subject](arguments, policy)
    for _ in range(WARM_UP):
        next(batches)
    first_s, plies, start = time.perf_counter() - start, 0, time.perf_counter()
    while time.perf_counter() - start < arguments.seconds:
        plies += next(batches)
    rate = plies / (time.perf_counter() - start)
    batches.close()  # type: ignore[attr-defined]
    return {"plies_per_s": rate, "start_s": first_s}


def run_subject(arguments: argparse.Namespace, subject: str) -> dict[str, float]:
    """One subject, in a process of its own."""
    options = [
        f"--{name}={getattr(arguments, name)}" for name in ("game", "model", "workers", "games", "plies", "seconds")
    ]
    if arguments.original:
        options.append(f"--original={arguments.original}")
    done = subprocess.run(
        [sys.executable, __file__, *options, "--subject", subject],
        env=os.environ | ALIKE,
        stdout=subprocess.PIPE,
        timeout=600,
        check=True,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(report: dict[str, Any]) -> None:
    """Print medians, and ratios to ours."""
    table = Table(title=report["title"])
    for column in ("collector", "plies/s, median", "rounds", "ours (sync) is"):
        table.add_column(column)
    base = [one["plies_per_s"] for one in report["rounds"]["ours, sync"]]
    for subject, rounds in report["rounds"].items():
        rates = [one["plies_per_s"] for one in rounds]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(base, rates, strict=True))
        table.add_row(
            subject, f"{statistics.median(rates):,.0f}", ", ".join(f"{rate:,.0f}" for rate in rates), f"{ratio:.2f} x"
        )
    Console(width=120).print(table)


def main() -> int:
    """Run all subjects in turns, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="shogi")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--games", type=int, default=64, help="boards of each (default: 64)")
    parser.add_argument("--plies", type=int, default=32, help="plies of each board in a batch (default: 32)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each subject in each round (default: 10)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, metavar="SUBJECT", help="all that are possible")
    parser.add_argument("--original", type=Path, metavar="FOLDER", help="a checkout of the original")
    parser.add_argument("--subject", choices=SUBJECTS, metavar="SUBJECT", help="this one alone, in this process")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    if "the original itself" in (arguments.subjects or ()) and not arguments.original:
        parser.error("the original itself: --original must name a checkout of it")
    if arguments.subject:
        sys.stdout.write(json.dumps(measure(arguments)) + "\n")
        return 0
    possible = [
        subject
        for subject in SUBJECTS
        if (arguments.original or subject != "the original itself") and (HAS_RAY or " ray" not in subject.lower())
    ]
    # All are compared with the first.
    rounds: dict[str, list[dict[str, float]]] = {
        subject: [] for subject in dict.fromkeys(["ours, sync", *(arguments.subjects or possible)])
    }
    turns = [subject for _ in range(arguments.rounds) for subject in rounds]
    report = {
        "title": f"{arguments.game}, {arguments.model}, {arguments.workers} x {arguments.games} boards",
        "machine": describe_machine(),
        "arguments": {
            name: value for name, value in vars(arguments).items() if name not in ("json", "subject", "original")
        },
        "rounds": rounds,
    }
    for subject in track(turns, "measuring", transient=True):
        rounds[subject].append(run_subject(arguments, subject))
        if arguments.json:  # after each, so that nothing is lost when it is stopped
            arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
