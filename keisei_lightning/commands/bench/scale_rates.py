"""What the model of scale is fed with and checked against: short trainings on this machine, stage by stage."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from keisei_lightning.commands.bench.options import ScaleOptions
from keisei_lightning.commands.bench.scale_model import LOCAL, Cluster, Rates, ScaleModel
from keisei_lightning.commands.bench.short_training import short_training
from keisei_lightning.commands.bench.stages import StageTimes, measure_stages
from keisei_lightning.parallel.options import Schedule
from keisei_lightning.system.console import bar_on_screen

__all__ = ["Point", "Times", "calibration", "check_points", "check_rows", "measure_points", "rates_of"]


class Point(NamedTuple):
    """A training that is measured on this machine: one thread for each worker.

    With ``num_agents`` they are the workers of so many node agents, one each; 0: they are the learner's own.
    """

    num_workers: int
    schedule: Schedule = "sync"
    num_agents: int = 0

    @property
    def overrides(self) -> tuple[str, ...]:
        """As words of the command line."""
        ours = (f"parallel.num_workers={self.num_workers}", "parallel.mode=workers")
        rays = ("parallel.num_workers=1", "parallel.mode=ray")
        return (
            *((*rays, f"parallel.num_agents={self.num_agents}") if self.num_agents else ours),
            f"parallel.schedule={self.schedule}",
            "parallel.threads_per_worker=1",
        )

    def __str__(self) -> str:
        number, what = (self.num_agents, "node agent") if self.num_agents else (self.num_workers, "worker")
        return f"{self.schedule}, {number} {what}{'s' if number > 1 else ''}"


Times = Mapping[Point, Sequence[StageTimes]]
"""What was measured, with an entry for each round."""


def calibration(cpus: int) -> tuple[Point, Point]:
    """What the rates come from: one worker, and one for each CPU.

    Args:
        cpus: that this process may use.
    """
    return Point(1), Point(cpus)


def check_points(options: ScaleOptions, cpus: int) -> list[Point]:
    """What the model is checked against: numbers of workers, with ``async`` up to one for each CPU, and of node agents.

    Args:
        options: of the bench.
        cpus: that this process may use.
    """
    return [
        *(Point(workers) for workers in options.check_workers),
        *(Point(workers, "async") for workers in options.check_workers if workers <= cpus),
        *(Point(agents, "sync", agents) for agents in range(1, options.check_agents + 1)),
    ]


def measure_points(options: ScaleOptions, points: Sequence[Point]) -> dict[Point, list[StageTimes]]:
    """Train each of them for a few iterations, in alternating rounds.

    Args:
        options: of the bench.
        points: what is measured; one that comes twice is measured once.

    Raises:
        ConfigError: a training cannot run here; nothing was measured.
    """
    times: dict[Point, list[StageTimes]] = {point: [] for point in points}
    with tempfile.TemporaryDirectory() as folder:
        configs = {point: short_training(options, folder, point.overrides) for point in times}
        turns = [point for _ in range(options.rounds) for point in times]
        console = Console(stderr=True)
        bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        with bar_on_screen(bar):
            for point in bar.track(turns, description="measuring trainings"):
                times[point].append(measure_stages(configs[point]))
    return times


def rates_of(times: Times, cpus: int) -> Rates:
    """The model's rates, from the two trainings of :func:`calibration`.

    Args:
        times: of them, and of others that do not count.
        cpus: that this process may use.
    """
    one, full = (times[point] for point in calibration(cpus))
    single = statistics.median(_played_plies_per_s(time) for time in one)
    node = statistics.median(_played_plies_per_s(time) for time in full)
    return Rates(
        worker_plies_per_s=single,
        node_efficiency=node / (cpus * single) if cpus > 1 else 1.0,
        learner_plies_per_s=statistics.median(time.plies / time.learning_s for time in full),
        overhead_s=statistics.median(time.seconds["between"] / len(time.waits_s) for time in full),
        node_variation=statistics.median(_variation(time.waits_s) for time in full),
        bytes_per_ply=full[0].bytes_per_ply,
        weight_bytes=full[0].weight_bytes,
    )


def check_rows(times: Times, model: ScaleModel, cpus: int) -> list[dict[str, Any]]:
    """Measured beside predicted, for each training.

    Args:
        times: what was measured.
        model: that predicts; the learner's own workers have :data:`LOCAL` in the place of its network.
        cpus: that this process may use.
    """
    local = replace(model, network=LOCAL)
    return [_check_row(model if point.num_agents else local, point, taken, cpus) for point, taken in times.items()]


def _check_row(model: ScaleModel, point: Point, taken: Sequence[StageTimes], cpus: int) -> dict[str, Any]:
    nodes = max(1, point.num_agents)
    cluster = Cluster(nodes=nodes, workers_per_node=point.num_workers // nodes, cpus_per_node=cpus, is_one_machine=True)
    predicted = model.predict(cluster, point.schedule)
    measured = statistics.median(time.plies / time.total_s for time in taken)
    row: dict[str, Any] = {
        "training": f"{point}{' (calibrates)' if point in calibration(cpus) else ''}",
        "plies_per_s": round(measured),
        "predicted": round(predicted.plies_per_s),
        "error_percent": _error_percent(predicted.plies_per_s, measured),
        "played_plies_per_s": "",
        "predicted_played": "",
        "played_error_percent": "",
        "policy_lag": round(statistics.median(statistics.mean(time.lags) for time in taken), 2),
        "predicted_lag": round(predicted.policy_lag, 2),
    }
    if point.schedule == "sync":
        played = statistics.median(_played_plies_per_s(time) for time in taken)
        waits_s = sum(seconds for stage, seconds in predicted.seconds.items() if stage not in ("learn", "publish"))
        expected = predicted.plies_per_s * predicted.iteration_s / waits_s
        row |= {
            "played_plies_per_s": round(played),
            "predicted_played": round(expected),
            "played_error_percent": _error_percent(expected, played),
        }
    return row


def _played_plies_per_s(time: StageTimes) -> float:
    """Of all workers, while the learner waits for them."""
    return time.plies / time.seconds["collect"]


def _variation(waits_s: Sequence[float]) -> float:
    """Standard deviation over mean."""
    return statistics.stdev(waits_s) / statistics.mean(waits_s) if len(waits_s) > 1 else 0.0


def _error_percent(predicted: float, measured: float) -> float:
    return round(100 * (predicted / measured - 1), 1)
