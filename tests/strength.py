"""Every claim of strength in one command: train, measure, one table (``make strength``; ``--help`` lists the parts).

Each part trains the same experiment with several seeds, one after another, and measures each greedy policy: matches
from random openings with both seats, and exact measures where the game is small. What is measured is never trained on.
The numbers, the curves and how they were made are written to ``FOLDER/PART.json``; the notebook draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.evaluation import PolicyPlayer, play_match
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.positions import load_positions, share_optimal
from keisei_lightning.evaluation.ratings import rate_against
from keisei_lightning.evaluation.registry import closing_player, make_player
from keisei_lightning.evaluation.solvers import SmallGame, policy_probabilities
from keisei_lightning.policies import LoadedPolicy, load_policy
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.openmp import governed_spinning
from keisei_lightning.training.report import HISTORY_KEY

ROOT = Path(__file__).resolve().parents[1]
POSITIONS = ROOT / "tests" / "data" / "connect_four"
GAMES = 400
CLIMB_GAMES = 20  # against each rung, for one point of the curve
OPENING_SEED = 20_261_122  # of the matches; training's openings come from the run's own seed

Rows = Iterator[tuple[str, float, str]]
"""Name of a measure, its value, and how sure it is."""

SHOGI_LADDER = {  # rung -> games; fewer where the score is near 0 or 1, and nothing is claimed
    "random": GAMES,
    "blend(player=greedy_capture,share=0.35)": GAMES // 4,
    "blend(player=greedy_capture,share=0.75)": GAMES // 4,
    "greedy_capture": GAMES // 2,
    "mate_in_one": GAMES,
    "fairy_stockfish(skill=-10,nodes=1000)": GAMES // 2,
    "fairy_stockfish(skill=-5,nodes=1000)": GAMES,
    "fairy_stockfish(skill=-4,nodes=300)": GAMES // 4,
    "fairy_stockfish(skill=-4,nodes=500)": GAMES // 4,
    "fairy_stockfish(skill=-4,nodes=1000)": GAMES // 4,
    "fairy_stockfish(skill=-3,nodes=1000)": GAMES // 4,
    "fairy_stockfish(skill=-2,nodes=1000)": GAMES // 4,
    "fairy_stockfish(skill=0,nodes=100)": GAMES // 4,
    "fairy_stockfish(skill=0,nodes=1000)": GAMES // 4,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the trainings that a part compares.

    Attributes:
        overrides: of the configuration.
        script: that trains.
    """

    overrides: tuple[str, ...] = ()
    script: str = "train.py"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One claim.

    Attributes:
        experiment: of ``conf/experiment``.
        measure: the trained policy -> rows.
        climb: the folder of a run's checkpoints -> ratings over the training.
        overrides: of the configuration.
        variants: by name; each is trained with every seed.
        goes_on_from: the part in the same folder whose trainings these go on with; empty: they start anew.
        checkpoint: which of a run's is measured.
    """

    experiment: str
    measure: Callable[[LoadedPolicy], Rows]
    climb: Callable[[Path], list[dict[str, Any]]] = lambda folder: []
    overrides: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = field(default_factory=lambda: {"": Variant()})
    goes_on_from: str = ""
    checkpoint: str = "last.ckpt"


def greedy_player(policy: LoadedPolicy, *, symmetric: bool = False) -> PolicyPlayer:
    """The policy's most likely moves, or those of its mean over the game's mirror images."""
    return PolicyPlayer(policy.actor_critic, symmetries=policy.game(1).spec.symmetries if symmetric else ())


def matches(
    policy: LoadedPolicy,
    opponents: Mapping[str, int],
    opening_plies: int,
    *,
    symmetric: bool = False,
    remark: str = "",
) -> Rows:
    """Scores of the greedy policy; the number of games by opponent."""
    for name, games in opponents.items():
        with closing_player(make_player(name, policy.game(1).spec, seed=1)) as opponent:
            result = play_match(
                policy.game,
                greedy_player(policy, symmetric=symmetric),
                opponent,
                num_games=games,
                opening_plies=opening_plies,
                seed=OPENING_SEED,
            )
        low, high = result.interval
        sure = f"{100 * low:.1f} to {100 * high:.1f}; {result.wins}-{result.draws}-{result.losses}"
        sure += f", {result.void} void" * bool(result.void) + f", {result.repeated} repeated" * bool(result.repeated)
        yield f"score against {name}{remark}, %", 100 * result.score, sure


def tic_tac_toe(policy: LoadedPolicy) -> Rows:
    """Exploitability by full enumeration."""
    game = SmallGame("tic_tac_toe")
    for name, greedy in (("greedy", True), ("sampled", False)):
        value = game.exploitability(policy_probabilities(policy.actor_critic, greedy=greedy))
        yield f"exploitability, {name}", value, f"exact, all {game.num_positions} positions"


def optimal_moves(policy: LoadedPolicy, *, symmetric: bool = False) -> Rows:
    """Optimal moves in the labelled positions of connect four."""
    remark = ", symmetric play" if symmetric else ""
    for name in ("random", "tactical"):
        positions = load_positions(POSITIONS / f"{name}.csv", policy.game)
        shares = share_optimal(greedy_player(policy, symmetric=symmetric), positions)
        for which, share in (("", shares.all), (" (quiet)", shares.quiet)):
            if share is not None:
                low, high = share.interval
                sure = f"{100 * low:.1f} to {100 * high:.1f}; {share.total} positions"
                yield f"optimal, {name} set{which}{remark}, %", 100 * share.value, sure


def connect_four(policy: LoadedPolicy) -> Rows:
    """Optimal moves in labelled positions, and matches."""
    yield from optimal_moves(policy)
    yield from matches(policy, {"random": GAMES, "tactics": GAMES, "alpha_beta(depth=5)": GAMES}, 8)
    yield from matches(policy, {"tactics": GAMES}, 4, remark=" (openings of up to 4 plies)")
    yield from optimal_moves(policy, symmetric=True)
    yield from matches(
        policy, {"tactics": GAMES}, 4, symmetric=True, remark=" (openings of up to 4 plies, symmetric play)"
    )


def connect_four_surely(policy: LoadedPolicy) -> Rows:
    """The same, and a match that is uncertain by 0.7 points instead of 2.5."""
    yield from connect_four(policy)
    yield from matches(policy, {"tactics": 10 * GAMES}, 4, remark=f" (openings of up to 4 plies, {10 * GAMES} games)")


def kept_policies(checkpoints: Path) -> Iterator[tuple[dict[str, float], LoadedPolicy]]:
    """The policies that a run kept on its way, each with the minutes and plies that it had taken."""
    for path in sorted(checkpoints.glob("epoch_*.ckpt")):
        latest = torch.load(path, weights_only=True)[HISTORY_KEY][-1]
        yield {key: latest[key] for key in ("minutes", "self_play/plies")}, load_policy(path)


def climb_connect_four(checkpoints: Path) -> list[dict[str, float]]:
    """Optimal moves of every checkpoint in both sets of positions."""
    return [
        when | {name: value for name, value, _ in optimal_moves(policy)} for when, policy in kept_policies(checkpoints)
    ]


def connect_four_in_brief(policy: LoadedPolicy) -> Rows:
    """What comparisons of many trainings are content with: optimal moves, and a match against ``tactics``."""
    yield from optimal_moves(policy)
    yield from matches(policy, {"tactics": GAMES}, 8)


def small_board(policy: LoadedPolicy) -> Rows:
    """Matches on hex and breakthrough."""
    yield from matches(policy, dict.fromkeys(("random", "alpha_beta(depth=3)", "mcts(simulations=1000)"), GAMES), 4)


def shogi(policy: LoadedPolicy) -> Rows:
    """Matches against the whole ladder."""
    yield from matches(policy, SHOGI_LADDER, 10)


def climb_shogi(checkpoints: Path) -> list[dict[str, Any]]:
    """Rate every checkpoint by games against the rungs of the ladder that a training may reach."""
    ladder = load_ladder("shogi")
    points = []
    for when, policy in kept_policies(checkpoints):
        tallies = {}
        for name in list(SHOGI_LADDER)[:-2]:  # without the two upper ones
            with closing_player(make_player(name, policy.game(1).spec, seed=1)) as rung:
                player = greedy_player(policy)
                result = play_match(
                    policy.game, player, rung, num_games=CLIMB_GAMES, opening_plies=10, seed=OPENING_SEED
                )
            tallies[name] = result.total
        rating = rate_against(ladder, tallies)
        if rating is None:
            raise ValueError(f"nothing is known of {when} on the ladder")
        ends = rating.as_json()
        points.append(when | {"rating": rating.value, "low": ends["low"], "high": ends["high"]})
    return points


_POOL = ("opponents=snapshots", "opponents.share=0.25", "opponents.every_n_epochs=10")
_FOUR = ("parallel.num_workers=2", "parallel.games_per_worker=64")  # 2048 plies an epoch on every machine
_ASYNC = ("parallel.schedule=async", "parallel.slots_per_worker=4", "parallel.max_policy_lag=4")

PARTS: dict[str, Part] = {
    "tic_tac_toe": Part(experiment="tic_tac_toe_strong", measure=tic_tac_toe),
    "connect_four": Part(
        experiment="connect_four_strong",
        measure=connect_four,
        overrides=(
            *("model.equivariant=false", "parallel.augment_symmetry=true", "ppo.normalize_advantage=true"),
            *("ppo.final_entropy_coeff=0.02", "ppo.final_learning_rate=3e-4"),
            *("trainer.max_epochs=2000", "evaluation.every_n_epochs=10"),
        ),
    ),
    # An hour on one core (`--jobs 2`: two seeds at once), half an hour on both (`--jobs 1`).
    "connect_four_two_cores": Part(
        experiment="connect_four_strong",
        measure=connect_four,
        climb=climb_connect_four,
        overrides=("checkpoint.every_n_epochs=720", "checkpoint.keep=-1"),
    ),
    # A quarter of an hour more: of many policies of the end, the one chosen by games that are not those of the measure.
    "connect_four_best": Part(
        experiment="connect_four_strong",
        measure=connect_four_surely,
        goes_on_from="connect_four_two_cores",
        checkpoint="best.ckpt",
        overrides=(
            *("trainer.max_epochs=8100", "checkpoint.keep_best=true", "evaluation.opponents=[tactics]"),
            *("evaluation.every_n_epochs=60", "evaluation.num_games=4000", "evaluation.opening_plies=4"),
        ),
    ),
    "hex": Part(experiment="hex", measure=small_board),
    "breakthrough": Part(experiment="breakthrough", measure=small_board),
    "shogi": Part(
        experiment="shogi_strong",
        measure=shogi,
        climb=climb_shogi,
        overrides=("checkpoint.every_n_epochs=26", "checkpoint.keep=-1"),
        variants={"self-play": Variant(), "opponent pool": Variant(overrides=_POOL)},
    ),
    # Both cores for half an hour: `--jobs 1`.
    "shogi_two_cores": Part(
        experiment="shogi_strong",
        measure=shogi,
        climb=climb_shogi,
        overrides=("trainer.max_epochs=280", "checkpoint.every_n_epochs=28", "checkpoint.keep=-1"),
        variants={"opponent pool": Variant(overrides=_POOL), "self-play": Variant()},
    ),
    # As the published policy was trained, on both cores: `--jobs 1`.
    "shogi_half_hour": Part(experiment="shogi_half_hour", measure=shogi),
    # Comparisons: connect four for a few minutes, the same plies for each variant.
    "levers": Part(
        experiment="connect_four",
        measure=connect_four_in_brief,
        overrides=(*_FOUR, "trainer.max_epochs=100", "evaluation.every_n_epochs=50"),
        variants={
            "as it is": Variant(),
            "no varied starts": Variant(overrides=("env.opening_plies=0",)),
            "mirror images": Variant(overrides=("parallel.augment_symmetry=true",)),
            "constant entropy bonus": Variant(overrides=("ppo.entropy_coeff=0.02", "ppo.final_entropy_coeff=null")),
            "win, draw, loss": Variant(overrides=("model.value_head=wdl",)),
            "KL target": Variant(overrides=("ppo.kl_target=0.01",)),
            "constant learning rate": Variant(overrides=("ppo.final_learning_rate=null",)),
            "advantages as they are": Variant(overrides=("ppo.normalize_advantage=false",)),
            "async, lag up to 4": Variant(overrides=(*_ASYNC,)),
            "async, decoupled": Variant(overrides=(*_ASYNC, "ppo.decoupled=true")),
        },
    ),
    "mathematics": Part(
        experiment="connect_four",
        measure=connect_four,
        overrides=(*_FOUR, "trainer.max_epochs=150", "evaluation.every_n_epochs=50"),
        variants={"two players": Variant(), "single agent": Variant(script="tests/benchmarks/single_agent.py")},
    ),
}


def train(
    part: Part, variant: Variant, further: tuple[str, ...], seed: int, folder: Path, start: Path | None, threads: int
) -> dict[str, Any]:
    """Train one policy in a process of its own, with so many threads, and measure it.

    Args:
        part: whose policy it is.
        variant: of the part.
        further: overrides.
        seed: of the training.
        folder: of the training.
        start: of the training that this one goes on with, its folder; None: it starts anew.
        threads: of the learner.
    """
    overrides = (*part.overrides, *variant.overrides, *further)
    command = [variant.script, f"experiment={part.experiment}", *overrides, f"seed={seed}"]
    going_on = [] if start is None else [f"ckpt_path={start / 'checkpoints' / 'last.ckpt'}"]
    started = time.monotonic()
    subprocess.run(
        [sys.executable, *command, *going_on, f"output_dir={folder}", "trainer.enable_progress_bar=false"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},  # workers keep to it too
        check=True,
    )
    minutes = (time.monotonic() - started) / 60
    history = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[HISTORY_KEY]
    return {
        "command": " ".join(["python", *command, *(["ckpt_path=..."] if going_on else [])]),
        "seed": seed,
        "minutes": minutes,
        "plies": history[-1]["self_play/plies"],
        **measure(part, folder),
        "curve": [
            {key: row[key] for key in row if key in ("minutes", "self_play/plies") or key.startswith("eval/")}
            for row in history
            if any(key.startswith("eval/") for key in row)
        ],
    }


def measure(part: Part, folder: Path) -> dict[str, Any]:
    """Measure one trained policy."""
    checkpoints = folder / "checkpoints"
    rows = list(part.measure(load_policy(checkpoints / part.checkpoint)))
    return {
        "climb": part.climb(checkpoints),
        "measures": {name: {"value": value, "note": note} for name, value, note in rows},
    }


def run(
    name: str,
    seeds: list[int],
    overrides: tuple[str, ...],
    folder: Path,
    jobs: int,
    *,
    only: list[str] | None,
    again: bool,
) -> dict[str, Any]:
    """Run one part, so many trainings at once, and write its file after each policy; what it holds is not run again.

    With ``again``, what it holds is measured again.
    """
    part, threads, file = PARTS[name], max(1, available_cpus() // jobs), folder / f"{name}.json"
    report: dict[str, Any] = {
        "part": name,
        "machine": describe_machine(),
        "trainings_at_once": jobs,
        "threads_each": threads,
        "runs": [],
    }
    if file.exists():
        report = json.loads(file.read_text(encoding="utf-8"))
    done_before = {(run["seed"], run["variant"]) for run in report["runs"]}
    # Seed by seed, the variants beside one another: a machine that changes its pace is fair to all.
    wanted = [(seed, label) for seed in seeds for label in part.variants if only is None or label in only]

    def folder_of(seed: int, label: str, part_name: str = name) -> Path:
        return folder / part_name / (re.sub(r"\W+", "_", label) or "run") / f"seed_{seed}"

    def write() -> None:
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    for result in report["runs"] if again else ():
        if (result["seed"], result["variant"]) not in wanted:
            continue
        torch.set_num_threads(threads)
        result.update(measure(part, folder_of(result["seed"], result["variant"])))
        write()

    def job(seed: int, label: str) -> dict[str, Any]:
        where = folder_of(seed, label)
        # Whose minutes these are: a file may be added to on another machine than the one that began it.
        machine = {"machine": describe_machine()}
        start = folder_of(seed, label, part.goes_on_from) if part.goes_on_from else None
        return {"variant": label} | machine | train(part, part.variants[label], overrides, seed, where, start, threads)

    with ThreadPoolExecutor(jobs) as pool:
        jobs_left = [pool.submit(job, *one) for one in wanted if one not in done_before]
        try:
            for done in as_completed(jobs_left):
                report["runs"].append(done.result())
                report["runs"].sort(key=lambda result: (result["seed"], list(part.variants).index(result["variant"])))
                write()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # one has failed: begin no other
            raise
    return report


def show(report: dict[str, Any]) -> None:
    """Print a part's table: each measure with its value for each seed, and the median."""
    runs = report["runs"]
    for variant in dict.fromkeys(run["variant"] for run in runs):
        mine = [run for run in runs if run["variant"] == variant]
        minutes = ", ".join(f"{run['minutes']:.1f}" for run in mine)
        plies = ", ".join(f"{run['plies']:,.0f}" for run in mine)
        table = Table(title=f"{report['part']} {variant}: {minutes} minutes; {plies} plies")
        for column in ("measure", "median", *(f"seed {run['seed']}" for run in mine), "of the first seed"):
            table.add_column(column)
        for name in dict.fromkeys(name for run in mine for name in run["measures"]):
            measured = [run["measures"].get(name) for run in mine]
            known = [one for one in measured if one is not None]
            values = ["" if one is None else f"{one['value']:.4g}" for one in measured]
            median = statistics.median(one["value"] for one in known)
            table.add_row(name, f"{median:.4g}", *values, known[0]["note"])
        Console(width=160).print(table)


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each (default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, which share the CPUs (default: 1)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="of a part's variants only these (default: all)")
    parser.add_argument("--again", action="store_true", help="measure those again that were trained before")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further overrides, for pilots")
    parser.add_argument("--folder", type=Path, default=Path("results/strength"), help="where everything goes")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"{unknown[0]}: must be one of {', '.join(PARTS)}")
    folder, parts = arguments.folder.absolute(), arguments.parts or list(PARTS)
    known = {label for name in parts for label in PARTS[name].variants}
    if unknown := sorted(set(arguments.variants or ()) - known):
        parser.error(f"{unknown[0]}: must be one of {', '.join(sorted(known))}")
    for name in parts:
        report = run(
            name,
            arguments.seeds,
            tuple(arguments.set),
            folder,
            arguments.jobs,
            only=arguments.variants,
            again=arguments.again,
        )
        show(report)
    return 0


if __name__ == "__main__":
    with governed_spinning():
        sys.exit(main())
