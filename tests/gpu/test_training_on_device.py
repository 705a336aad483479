"""Trainings from end to end on a device: every mode, bfloat16, compiled, resumed elsewhere, against snapshots."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from device_runs import GAMES, PLIES, Fitted, fit, tolerance_of

from keisei_lightning.commands import main as cli
from keisei_lightning.parallel import OpponentOptions
from keisei_lightning.policies import load_policy
from keisei_lightning.training import SnapshotCallback

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]


def assert_learned(fitted: Fitted, device: str, *, precision: str = "32-true") -> None:
    """It learned on the device, from plies that its own policy had played, and published what it had learned."""
    parameters = list(fitted.module.parameters())
    assert {str(parameter.device) for parameter in parameters} == {device}
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in parameters)
    changed = [
        not torch.equal(now.cpu(), before) for now, before in zip(parameters, fitted.weights_at_start, strict=True)
    ]
    assert sum(changed) > len(changed) / 2  # not all: most of these short games are drawn, which teaches no value
    metrics = fitted.trainer.callback_metrics
    assert float(metrics["train/first_ratio"]) == pytest.approx(1.0, abs=tolerance_of(device, precision))
    assert fitted.data.collector.policy_version == fitted.trainer.current_epoch


@pytest.mark.parametrize("mode", ["serial", "workers", "central"])
def test_training_runs_from_end_to_end(device: str, mode: str, tmp_path: Path) -> None:
    num_workers = 1 if mode == "serial" else 2
    fitted = fit(device, tmp_path, mode=mode, num_workers=num_workers)
    assert_learned(fitted, device)
    assert fitted.data.collector.stats()["plies"] == 2 * num_workers * GAMES * PLIES


def test_players_run_ahead_of_the_learner_on_the_same_device(device: str, tmp_path: Path) -> None:
    fitted = fit(device, tmp_path, schedule="async", max_policy_lag=2, epochs=4)
    assert_learned(fitted, device, precision="bf16-mixed")  # the first ratio is of weights that may be two steps old
    assert fitted.data.collector.stats()["policy_lag_max"] <= 2


def test_learner_and_players_of_bfloat16_are_one_policy(device: str, tmp_path: Path) -> None:
    fitted = fit(device, tmp_path, precision="bf16-mixed")
    assert_learned(fitted, device, precision="bf16-mixed")
    assert fitted.trainer.precision == "bf16-mixed"
    assert fitted.trainer.current_epoch == 2


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize(
    ("place", "compile_mode"),
    [
        ("cpu", "default"),
        pytest.param("cuda:0", "default", marks=pytest.mark.gpu),
        pytest.param("cuda:0", "reduce-overhead", marks=pytest.mark.gpu),
    ],
)
def test_a_compiled_learner_learns_the_same(place: str, compile_mode: str, tmp_path: Path) -> None:
    """In processes of their own: what compiles starts helpers that live as long as the interpreter."""
    plain, compiled = (first_iteration(place, tmp_path / name, name) for name in ("null", compile_mode))
    assert compiled["train/first_ratio"] == pytest.approx(1.0, abs=tolerance_of(place, "32-true"))
    for name in ("train/entropy", "train/loss_objective", "train/loss_critic", "train/grad_norm"):
        # The second minibatch comes after a step of Adam, whose size does not depend on the gradient's.
        assert compiled[name] == pytest.approx(plain[name], rel=0.02, abs=0.02)


def first_iteration(place: str, folder: Path, compile_mode: str) -> dict[str, float]:
    """The metrics of a short ``train.py``."""
    small = ("env=tic_tac_toe", "env.max_plies=null", "model=mlp", "model.channels=16")  # quickly compiled for a CPU
    words = [
        *("experiment=smoke", "parallel=serial", "trainer.max_epochs=1", "evaluation.num_games=2"),
        *(small if place == "cpu" else ("model=tiny",)),
        *(f"trainer={'cpu' if place == 'cpu' else 'gpu'}", f"parallel.worker_device={place}"),
        *(f"ppo.compile_mode={compile_mode}", f"results_dir={folder}", "trainer.enable_progress_bar=false"),
    ]
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (f"network compiled ({compile_mode})" in done.stdout + done.stderr) == (compile_mode != "null")
    (file,) = folder.rglob("metrics.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        return {name: float(value) for line in csv.DictReader(lines) for name, value in line.items() if value}


def test_training_resumes_on_another_device_and_back(device: str, tmp_path: Path) -> None:
    resume, earlier = None, None
    for epochs, place in enumerate([device, device, "cpu", device], start=1):
        fitted = fit(place, tmp_path, mode="serial", num_workers=1, epochs=epochs, resume=resume)
        assert_learned(fitted, place)
        if earlier is not None:
            for at_start, at_end in zip(fitted.weights_at_start, earlier.module.parameters(), strict=True):
                assert torch.equal(at_start, at_end.detach().cpu())
        assert fitted.data.iteration == epochs
        assert fitted.data.collector.stats()["plies"] == epochs * GAMES * PLIES
        assert fitted.trainer.global_step == epochs * 2 * 2  # two passes of two minibatches
        moments = [value["exp_avg"] for value in fitted.trainer.optimizers[0].state.values()]
        assert {str(moment.device) for moment in moments} == {place}
        resume, earlier = fitted.checkpoint, fitted


def test_training_against_snapshots(device: str, tmp_path: Path) -> None:
    fitted = fit(
        device,
        tmp_path,
        epochs=3,
        opponents=OpponentOptions(share=0.5, max_snapshots=2),
        callbacks=[SnapshotCallback(1)],
    )
    assert_learned(fitted, device)
    assert fitted.data.collector.stats()["snapshots"] == 2


def test_a_checkpoint_is_evaluated_on_the_device(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = fit(device, tmp_path, mode="serial", num_workers=1, epochs=1)
    loaded = load_policy(fitted.checkpoint, device=device)
    assert {str(parameter.device) for parameter in loaded.actor_critic.parameters()} == {device}
    monkeypatch.chdir(tmp_path)
    words = [f"checkpoint={fitted.checkpoint}", "opponents=[random,mate_in_one]", "games=4", f"device={device}"]
    assert cli.main(["eval", *words, "records=false", "output_dir=out"]) == 0
    assert "mate_in_one" in capsys.readouterr().out
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 3
