"""What a cluster would do: the model of scale, fed with rates that are measured here or given, as table and picture."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from keisei_lightning.commands.bench.options import ScaleOptions
from keisei_lightning.commands.bench.report import print_report, table_of
from keisei_lightning.commands.bench.scale_model import STAGES, Cluster, Network, Rates, ScaleModel, Training
from keisei_lightning.commands.bench.short_training import short_training
from keisei_lightning.config.option_checks import made
from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.options import CollectorOptions, Schedule
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.training.options import MinibatchOptions

__all__ = ["run"]

CHANGES = {
    "play": "more nodes or workers; a smaller network; accelerators on the nodes",
    "deliver": "learner ranks on more machines; a quicker network",
    "take": "larger rollouts (parallel.games_per_worker, parallel.plies_per_rollout); more ranks",
    "learn": "more learner ranks; an accelerator; a smaller network; fewer passes (ppo.epochs)",
    "publish": "larger rollouts, so that less is published",
    "broadcast": "broadcast=tree; weights in bfloat16; larger rollouts, so that less is published",
    "store": "learner ranks on more machines",
}
"""What to change where a stage is the slowest."""

_GIVEN = ("worker_plies_per_s", "learner_plies_per_s")
"""Rates that may be given by name."""

_TOO_EFFICIENT = (
    "a node's CPUs cannot play more together than each alone: something else ran while one worker was measured; "
    "measure again on an idle machine, with more rounds"
)

_SHOWN = (
    *("schedule", "ranks", "nodes", "plies_per_s", "slowest"),
    *("learner_percent", "steps_behind", "in_mb_per_s"),
)
_SHOWN_STOPS = (
    *("schedule", "ranks", "90_percent_with_nodes", "plies_per_s_then"),
    *("slowest_beyond", "nodes_that_fit_memory"),
)
_SHOWN_CHECKS = (
    *("training", "plies_per_s", "predicted", "error_percent"),
    *("played_plies_per_s", "predicted_played", "played_error_percent"),
)
"""Columns of the tables: what fits into 80 characters. The JSON has more."""

_GIGA = 1e9
_MEGA = 1e6


def run(options: ScaleOptions) -> None:
    """Measure what is not given, predict, print and draw.

    Raises:
        ConfigError: the overrides are no configuration that can be trained, or the file of rates cannot be used.
    """
    if options.write is not None and Path(options.write).suffix == ".svg":
        raise ConfigError(f"write={options.write}: must have another ending than .svg, which the picture beside it has")
    known = None if options.rates is None else _rates_in(options.rates)
    training = _training(options)
    rates, checks = _measured(options, known, training)
    model = _model(options, rates, training)
    rows = [_row(model, _cluster(options, nodes, ranks), schedule) for schedule, ranks, nodes in _cases(options)]
    stops = [_stop(model, options, ranks, schedule) for schedule in options.schedule for ranks in options.ranks]
    limits = [_limits(model, _cluster(options, max(options.nodes), ranks)) for ranks in options.ranks]
    print_report(
        f"scale: {' '.join(options.overrides) or 'the default configuration'}",
        rows,
        as_json=options.json,
        write=options.write,
        notes=_notes(options, rates),
        one_line_a_row=True,
        columns=_SHOWN,
        extra={
            "rates": asdict(rates),
            "training": asdict(training),
            "stops": stops,
            "limits": limits,
            "checks": checks,
        },
    )
    if not options.json:
        console = Console()
        console.print(table_of("where it stops", stops, one_line_a_row=True, columns=_SHOWN_STOPS))
        for stage in dict.fromkeys(stop["slowest_beyond"] for stop in stops):
            change = f"what to change where {STAGES[stage]} ({stage}): {CHANGES[stage]}"
            console.print(change, markup=False, highlight=False)
        console.print(table_of("plies/s that each stage could do alone (async)", limits, one_line_a_row=True))
        if checks:
            title = "measured here, beside the model"
            console.print(table_of(title, checks, one_line_a_row=True, columns=_SHOWN_CHECKS))
    if options.write is not None:
        from keisei_lightning.commands.bench.scale_picture import draw_scale  # matplotlib, which takes a second

        clusters = {ranks: _cluster(options, 1, ranks) for ranks in options.ranks}
        draw_scale(Path(options.write).with_suffix(".svg"), model, clusters, options.schedule, max(options.nodes))


# ---- inputs


def _rates_in(file: str) -> Rates:
    """Rates that an earlier run wrote.

    Raises:
        ConfigError: there are none in the file.
    """
    names = [field.name for field in fields(Rates)]
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))["rates"]
        return Rates(**{name: found[name] for name in names})
    except ConfigError as error:
        raise ConfigError([f"rates={file}: {line}" for line in error.errors]) from error
    except OSError as error:
        raise ConfigError(f"rates={file}: must be a file that can be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"rates={file}: must be what `keisei bench scale write=FILE` wrote") from error


def _training(options: ScaleOptions) -> Training:
    """How it is trained, as configured.

    Raises:
        ConfigError: it is no configuration that can be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = short_training(options, folder).cfg
    collector, minibatches = made(CollectorOptions, cfg.parallel), made(MinibatchOptions, cfg.ppo)
    return Training(
        plies_per_rollout=collector.games_per_worker * collector.plies_per_rollout,
        num_epochs=minibatches.epochs * minibatches.advantage_share,
        minibatch_size=minibatches.minibatch_size,
        slots_per_worker=collector.slots_per_worker,
    )


def _measured(options: ScaleOptions, rates: Rates | None, training: Training) -> tuple[Rates, list[dict[str, Any]]]:
    """Rates, those that were given in the place of measured ones; and what was measured beside what is predicted."""
    checks: list[dict[str, Any]] = []
    if rates is None or options.check:
        from keisei_lightning.commands.bench import scale_rates  # torch: a mistyped override is told without it

        cpus = available_cpus()
        points = [] if rates is not None else [*scale_rates.calibration(cpus)]
        points += scale_rates.check_points(options, cpus) if options.check else []
        times = scale_rates.measure_points(options, points)
        rates = rates or scale_rates.rates_of(times, cpus)
        if options.check:
            checks = scale_rates.check_rows(times, _model(options, rates, training), cpus)
    given = {name: value for name in _GIVEN if (value := getattr(options, name)) is not None}
    return replace(rates, **given), checks


def _model(options: ScaleOptions, rates: Rates, training: Training) -> ScaleModel:
    network = Network(
        bytes_per_s=options.bandwidth_gbit_per_s * _GIGA / 8,
        latency_s=options.latency_ms / 1e3,
        store_bytes_per_s=options.store_gb_per_s * _GIGA,
        rollout_s=options.rollout_ms / 1e3,
        broadcast=options.broadcast,
    )
    return ScaleModel(rates=rates, training=training, network=network)


def _cases(options: ScaleOptions) -> list[tuple[Schedule, int, int]]:
    return [
        (schedule, ranks, nodes) for schedule in options.schedule for ranks in options.ranks for nodes in options.nodes
    ]


def _cluster(options: ScaleOptions, nodes: int, ranks: int) -> Cluster:
    return Cluster(
        nodes=nodes,
        workers_per_node=options.workers,
        cpus_per_node=options.cpus,
        ranks=ranks,
        ranks_per_machine=options.ranks_per_machine,
    )


# ---- what is told


def _row(model: ScaleModel, cluster: Cluster, schedule: Schedule) -> dict[str, Any]:
    predicted = model.predict(cluster, schedule)
    return {
        "schedule": schedule,
        "ranks": cluster.ranks,
        "nodes": cluster.nodes,
        "plies_per_s": round(predicted.plies_per_s),
        "slowest": predicted.slowest,
        "learner_percent": round(100 * predicted.learner_share, 1),
        "workers_percent": round(100 * predicted.worker_share, 1),
        "policy_lag": round(predicted.policy_lag, 2),
        "steps_behind": round(predicted.policy_lag * predicted.steps_per_publish),
        "in_mb_per_s": round(predicted.rollouts_bytes_per_s / _MEGA, 2),
        "out_mb_per_s": round(predicted.weights_bytes_per_s / _MEGA, 2),
        "store_mb_per_s": round(predicted.store_bytes_per_s / _MEGA, 2),
        "rollouts_gb": round(predicted.rollouts_bytes / _GIGA, 2),
    }


def _stop(model: ScaleModel, options: ScaleOptions, ranks: int, schedule: Schedule) -> dict[str, Any]:
    """With how many nodes there is nine tenths of all that there is to have, and what to change for more."""
    cluster = _cluster(options, 1, ranks)
    nodes = model.nodes_for(cluster, schedule)
    beyond = model.predict(replace(cluster, nodes=2 * nodes), schedule).slowest
    return {
        "schedule": schedule,
        "ranks": ranks,
        "90_percent_with_nodes": nodes,
        "plies_per_s_then": round(model.predict(replace(cluster, nodes=nodes), schedule).plies_per_s),
        "slowest_beyond": beyond,
        "change": CHANGES[beyond],
        "nodes_that_fit_memory": model.nodes_that_fit(cluster, options.memory_gb * _GIGA),
    }


def _limits(model: ScaleModel, cluster: Cluster) -> dict[str, Any]:
    limits = {stage: round(rate) for stage, rate in model.limits(cluster).items()}
    return {"ranks": cluster.ranks, "nodes": cluster.nodes, **limits}


def _notes(options: ScaleOptions, rates: Rates) -> Sequence[str]:
    given = {name for name in _GIVEN if getattr(options, name) is not None}
    origin = f"from {options.rates}" if options.rates else "measured here"
    words: Mapping[str, str] = {
        "worker_plies_per_s": f"a worker plays {rates.worker_plies_per_s:,.0f} plies/s",
        "node_efficiency": f"a node's CPUs together {rates.node_efficiency:.2f} of that each",
        "learner_plies_per_s": f"a rank learns {rates.learner_plies_per_s:,.0f} plies/s",
        "overhead_s": f"an iteration takes {1e3 * rates.overhead_s:.1f} ms beside",
        "node_variation": f"its time varies by {100 * rates.node_variation:.1f} %",
        "bytes_per_ply": f"{rates.bytes_per_ply:,.0f} bytes a ply",
        "weight_bytes": f"{rates.weight_bytes / _MEGA:.2f} MB of weights",
    }
    measured = "; ".join(text for name, text in words.items() if name not in given)
    return (
        f"{origin}: {measured}",
        *([_TOO_EFFICIENT] if rates.node_efficiency > 1 else []),
        *([f"given: {'; '.join(words[name] for name in _GIVEN if name in given)}"] if given else []),
        f"assumed: {options.workers} workers on the {options.cpus} CPUs of a node; cards of "
        f"{options.bandwidth_gbit_per_s:g} Gbit/s and {options.latency_ms:g} ms; object stores of "
        f"{options.store_gb_per_s:g} GB/s; {options.memory_gb:g} GB for rollouts; {options.rollout_ms:g} ms a rollout; "
        f"{options.ranks_per_machine} ranks a machine; broadcast={options.broadcast}",
    )
