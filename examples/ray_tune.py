"""Ray Tune over trainings: two hyperparameters, a score after each epoch, and bad trials that end early (ASHA).

    pip install "ray[tune]"                              # Tune needs pandas and pyarrow beside Ray itself
    python examples/ray_tune.py                          # half a minute: tic-tac-toe
    python examples/ray_tune.py --trials 40 --epochs 60 --concurrent 8

A trial is an ordinary training in a process of Ray's: ``build`` makes its parts from a configuration, and one more
callback reports what the evaluation of each epoch came to. Tune's files and those of the trials are in
``results/ray_tune/``. On a cluster, start it where ``ray.init(address="auto")`` finds one.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import ray
from hydra import compose, initialize_config_module
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from keisei_lightning import EvaluationCallback, build

TRAINING = [
    *("env=tic_tac_toe", "model=mlp", "model.channels=32", "parallel=serial", "parallel.games_per_worker=32"),
    *("parallel.plies_per_rollout=16", "ppo.minibatch_size=64", "evaluation=brief", "evaluation.num_games=60"),
    *("evaluation.every_n_epochs=1", "trainer.enable_progress_bar=false", "trainer.enable_checkpointing=false"),
    "logger=none",
]
OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least; trials send each other nothing


class ReportScore(Callback):
    """Reports the score of an epoch to Tune, whose scheduler may end the trial then.

    Args:
        evaluation: plays the matches; it comes before this callback.
    """

    def __init__(self, evaluation: EvaluationCallback) -> None:
        self.evaluation = evaluation

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, if the policy has just been evaluated."""
        if self.evaluation.evaluated_step == trainer.global_step:
            tune.report({"score": float(trainer.callback_metrics[self.evaluation.monitor])})


def train(values: dict[str, float], *, folder: Path, epochs: int) -> None:
    """One trial.

    Args:
        values: of keys of the configuration.
        folder: of all trials.
        epochs: of a trial that is not ended early.
    """
    own = folder / "trials" / tune.get_context().get_trial_id()
    words = [f"trainer.max_epochs={epochs}", f"output_dir={own}", *(f"{key}={value}" for key, value in values.items())]
    with initialize_config_module("keisei_lightning.conf", version_base="1.3"):
        parts = build(compose("keisei", overrides=[*TRAINING, *words]))
    parts.trainer.callbacks.append(ReportScore(parts.evaluation))  # type: ignore[attr-defined]
    parts.fit()


def search(*, trials: int, epochs: int, concurrent: int) -> tune.ResultGrid:
    """Run the trials; returns Tune's results."""
    folder = Path("results", "ray_tune").absolute()
    tuner = tune.Tuner(
        tune.with_resources(partial(train, folder=folder, epochs=epochs), {"cpu": 1}),
        param_space={
            "ppo.learning_rate": tune.loguniform(1e-5, 1e-2),
            "ppo.entropy_coeff": tune.loguniform(1e-3, 1e-1),
        },
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=trials,
            search_alg=BasicVariantGenerator(max_concurrent=concurrent, random_state=1),
            scheduler=ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=2),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    )
    return tuner.fit()


def main() -> None:
    """Search, then show what each trial came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4, help="how many values are tried")
    parser.add_argument("--epochs", type=int, default=6, help="PPO iterations of a trial that is not ended early")
    parser.add_argument("--concurrent", type=int, default=2, help="trials at the same time, one CPU each")
    arguments: Any = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each trial
    ray.init(
        num_cpus=arguments.concurrent,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        results = search(trials=arguments.trials, epochs=arguments.epochs, concurrent=arguments.concurrent)
    finally:
        ray.shutdown()
    for result in map(results.__getitem__, range(len(results))):
        score, epochs = (result.metrics or {}).get("score"), (result.metrics or {}).get("training_iteration")
        values = "  ".join(f"{key}={value:.2e}" for key, value in (result.config or {}).items())
        print(f"{epochs} epochs  score {score:.3f}  {values}" if result.error is None else f"failed: {result.error}")
    best = results.get_best_result()
    print(f"best: score {(best.metrics or {})['score']:.3f}, {best.config}")


if __name__ == "__main__":
    main()
