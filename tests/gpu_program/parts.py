"""What is run, most valuable first; every size stands in one table, with a column for a machine without a GPU."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_program.figures import Figures, of_checkpoint_match, of_measurement, of_smoke, of_tests, of_training
from gpu_program.setup import ROOT

__all__ = ["CHECKPOINT", "EXPERIMENT", "SIZES", "Part", "all_parts"]

CHECKPOINT = "last.ckpt"
"""The training's checkpoint in the folder of results."""

EXPERIMENT = "shogi_gpu"

SIZES: Mapping[str, tuple[str, str]] = {
    # name: (with a GPU, without)
    "device": ("cuda:0", "cpu"),
    "trainer": ("gpu", "cpu"),
    "model": ("large", "tiny"),
    "smoke_model": ("small", "tiny"),
    "smoke_modes": ("central,workers,serial", "serial"),
    "smoke_workers": ("2", "1"),
    "smoke_epochs": ("3", "1"),
    "tests": ("-m gpu -k 'not compiled'", "-m 'not gpu' -k logits"),
    # workers x games of each x groups of them
    "shapes": ("8x512x2 8x1024x2 14x512x4", "1x4x2"),
    "collect_compile": ("none reduce-overhead", "none"),
    "collect_schedules": ("async sync", "async"),
    "collect_plies": ("32", "4"),
    "case_s": ("5", "0.2"),
    "cases": (
        "bf16-mixed/none/async bf16-mixed/none/sync bf16-mixed/default/async 32-true/none/async",
        "32-true/none/async",
    ),
    "learn_cases": (
        "bf16-mixed/none 32-true/none bf16-mixed/default bf16-mixed/max-autotune-no-cudagraphs",
        "32-true/none",
    ),
    "learn_shape": ("8x512x2", "1x4x2"),
    "learn_plies": ("32", "8"),
    "minibatch": ("8192", "16"),
    "batches": ("4096 8192 2048 1024 512", "8"),
    "forward_s": ("1", "0.02"),
    "megabytes": ("64 16 4 1", "0.1"),
    "match_games": ("200", "2"),
}
"""All sizes by name."""

_PYTEST = (
    "-m pytest tests/gpu -v -W default -o addopts=--strict-markers -p no:cacheprovider --durations=10 "
    "--junitxml={work}/tests.xml"
)
"""Another torch has other warnings, which are no failures here."""

_FALLBACK = shlex.split(
    "experiment=shogi model=large trainer=gpu trainer.precision=bf16-mixed parallel=central "
    "parallel.worker_device=cuda:0 parallel.worker_precision=bf16-mixed parallel.num_workers=8 "
    "parallel.games_per_worker=512 ppo.minibatch_size=8192 trainer.max_epochs=1000 evaluation.max_time_share=0.1"
)
"""The training where this checkout has no :data:`EXPERIMENT`."""

_TINY = shlex.split(
    "trainer=cpu trainer.precision=32-true trainer.max_epochs=2 model=tiny parallel=central "
    "parallel.worker_device=cpu parallel.worker_precision=32-true parallel.compile_mode=null parallel.num_workers=1 "
    "parallel.games_per_worker=4 parallel.plies_per_rollout=8 ppo.compile_mode=null ppo.minibatch_size=16 "
    "env.max_plies=16 env.opening_plies=4 evaluation=brief evaluation.num_games=2"
)
"""What makes that training tiny, whatever the experiment asks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A command and what is read from what it leaves.

    Attributes:
        name: to choose it by.
        what: it does.
        words: after ``python``; ``{work}`` is a folder of its own, ``{out}`` that of the results, ``{seconds}`` how
            long it may take.
        bound_s: seconds until it is killed; None: all that is left.
        reserve_s: what parts before it leave to it.
        read: figures and rows, from its folder and its output.
        keeps: of files of its folder (patterns, the first that matches; of several files the newest), the name that it
            is kept by in the folder of results.
        stops_in_order: at its bound it is asked to stop, and has passed if it does.
    """

    name: str
    what: str
    words: Sequence[str]
    bound_s: float | None
    reserve_s: float = 0.0
    read: Callable[[Path, str], Figures] = of_measurement
    keeps: Mapping[str, tuple[str, ...]] = ()  # type: ignore[assignment]
    stops_in_order: bool = False


def all_parts(*, on_gpu: bool, resume: str | None, overrides: Sequence[str]) -> list[Part]:
    """All parts in their order.

    Args:
        on_gpu: which column of :data:`SIZES`.
        resume: a checkpoint that the training resumes from; None: it begins anew.
        overrides: more words for the training.
    """
    size = {name: values[0 if on_gpu else 1] for name, values in SIZES.items()}

    def words(text: str) -> tuple[str, ...]:
        places = {**size, "work": "{work}", "out": "{out}", "seconds": "{seconds}"}
        return tuple(shlex.split(text.format_map(places)))

    return [
        Part(
            name="environment",
            what="imports, devices, a matrix product in each precision",
            words=words("tests/benchmarks/gpu_environment.py --device {device} --write {work}/result.json"),
            bound_s=60,
        ),
        Part(
            name="smoke",
            what="train.py from end to end in each mode",
            words=words(
                "train.py -m experiment=smoke parallel={smoke_modes} model={smoke_model} trainer={trainer} "
                "parallel.worker_device={device} parallel.num_workers={smoke_workers} evaluation.num_games=2 "
                "trainer.max_epochs={smoke_epochs} trainer.enable_progress_bar=false results_dir={work}"
            ),
            bound_s=75,
            read=of_smoke,
        ),
        Part(
            name="tests",
            what="the tests that are marked gpu",
            words=words(f"{_PYTEST} {{tests}}"),
            bound_s=110,
            read=of_tests,
        ),
        Part(
            name="collect",
            what="collected plies/s, and the share of the GPU's time in kernels",
            words=words(
                "tests/benchmarks/gpu_collect.py --device {device} --model {model} --precision bf16-mixed "
                "--shapes {shapes} --compile-mode {collect_compile} --schedules {collect_schedules} "
                "--plies {collect_plies} --case-s {case_s} "
                "--seconds {seconds} --write {work}/result.json"
            ),
            bound_s=90,
        ),
        Part(
            name="ppo",
            what="PPO from end to end: playing and learning on one device",
            words=words(
                "tests/benchmarks/gpu_ppo.py --device {device} --model {model} --cases {cases} --shape {learn_shape} "
                "--plies {learn_plies} --minibatch {minibatch} --case-s {case_s} --seconds {seconds} "
                "--write {work}/result.json"
            ),
            bound_s=75,
        ),
        Part(
            name="learn",
            what="the learner alone: one rollout again and again",
            words=words(
                "tests/benchmarks/gpu_ppo.py --same-rollout --device {device} --model {model} --cases {learn_cases} "
                "--shape {learn_shape} --plies {learn_plies} --minibatch {minibatch} --case-s {case_s} "
                "--seconds {seconds} --write {work}/result.json"
            ),
            bound_s=50,
        ),
        Part(
            name="forward",
            what="the network alone: the ceiling of what can be collected",
            words=words(
                "tests/benchmarks/gpu_forward.py --device {device} --model {model} --batches {batches} "
                "--case-s {forward_s} --seconds {seconds} --write {work}/result.json"
            ),
            bound_s=45,
        ),
        Part(
            name="transfer",
            what="copies to and from the device, and publishing weights",
            words=words(
                "tests/benchmarks/gpu_transfer.py --device {device} --model {model} --megabytes {megabytes} "
                "--write {work}/result.json"
            ),
            bound_s=25,
        ),
        *(
            [
                Part(
                    name="compiled",
                    what="the tests of compiled networks",
                    words=words(f"{_PYTEST} -m gpu -k compiled"),
                    bound_s=75,
                    read=of_tests,
                )
            ]
            if on_gpu  # compiling for a CPU is tested elsewhere
            else []
        ),
        _training(on_gpu=on_gpu, resume=resume, overrides=overrides),
        Part(
            name="match",
            what="the trained policy, greedy, against other players",
            words=words(
                f"-m keisei_lightning eval checkpoint={{out}}/{CHECKPOINT} opponents=[random,mate_in_one] "
                "games={match_games} opening_plies=10 records=false device={device} output_dir={work}/match"
            ),
            bound_s=60,
            reserve_s=45,
            read=of_checkpoint_match,
        ),
    ]


def _training(*, on_gpu: bool, resume: str | None, overrides: Sequence[str]) -> Part:
    is_there = (ROOT / "conf" / "experiment" / f"{EXPERIMENT}.yaml").is_file()
    experiment = [f"experiment={EXPERIMENT}"] if is_there else [*_FALLBACK]
    words = [
        "train.py",
        *experiment,
        *([] if on_gpu else _TINY),
        "trainer.enable_progress_bar=false",
        f"checkpoint.every_n_epochs={5 if on_gpu else 1}",
        "results_dir={work}",
        *([] if resume is None else [f"ckpt_path={resume}"]),
        *overrides,
    ]
    return Part(
        name="train",
        what="shogi from nothing" if resume is None else f"shogi, resumed from {Path(resume).name}",
        words=words,
        bound_s=None,
        reserve_s=60 if on_gpu else 0,
        read=of_training,
        # Of the end of an iteration where there is one: in its middle a checkpoint carries the rollout along.
        keeps={
            CHECKPOINT: ("**/checkpoints/epoch_*.ckpt", "**/checkpoints/last.ckpt"),
            "metrics.csv": ("**/metrics.csv",),
        },
        stops_in_order=on_gpu,
    )
