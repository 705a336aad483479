"""Positions a second of the network alone, by batch, precision, memory format and how it is run.

::

    python tests/benchmarks/gpu_forward.py --model large --batches 4096 8192

It is the ceiling of what can be collected on this device. Observations lie on the device already, and no move is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_common import MODELS, Results, add_common_arguments, policy_of, rate_of, shogi
from torch import Tensor, nn

_HOW = ("eager", "graph", "compiled")
_Network = Callable[[Tensor], Any]


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--batches", nargs="+", type=int, default=[4096, 8192, 2048, 1024, 512])
    parser.add_argument("--case-s", type=float, default=1.0, help="seconds to measure each case for")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results = Results(arguments.write, arguments.seconds)
    best = 0
    first, *other_batches = arguments.batches
    layouts = ("contiguous", "channels_last")
    cases = [
        *itertools.product([first], ("bf16", "float32"), layouts, _HOW),
        *itertools.product(other_batches, ("bf16",), layouts, _HOW),
    ]
    for batch, precision, layout, how in cases:
        if how != "eager" and device.type != "cuda":
            continue  # graphs are CUDA's, and compiling for a CPU is another matter
        name = f"{batch} {precision} {layout} {how}"
        if not results.is_time_for(name):
            break
        try:
            positions = _measure(arguments, device, batch=batch, precision=precision, layout=layout, how=how)
        except Exception as error:  # noqa: BLE001 - no compiler, no memory: the others are to be measured
            results.failed(name, error)
            continue
        best = max(best, positions)
        row = {"batch": batch, "precision": precision, "layout": layout, "how": how, "positions_per_s": positions}
        results.add(row, positions_per_s=best)
    return results.exit_status()


@torch.inference_mode()
def _measure(
    arguments: argparse.Namespace, device: torch.device, *, batch: int, precision: str, layout: str, how: str
) -> int:
    network: nn.Module = policy_of(arguments.model).network.to(device).eval()
    if layout == "channels_last":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    observation = _positions(batch).to(device)
    mixed = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with mixed:
        run = _prepared(network, observation, how)
        rate = rate_of(lambda: run(observation), device=device, seconds=arguments.case_s)
    return round(batch * rate)


def _positions(batch: int) -> Tensor:
    """Observations [batch, *obs] of games that have been going on for some plies."""
    game = shogi()(min(batch, 256))
    game.seed(0)
    game.reset()
    observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
    legal = np.zeros((game.num_games, game.spec.mask_bytes), np.uint8)
    game.observe(observation, legal, np.zeros(game.num_games, np.int8))
    return torch.from_numpy(np.resize(observation, (batch, *observation.shape[1:])))


def _prepared(network: nn.Module, observation: Tensor, how: str) -> _Network:
    if how == "compiled":
        compiled: _Network = torch.compile(network, dynamic=False)
        return compiled
    return _Graph(network, observation) if how == "graph" else network


class _Graph:
    """A network's pass recorded as a CUDA graph.

    Args:
        network: to record.
        observation: its input; the pass is always of what lies there.
    """

    def __init__(self, network: _Network, observation: Tensor) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(observation)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = network(observation)

    def __call__(self, observation: Tensor) -> Any:
        self._graph.replay()
        return self._out


if __name__ == "__main__":
    sys.exit(main())
