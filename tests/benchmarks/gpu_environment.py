"""Whether this machine can run the measurements at all: imports, devices, the compiled kernel, a matrix product.

::

    python tests/benchmarks/gpu_environment.py --device cuda:0
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from gpu_common import Results, add_common_arguments, rate_of

import keisei_lightning
from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.evaluation.registry import player_names
from keisei_lightning.games.shogi.kernel import why_no_kernel
from keisei_lightning.system.machine import available_memory

MODULES = (
    *("numpy", "scipy", "psutil", "rich", "hydra", "lightning", "tensordict", "torchrl", "rsshogi", "pyspiel"),
    *("pytest", "pytest_timeout"),
)
"""What the parts import."""


def matrix_product(results: Results, device: torch.device, precision: torch.dtype, size: int) -> None:
    """Multiply two square matrices, and compare a corner with what the CPU says in float64."""
    torch.manual_seed(0)
    left, right = (torch.randn(size, size) / size**0.5 for _ in range(2))
    on_device = [matrix.to(device, precision) for matrix in (left, right)]
    corner = (on_device[0] @ on_device[1])[:8, :8].double().cpu()
    expected = left[:8].double() @ right[:, :8].double()
    error = float((corner - expected).norm() / expected.norm())
    rate = rate_of(lambda: torch.matmul(*on_device), device=device, seconds=0.3)
    tflops = round(2 * size**3 * rate / 1e12, 3)
    row = {"check": f"matrix product {precision}, {size}", "tflop_per_s": tflops, "relative_error": f"{error:.1e}"}
    if error > 0.02:
        raise ArithmeticError(f"relative error {error}")
    results.add(row, **{f"tflop_per_s_{str(precision).removeprefix('torch.')}": tflops})


def _check_imports(results: Results) -> None:
    for name in MODULES:
        start = time.perf_counter()
        try:
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises, it is to be told
            results.failed(f"import {name}", error)
            continue
        version = getattr(module, "__version__", "")
        results.add(
            {"check": f"import {name}", "version": str(version), "seconds": round(time.perf_counter() - start, 2)}
        )


def _check_device(results: Results, device: torch.device) -> None:
    try:
        for precision in (torch.float32, torch.bfloat16):
            matrix_product(results, device, precision, 8192 if device.type == "cuda" else 256)
    except Exception as error:  # noqa: BLE001 - no driver, no memory, wrong numbers
        results.failed(f"matrix product on {device}", error)


def main() -> int:
    """Check and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    arguments = parser.parse_args()
    results = Results(arguments.write, arguments.seconds)
    machine = describe_machine()
    players = player_names()
    results.add(
        {"check": "machine"},
        processor=machine["processor"],
        cpus=machine["cpus"],
        memory_gib=round(available_memory() / 2**30),
        shared_memory_gib=_free_gib(Path("/dev/shm")),
        gpu=str(machine.get("gpu", "none")),
        cuda=str(machine.get("cuda", "none")),
        cudnn=str(torch.backends.cudnn.version()),
        compilers=" ".join(filter(shutil.which, ("cc", "c++", "g++", "nvcc"))) or "none",
        versions=", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        package=str(Path(keisei_lightning.__file__).parent),
        kernel=why_no_kernel() or "compiled",
        players=len(players),
    )
    _check_imports(results)
    _check_device(results, torch.device(arguments.device))
    return results.exit_status()


def _free_gib(folder: Path) -> float | None:
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return round(status.f_bavail * status.f_frsize / 2**30, 1)


if __name__ == "__main__":
    sys.exit(main())
