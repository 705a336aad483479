"""How fast new weights reach the workers: shared memory beside the original system's way.

The original (keisei's ``ModelSynchronizer``) compressed every tensor with gzip and put one pickled dictionary into one
queue for each worker. The replica here is written from that description and given every benefit: it compresses once.
"""

from __future__ import annotations

import gzip
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import nn

from keisei_lightning.commands.bench.options import WeightsOptions
from keisei_lightning.commands.bench.report import print_report
from keisei_lightning.parallel.memory.weights import WeightLayout, WeightMemory, WeightReader, WeightStore
from keisei_lightning.system.start_method import choose_start_method

__all__ = ["run"]

_LAYERS, _WIDTH = 24, 360  # about 12.5 MB in 48 tensors


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(_LAYERS)))


@torch.no_grad()
def _mark(module: nn.Module, number: int) -> None:
    for tensor in module.parameters():
        tensor.view(-1)[0] = float(number)


@torch.no_grad()
def _read_all(module: nn.Module) -> tuple[set[float], bool]:
    """The marks in all tensors, and whether every weight is finite (so that every one is read)."""
    finite = all(tensor.sum().isfinite() for tensor in module.parameters())
    return {tensor.view(-1)[0].item() for tensor in module.parameters()}, finite


def _adopting_worker(pipe: Connection[Any, Any], memory: WeightMemory, reader_id: int) -> None:
    torch.set_num_threads(1)
    module = _network()
    reader = WeightReader(memory, reader_id=reader_id, module=module, device=torch.device("cpu"))
    pipe.send(True)
    while pipe.recv():
        reader.adopt()
        pipe.send(True)
        pipe.recv()
        pipe.send(_read_all(module))


def _unpacking_worker(pipe: Connection[Any, Any], queue: Any) -> None:
    torch.set_num_threads(1)
    module = _network()
    pipe.send(True)
    while pipe.recv():
        state = {
            name: torch.from_numpy(np.frombuffer(bytearray(gzip.decompress(data)), dtype=dtype).reshape(shape))
            for name, (data, dtype, shape) in queue.get().items()
        }
        module.load_state_dict(state)
        pipe.send(True)
        pipe.recv()
        pipe.send(_read_all(module))


def _measure(
    num_workers: int, rounds: int, target: Callable[..., None], extra: Callable[[int], tuple[Any, ...]],
    publish: Callable[[int, list[tuple[Any, ...]]], None], module: nn.Module,
) -> tuple[float, float, float]:  # fmt: skip
    """Median milliseconds of (publish, publish until the last worker has adopted, all workers' first reading after)."""
    context = multiprocessing.get_context(choose_start_method())
    pipes, processes, extras = [], [], []
    try:
        for worker_id in range(num_workers):
            ours, theirs = context.Pipe()
            extras.append(extra(worker_id))
            process = context.Process(target=target, args=(theirs, *extras[-1]), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        published, adopted, read = [], [], []
        for number in range(1, rounds + 1):
            _mark(module, number)
            start = time.perf_counter()
            publish(number, extras)
            published.append(time.perf_counter() - start)
            for pipe in pipes:
                pipe.send(True)
            for pipe in pipes:
                pipe.recv()
            adopted.append(time.perf_counter() - start)
            start = time.perf_counter()
            for pipe in pipes:
                pipe.send(True)
            answers = [pipe.recv() for pipe in pipes]
            read.append(time.perf_counter() - start)
            assert answers == [({float(number)}, True)] * num_workers, "a worker has other weights than were published"
    finally:
        for pipe in pipes:
            pipe.send(False)
        for process in processes:
            process.join()
    published_s, adopted_s, read_s = map(statistics.median, (published, adopted, read))
    return published_s * 1e3, adopted_s * 1e3, read_s * 1e3


def _measure_ours(num_workers: int, rounds: int) -> tuple[float, float, float]:
    module = _network()
    store = WeightStore(WeightLayout.of(module), num_workers)
    store.publish(module, 0)
    try:
        return _measure(
            num_workers,
            rounds,
            _adopting_worker,
            lambda worker_id: (store.memory, worker_id),
            lambda number, extras: store.publish(module, number),
            module,
        )
    finally:
        store.close()


def _measure_replica(num_workers: int, rounds: int) -> tuple[float, float, float]:
    module = _network()
    context = multiprocessing.get_context(choose_start_method())

    def publish(number: int, extras: list[tuple[Any, ...]]) -> None:
        packed = {}
        for name, tensor in module.state_dict().items():
            array = tensor.numpy()
            packed[name] = (gzip.compress(array.tobytes(), compresslevel=6), str(array.dtype), array.shape)
        for (queue,) in extras:
            queue.put(packed)

    return _measure(num_workers, rounds, _unpacking_worker, lambda worker_id: (context.Queue(),), publish, module)


def run(options: WeightsOptions) -> None:
    """Measure and print."""
    megabytes = WeightLayout.of(_network()).num_bytes / 1e6
    rows = []
    for num_workers in options.workers:
        published, adopted, read = _measure_ours(num_workers, options.rounds)
        _, replica, _ = _measure_replica(num_workers, options.replica_rounds)
        rows.append(
            {
                "workers": num_workers,
                "megabytes": round(megabytes, 1),
                "publish_ms": round(published, 2),
                "publish_and_adopt_ms": round(adopted, 2),
                "first_reading_ms": round(read, 2),
                "gzip_and_queues_ms": round(replica, 1),
                "times_faster": round(replica / adopted, 1),
            }
        )
    print_report(
        "weights: until the last worker has them",
        rows,
        as_json=options.json,
        write=options.write,
        notes=(f"medians of {options.rounds} publishes ({options.replica_rounds} of the replica)",),
    )
