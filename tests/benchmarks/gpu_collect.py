"""How many plies a second a GPU and the cores beside it collect (``mode="central"``), and how busy the GPU is.

::

    python tests/benchmarks/gpu_collect.py --shapes 8x512x2 14x512x2 --compile-mode none reduce-overhead

First every shape (workers x games of each x groups) with the first schedule and the first compile mode, then the best
of them with the other modes, then the best of all with the other schedules. Nothing learns: the batches are let go.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from gpu_common import MODELS, Results, Shape, add_common_arguments, policy_of, shogi
from gpu_kernels import ProfiledPolicy, Utilisation, kernel_share

from keisei_lightning.parallel import SelfPlayCollector

_TRACE_S = 12.0  # that the other process may take to write its trace


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="bf16-mixed")
    parser.add_argument("--shapes", nargs="+", type=Shape.parse, default=[Shape(8, 512, 2)], metavar="WxGxGROUPS")
    parser.add_argument("--compile-mode", nargs="+", default=["none"])
    parser.add_argument("--schedules", nargs="+", choices=("async", "sync"), default=["async", "sync"])
    parser.add_argument("--plies", type=int, default=32, help="of each game in a batch")
    parser.add_argument("--case-s", type=float, default=5.0, help="seconds to measure each case for")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="more options of the collector")
    arguments = parser.parse_args()
    results = Results(arguments.write, arguments.seconds)
    best: dict[str, Any] = {"plies_per_s": 0}
    for case in _cases(arguments, best):
        name = f"{case['shape']}, {case['schedule']}, compile {case['compile_mode']}"
        if not results.is_time_for(name):
            break
        try:
            row = _measure(arguments, **case)
        except Exception as error:  # noqa: BLE001 - a case that cannot run must not hide the others
            results.failed(name, error)
            continue
        if row["plies_per_s"] > best["plies_per_s"]:
            best |= case | row
        keys = ("plies_per_s", "case", "kernel_share", "kernel_or_copy_share", "utilisation_percent")
        results.add(row, **{key: best[key] for key in keys})
    return results.exit_status()


def _cases(arguments: argparse.Namespace, best: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One after the other; the later ones are about the best so far."""
    (first, *others), (schedule, *schedules) = arguments.compile_mode, arguments.schedules
    for shape in arguments.shapes:
        yield {"shape": shape, "schedule": schedule, "compile_mode": first}
    for mode in others:
        yield {"shape": best.get("shape", arguments.shapes[0]), "schedule": schedule, "compile_mode": mode}
    for other in schedules if "shape" in best else ():
        yield {"shape": best["shape"], "schedule": other, "compile_mode": best["compile_mode"]}


def _measure(arguments: argparse.Namespace, *, shape: Shape, schedule: str, compile_mode: str) -> dict[str, Any]:
    policy = policy_of(arguments.model, kind=ProfiledPolicy)
    assert isinstance(policy, ProfiledPolicy)
    device = torch.device(arguments.device)
    options = {
        "num_workers": shape.num_workers,
        "games_per_worker": shape.games_per_worker,
        "groups_per_worker": shape.groups_per_worker,
        "schedule": schedule,
        "compile_mode": None if compile_mode == "none" else compile_mode,
        "plies_per_rollout": arguments.plies,
        "worker_device": arguments.device,
        "worker_precision": arguments.precision,
        "max_policy_lag": 0,  # nothing is published
        "heartbeat_s": 60.0,  # writing the trace may hold the inference process up
        "zero_copy": True,
        "stagger_games": False,  # the games begin anywhere anyway
        **dict(_option(text) for text in arguments.set),
    }
    with tempfile.TemporaryDirectory() as folder:
        policy.folder = folder
        start = time.perf_counter()
        with SelfPlayCollector(shogi(), policy.eval(), mode="central", **options) as collector:
            batches = iter(collector)
            next(batches)
            first_batch_s = time.perf_counter() - start
            next(batches)
            utilisation = Utilisation(device)
            with utilisation.measured():
                rate = _collected_per_s(collector, batches, arguments.case_s)
            shares = _shares(policy, batches)
            stats = collector.stats()
    return {
        "case": f"{shape} {schedule} {compile_mode}",
        "plies_per_s": round(rate),
        "kernel_share": None if shares[0] is None else round(shares[0], 3),
        "kernel_or_copy_share": None if shares[1] is None else round(shares[1], 3),
        "utilisation_percent": None if utilisation.percent is None else round(utilisation.percent),
        "games": shape.num_workers * shape.games_per_worker,
        "first_batch_s": round(first_batch_s, 1),
        "restarts": stats["restarts"],
    }


def _collected_per_s(collector: SelfPlayCollector, batches: Iterator[Any], seconds: float) -> float:
    start, plies = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not plies:
        next(batches)
        plies += collector.frames_per_batch
    passed = time.perf_counter() - start
    return plies / passed


def _shares(policy: ProfiledPolicy, batches: Iterator[Any]) -> tuple[float | None, float | None]:
    """Shares of time in kernels, and in kernels or copies, while batches are taken."""
    policy.request_trace()
    deadline = time.monotonic() + _TRACE_S
    while (events := policy.trace()) is None:
        if time.monotonic() > deadline:
            return None, None
        next(batches)
    return kernel_share(events)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
