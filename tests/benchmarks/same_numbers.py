"""What one seed of three games comes to, as digests: two versions of the library can be compared number by number.

    python tests/benchmarks/same_numbers.py --json before.json      # in the one
    python tests/benchmarks/same_numbers.py --compare before.json   # in the other: exit status 1 where a number differs

Digests are of the batches that a collector delivers (every column), of the curves in ``metrics.csv`` (every column but
the times and rates), and of the checkpoint that a training leaves (weights and the optimiser's state). One process and
one torch thread: the numbers of one machine, bit by bit.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import keisei_lightning
from keisei_lightning import ActorCritic, SelfPlayCollector, build_network, game_factory

GAMES: dict[str, dict[str, int]] = {"tic_tac_toe": {}, "connect_four": {"opening_plies": 4}, "shogi": {"max_plies": 60}}
BATCHES = 3
OVERRIDES = (
    "parallel=serial",
    "parallel.games_per_worker=16",
    "parallel.plies_per_rollout=16",
    "ppo.minibatch_size=64",
    "ppo.kl_target=0.02",
    "trainer.max_epochs=4",
    "evaluation.num_games=8",
    "evaluation.every_n_epochs=2",
    "opponents=snapshots",
    "opponents.every_n_epochs=1",
    "seed=7",
    "trainer.enable_progress_bar=false",
)
RENAMED = {"frames": "plies"}
"""Words in the names of curves, before and now."""


def main() -> int:
    """Print the digests; compare them where there is something to compare them with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the digests to this file")
    parser.add_argument("--compare", type=Path, help="digests of another version")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {"version": _version()}
    for game in GAMES:
        found |= {f"{game}: {name}": digest for name, digest in _digests(game)}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return _compare(json.loads(arguments.compare.read_text(encoding="utf-8")), found) if arguments.compare else 0


def _version() -> str:
    folder = Path(keisei_lightning.__file__).parent
    done = subprocess.run(
        ["git", "log", "-1", "--format=%h"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return f"{keisei_lightning.__version__} {done.stdout.strip()}"


def _digests(game: str) -> Iterator[tuple[str, str]]:
    yield from _batch_digests(game)
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"+env.{key}={value}" if key == "options" else f"env.{key}={value}" for key, value in GAMES[game].items()
        ]
        words = [f"env={game}", *options, *OVERRIDES, f"output_dir={folder}", f"results_dir={folder}", "name=same"]
        subprocess.run(
            [sys.executable, "-m", "keisei_lightning", "train", *words], check=True, stdout=subprocess.DEVNULL
        )
        yield from _curve_digests(next(Path(folder).rglob("metrics.csv")))
        yield from _checkpoint_digests(next(Path(folder).rglob("last.ckpt")))


def _batch_digests(game: str) -> Iterator[tuple[str, str]]:
    factory = game_factory(game, **GAMES[game])
    torch.manual_seed(0)
    policy = ActorCritic(build_network(factory(1).spec, kind="mlp", num_blocks=1, channels=16))
    with SelfPlayCollector(
        factory, policy, mode="serial", games_per_worker=16, plies_per_rollout=16, include_next_observation=True, seed=7
    ) as collector:
        batches = iter(collector)
        for index in range(BATCHES):
            batch = next(batches)
            for key in sorted(batch.keys(include_nested=True, leaves_only=True), key=str):
                yield f"batch {index} {key}", _of_tensor(batch[key])


def _curve_digests(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for name in sorted(rows[0]):
        if _is_of_time(name):
            continue
        now = name
        for old, new in RENAMED.items():
            now = now.replace(old, new)
        yield f"curve {now}", _of_bytes("\n".join(row[name] for row in rows).encode())


def _is_of_time(name: str) -> bool:
    return name.endswith(("_s", "_ms")) or any(part in name for part in ("time", "seconds", "share", "busy", "memory"))


def _checkpoint_digests(file: Path) -> Iterator[tuple[str, str]]:
    saved = torch.load(file, map_location="cpu", weights_only=True)
    for name, tensor in sorted(saved["state_dict"].items()):
        yield f"weights {name}", _of_tensor(tensor)
    for index, state in sorted(saved["optimizer_states"][0]["state"].items()):
        for name, value in sorted(state.items()):
            yield f"optimiser {index} {name}", _of_tensor(torch.as_tensor(value))


def _of_tensor(tensor: torch.Tensor) -> str:
    array = tensor.detach().cpu().contiguous().numpy()
    return _of_bytes(f"{array.dtype} {array.shape}".encode() + array.tobytes())


def _of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compare(before: dict[str, Any], now: dict[str, Any]) -> int:
    keys = sorted((before.keys() | now.keys()) - {"version"})
    other = [key for key in keys if before.get(key) != now.get(key)]
    for key in other:
        sys.stdout.write(f"differs: {key}: {before.get(key)}, now {now.get(key)}\n")
    versions = f"{before['version']}, now {now['version']}"
    sys.stdout.write(f"{len(keys) - len(other)} of {len(keys)} equal ({versions})\n")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
