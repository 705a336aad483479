from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import TinyNetwork, counting_game
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from training_fakes import FakeCollector, NotingModule, PlayingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import Ladder, MatchResult, RandomPlayer, Tally
from keisei_lightning.evaluation.ratings import rate_against
from keisei_lightning.games import GameSpec
from keisei_lightning.models import ActorCritic
from keisei_lightning.training import AtomicCheckpointIO, EvaluationCallback, SelfPlayDataModule
from keisei_lightning.training.options import EvaluationOptions


class CountsMatches(EvaluationCallback):
    """Notes the optimiser step of each match."""

    def __init__(self, **options: Any) -> None:
        super().__init__(counting_game(), **({"num_games": 4, "opening_plies": 2} | options))
        self.steps: list[int] = []

    def play(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        self.steps.append(trainer.global_step)
        return super().play(trainer, pl_module)


def fit(tmp_path: Path, *callbacks: Callback, **options: Any) -> Any:
    trainer = quiet_trainer(tmp_path, callbacks=list(callbacks), **options)
    trainer.fit(PlayingModule(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1))
    return trainer  # one step an epoch


@pytest.mark.parametrize(
    ("options", "trainer_options", "steps"),
    [
        ({"every_n_epochs": 2}, {"max_epochs": 5}, [2, 4, 5]),
        ({"every_n_epochs": 2}, {"max_epochs": 4}, [2, 4]),
        ({"every_n_epochs": 0}, {"max_epochs": 3}, [3]),
        ({"every_n_epochs": 2, "at_start": True}, {"max_epochs": 2}, [0, 2]),
        ({"every_n_epochs": 2}, {"max_steps": 3, "max_epochs": -1}, [2, 3]),
    ],
)
def test_matches_are_played_after_these_steps_and_once_at_the_end(
    tmp_path: Path, options: dict[str, Any], trainer_options: dict[str, Any], steps: list[int]
) -> None:
    callback = CountsMatches(**options)
    fit(tmp_path, callback, **trainer_options)
    assert callback.steps == steps


def test_a_stop_that_comes_after_the_match_was_due_is_still_evaluated(tmp_path: Path) -> None:
    class StopsLate(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    callback = CountsMatches(every_n_epochs=2)
    logger = CSVLogger(tmp_path)
    trainer = fit(tmp_path, callback, StopsLate(), max_epochs=9, logger=logger, log_every_n_steps=1)
    assert callback.steps == [2, 3]
    assert callback.last_result is not None
    assert trainer.callback_metrics["eval/score_vs_random"].item() == pytest.approx(callback.last_result.score)
    assert "eval/score_vs_random" in Path(logger.log_dir, "metrics.csv").read_text()


def test_the_result_is_logged_under_these_names(tmp_path: Path) -> None:
    callback = CountsMatches(num_games=10)
    metrics = {name: float(value) for name, value in fit(tmp_path, callback).callback_metrics.items()}
    result = callback.last_result
    assert result is not None
    assert metrics.pop("eval/seconds_vs_random") > 0.0
    low, high = result.interval
    expected = {
        "eval/score_vs_random": result.score,
        "eval/score_vs_random_low": low,
        "eval/score_vs_random_high": high,
        "eval/wins_vs_random": result.wins,
        "eval/draws_vs_random": result.draws,
        "eval/losses_vs_random": result.losses,
        "eval/game_length_vs_random": result.mean_length,
    }
    assert metrics == pytest.approx(expected)


def test_a_checkpoint_callback_can_monitor_the_score(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="eval/score_vs_random", mode="max")
    fit(
        tmp_path,
        CountsMatches(every_n_epochs=1),
        checkpoint,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )
    assert checkpoint.best_model_score is not None
    assert 0.0 <= checkpoint.best_model_score.item() <= 1.0


def test_training_is_left_as_it_was(tmp_path: Path) -> None:
    callback = CountsMatches()
    module = PlayingModule()
    module.train()
    module.actor_critic.network.linear.eval()  # a part that somebody froze
    trainer = quiet_trainer(tmp_path)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    callback.play(trainer, module)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert module.actor_critic.training
    assert not module.actor_critic.network.linear.training


def test_the_policy_plays_in_evaluation_mode(tmp_path: Path) -> None:
    modes: list[bool] = []
    module = PlayingModule()
    module.actor_critic.network.register_forward_hook(lambda network, *_: modes.append(network.training))
    CountsMatches().play(quiet_trainer(tmp_path), module)
    assert modes
    assert not any(modes)


def test_each_evaluation_plays_the_same_games(tmp_path: Path) -> None:
    callback = CountsMatches(num_games=20)
    module, trainer = PlayingModule(), quiet_trainer(tmp_path)
    callback.play(trainer, module)
    first = callback.last_result
    callback.play(trainer, module)
    assert callback.last_result == first


class Rival(RandomPlayer):
    """Notes that it is closed."""

    closed = 0

    def close(self) -> None:
        Rival.closed += 1


def rival(spec: GameSpec, *, seed: int, name: str) -> Rival:
    return Rival(spec.num_actions, seed, name=f"{name}(depth=2)")


def test_opponents_give_their_names_to_the_metrics_and_are_closed(tmp_path: Path) -> None:
    callback = CountsMatches(opponents=[rival, "random"])
    Rival.closed = 0
    metrics = callback.play(quiet_trainer(tmp_path), PlayingModule())
    assert Rival.closed == 1
    assert {"eval/score_vs_rival_depth_2_low", "eval/score_vs_random"} <= set(metrics)
    assert list(callback.results) == ["rival(depth=2)", "random"]
    assert callback.last_result is callback.results["rival(depth=2)"]


def test_an_unknown_opponent_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="nosuch: there is none"):
        EvaluationCallback(counting_game(), opponents=["nosuch"])


def test_opponents_on_a_ladder_give_the_policy_a_rating(tmp_path: Path) -> None:
    ladder = Ladder(game="counting", matches=(("other", "random", Tally(wins=30, losses=10)),))
    callback = CountsMatches(opponents=[rival, "random"], num_games=20, ladder=ladder)
    metrics = callback.play(quiet_trainer(tmp_path), PlayingModule())
    rating = rate_against(ladder, {"random": callback.results["random"].total})
    assert rating is not None
    assert metrics["eval/rating"] == pytest.approx(rating.value)
    assert metrics["eval/rating_low"] < metrics["eval/rating"] < metrics["eval/rating_high"]


def test_where_all_games_were_won_the_rating_has_no_upper_end(tmp_path: Path) -> None:
    ladder = Ladder(game="counting", matches=(("other", "random", Tally(wins=30, losses=10)),))
    callback = CountsMatches(opponents=["random"], num_games=20, ladder=ladder)
    callback.results = {"random": match_of("random", Tally(wins=20))}
    metrics = callback._rating()
    assert set(metrics) == {"eval/rating", "eval/rating_low"}
    assert metrics["eval/rating_low"] > 300
    callback.results = {"random": match_of("random", Tally())}  # all games void
    assert callback._rating() == {}


def match_of(opponent: str, tally: Tally) -> MatchResult:
    return MatchResult(game="counting", player="policy", opponent=opponent, as_first=tally, as_second=Tally())


def test_a_policy_meets_the_one_of_some_epochs_ago(tmp_path: Path) -> None:
    callback = CountsMatches(every_n_epochs=2, against_epochs_ago=4, at_start=True)
    names: list[list[str]] = []

    class Notes(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            names.append(list(callback.results))

    metrics = fit(tmp_path, callback, Notes(), max_epochs=6).callback_metrics
    assert names[1] == ["random"]
    assert names[3] == ["random", "4_epochs_ago"]
    past = callback.results["4_epochs_ago"]
    assert (past.num_games, past.played) == (4, 2)  # two greedy players, one opening
    assert sum(metrics[f"eval/{name}_vs_4_epochs_ago"].item() for name in ("wins", "draws", "losses")) == 4
    assert sorted(callback.state_dict()["past"]) == [2, 4, 6]


def test_the_weights_of_earlier_epochs_survive_a_resume(tmp_path: Path) -> None:
    callback = CountsMatches(every_n_epochs=1, against_epochs_ago=1)
    fit(tmp_path, callback, max_epochs=2)
    resumed = CountsMatches(every_n_epochs=1, against_epochs_ago=1)
    resumed.load_state_dict(callback.state_dict())
    weights, expected = resumed.state_dict()["past"][2], callback.state_dict()["past"][2]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_evaluations_that_would_take_too_much_of_the_time_are_left_out(tmp_path: Path) -> None:
    class Clock:
        """Each reading is a second after the one before."""

        now = 0.0

        def __call__(self) -> float:
            self.now += 1.0
            return self.now

    def count(max_time_share: float | None) -> list[int]:
        callback = CountsMatches(every_n_epochs=1, max_time_share=max_time_share, clock=Clock())
        fit(tmp_path, callback, max_epochs=30)
        return callback.steps

    assert count(None) == list(range(1, 31))
    steps = count(0.3)
    assert steps[0] == 1
    assert steps[-1] == 30
    assert len(steps) < 20


def test_a_fast_dev_run_plays_two_games(tmp_path: Path) -> None:
    callback = CountsMatches(num_games=40)
    fit(tmp_path, callback, fast_dev_run=True)
    assert callback.last_result is not None
    assert callback.last_result.num_games == 2


def test_options_out_of_bounds_are_refused_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluationCallback(
            counting_game(),
            num_games=5,
            opening_plies=-1,
            every_n_epochs=-2,
            against_epochs_ago=0,
            max_time_share=1.5,
        )
    assert [error.split(":")[0] for error in caught.value.errors] == [
        "every_n_epochs=-2",
        "num_games=5",
        "opening_plies=-1",
        "against_epochs_ago=0",
        "max_time_share=1.5",
    ]


@pytest.mark.parametrize("every_n_epochs", [0, 2])
def test_options_that_contradict_each_other_are_refused_a_line_each(every_n_epochs: int) -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluationCallback(counting_game(), opponents=[], every_n_epochs=every_n_epochs, against_epochs_ago=3)
    assert caught.value.errors == (
        "opponents=[]: must name one or more",
        f"against_epochs_ago=3: must be a multiple of every_n_epochs={every_n_epochs}, which must be above 0",
    )


def test_options_are_given_as_an_object_or_by_name_and_a_name_counts_more() -> None:
    options = EvaluationOptions(opponents=["random"], num_games=6, every_n_epochs=3)
    callback = EvaluationCallback(counting_game(), options, num_games=4)
    assert callback.options == EvaluationOptions(num_games=4, every_n_epochs=3)
    assert callback.opponents == ["random"]
    with pytest.raises(TypeError, match=r"^EvaluationCallback has no option 'games' \(did you mean num_games\?\)$"):
        EvaluationCallback(counting_game(), games=4)


def test_any_module_with_a_policy_inside_it_is_evaluated(tmp_path: Path) -> None:
    class Nested(NotingModule):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleDict({"policy": ActorCritic(TinyNetwork())})

    callback = EvaluationCallback(counting_game(), num_games=4, every_n_epochs=1)
    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[callback])
    trainer.fit(Nested(), datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1))
    assert callback.last_result is not None
    assert callback.last_result.total.games == 4


@pytest.mark.parametrize("policies", [0, 2])
def test_a_module_without_the_policy_is_refused_before_anything_is_played(policies: int, tmp_path: Path) -> None:
    class Unclear(NotingModule):
        def __init__(self) -> None:
            super().__init__()
            self.players = torch.nn.ModuleList(ActorCritic(TinyNetwork()) for _ in range(policies))

    collector = FakeCollector()
    trainer = quiet_trainer(tmp_path, callbacks=[EvaluationCallback(counting_game())])
    with pytest.raises(
        ConfigError, match=r"^EvaluationCallback: Unclear must have the policy as `actor_critic`, an ActorCritic$"
    ):
        trainer.fit(Unclear(), datamodule=SelfPlayDataModule(collector, minibatch_size=32, num_epochs=1))
    assert "collect" not in collector.events
