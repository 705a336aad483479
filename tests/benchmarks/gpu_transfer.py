"""Copies between host and device, pageable and pinned, and what publishing weights from the device costs.

::

    python tests/benchmarks/gpu_transfer.py --device cuda:0 --megabytes 64 16 4 1

A rollout of 4096 games and 32 plies is 56 MB, the observations of 2048 positions 0.2 MB.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from gpu_common import MODELS, Results, add_common_arguments, policy_of, rate_of, synchronize
from torch import Tensor

from keisei_lightning.parallel.memory.weights import WeightLayout, WeightReader, WeightStore

_ROUNDS = 20


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--megabytes", nargs="+", type=float, default=[64.0, 16.0, 4.0, 1.0])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results = Results(arguments.write, arguments.seconds)
    try:
        publish_ms, adopt_ms = _publish_and_adopt(arguments.model, device)
        row = {"case": f"weights of {arguments.model}", "publish_ms": publish_ms, "adopt_ms": adopt_ms}
        results.add(row, publish_ms=publish_ms, adopt_ms=adopt_ms)
    except Exception as error:  # noqa: BLE001 - the copies are to be measured all the same
        results.failed("weights", error)
    for megabytes in arguments.megabytes:
        for is_pinned in (True, False) if device.type == "cuda" else (False,):
            name = f"{megabytes:g} MB {'pinned' if is_pinned else 'pageable'}"
            try:
                there, back = _copies(device, int(megabytes * 1e6), is_pinned=is_pinned)
            except Exception as error:  # noqa: BLE001
                results.failed(name, error)
                continue
            key = {"pinned_gb_per_s": there} if is_pinned and megabytes == arguments.megabytes[0] else {}
            results.add({"case": name, "to_device_gb_per_s": there, "to_host_gb_per_s": back}, **key)
    return results.exit_status()


def _copies(device: torch.device, num_bytes: int, *, is_pinned: bool) -> tuple[float, float]:
    """GB/s to the device and back."""
    host = torch.randint(256, (num_bytes,), dtype=torch.uint8)
    host = host.pin_memory() if is_pinned else host
    there = torch.empty_like(host, device=device)

    def gigabytes_per_s(target: Tensor, source: Tensor) -> float:
        rate = rate_of(lambda: target.copy_(source, non_blocking=is_pinned), device=device, seconds=0.2)
        return round(rate * num_bytes / 1e9, 2)

    rates = gigabytes_per_s(there, host), gigabytes_per_s(host, there)
    if not torch.equal(there.cpu(), host):
        raise ArithmeticError("what came back is not what was sent")
    return rates


def _publish_and_adopt(model: str, device: torch.device) -> tuple[float, float]:
    """Median milliseconds: the learner's policy on the device into shared memory, and from there to the device."""
    learner = policy_of(model).to(device)
    player = copy.deepcopy(learner).to("meta")
    store = WeightStore(WeightLayout.of(learner), 1)
    try:
        store.publish(learner, 0)
        reader = WeightReader(store.memory, reader_id=0, module=player, device=device)
        publishing, adopting = [], []
        for version in range(1, _ROUNDS + 1):
            with torch.no_grad():
                next(learner.parameters()).fill_(float(version))
            publishing.append(_milliseconds(lambda version=version: store.publish(learner, version), device))
            adopting.append(_milliseconds(reader.adopt, device))
            if not torch.equal(next(player.parameters()), next(learner.parameters())):
                raise ArithmeticError("the player has other weights than the learner published")
    finally:
        store.close()
    return round(statistics.median(publishing), 2), round(statistics.median(adopting), 2)


def _milliseconds(function: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
