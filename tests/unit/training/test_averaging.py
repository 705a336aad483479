from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import counting_game
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor
from training_fakes import FakeCollector, PlayingModule, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.training import EvaluationCallback, PolicyAverage, SelfPlayDataModule
from keisei_lightning.training.averaging import averaged_weights


class NotesWeights(Callback):
    """Notes the weights after each step."""

    def __init__(self) -> None:
        self.after_step: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.after_step.append(weights_of(pl_module))


class NotesEvaluated(EvaluationCallback):
    """Notes the weights that play each match, and those that are remembered as past ones."""

    def __init__(self, **options: Any) -> None:
        super().__init__(counting_game(), num_games=2, opening_plies=2, every_n_epochs=2, **options)
        self.played: list[Tensor] = []

    def _play_match(self, trainer: Any, pl_module: Any, opponent: Any) -> Any:
        self.played.append(weights_of(pl_module))
        return super()._play_match(trainer, pl_module, opponent)


def weights_of(module: Any) -> Tensor:
    weights: Tensor = module.actor_critic.network.linear.weight.detach().clone()
    return weights


def fit(folder: Path, *callbacks: Callback, module: PlayingModule | None = None, max_epochs: int = 4) -> PlayingModule:
    """Train; one step an epoch."""
    torch.manual_seed(1)
    module = PlayingModule() if module is None else module
    trainer = quiet_trainer(folder, callbacks=list(callbacks), max_epochs=max_epochs)
    trainer.fit(module, datamodule=SelfPlayDataModule(FakeCollector(), minibatch_size=32, num_epochs=1))
    return module


def averages(weights: list[Tensor], rates: list[float]) -> list[Tensor]:
    """The average after each step, computed from all the weights by hand."""
    found = [weights[0]]
    for each, rate in zip(weights[1:], rates, strict=True):
        found.append((1 - rate) * found[-1] + rate * each)
    return found


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"share": 0.5, "max_steps": 100}, [1 / 1.5, 1 / 2, 1 / 2.5]),
        ({"share": 0.5, "max_steps": 2}, [1 / 1.5, 1 / 2, 1 / 2]),
        ({"share": 1.0, "max_steps": 100}, [1 / 2, 1 / 3, 1 / 4]),  # the mean of all
        ({"share": 0.0, "max_steps": 100}, [1.0, 1.0, 1.0]),  # the newest
        ({"share": 1.0, "max_steps": 1}, [1.0, 1.0, 1.0]),
    ],
)
def test_the_average_moves_by_the_formula_and_is_left_in_the_module(
    tmp_path: Path, options: dict[str, Any], rates: list[float]
) -> None:
    notes = NotesWeights()
    module = fit(tmp_path, notes, PolicyAverage(**options))
    assert len(notes.after_step) == 4
    torch.testing.assert_close(weights_of(module), averages(notes.after_step, rates)[-1])


def test_matches_are_played_by_the_average_and_training_goes_on_without_it(tmp_path: Path) -> None:
    notes, evaluated, without = NotesWeights(), NotesEvaluated(), NotesWeights()
    fit(tmp_path, evaluated, PolicyAverage(share=1.0), notes)
    fit(tmp_path, without)
    expected = averages(notes.after_step, [1 / 2, 1 / 3, 1 / 4])
    assert len(evaluated.played) == 2
    for played, average in zip(evaluated.played, expected[1::2], strict=True):
        torch.testing.assert_close(played, average)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(notes.after_step, without.after_step, strict=True))


def test_the_policy_of_some_epochs_ago_is_the_average_of_then(tmp_path: Path) -> None:
    notes, evaluated = NotesWeights(), NotesEvaluated(against_epochs_ago=2)
    fit(tmp_path, evaluated, PolicyAverage(share=1.0), notes)
    past = evaluated.state_dict()["past"]
    torch.testing.assert_close(past[2]["network.linear.weight"], averages(notes.after_step[:2], [1 / 2])[-1])


def test_matches_at_the_end_play_the_average_whichever_callback_comes_first(tmp_path: Path) -> None:
    for place, order in enumerate((0, 1)):
        evaluated, notes = NotesEvaluated(), NotesWeights()
        callbacks = [evaluated, PolicyAverage(share=1.0)][:: 1 if order else -1]
        module = fit(tmp_path / str(place), notes, *callbacks, max_epochs=3)  # no evaluation is due after three
        expected = averages(notes.after_step, [1 / 2, 1 / 3])[-1]
        torch.testing.assert_close(evaluated.played[-1], expected)
        torch.testing.assert_close(weights_of(module), expected)


def test_an_error_in_a_match_leaves_the_weights_that_are_trained(tmp_path: Path) -> None:
    class Fails(NotesEvaluated):
        def _play_match(self, trainer: Any, pl_module: Any, opponent: Any) -> Any:
            super()._play_match(trainer, pl_module, opponent)
            raise RuntimeError("no board")

    notes, module = NotesWeights(), PlayingModule()
    with pytest.raises(RuntimeError, match="no board"):
        fit(tmp_path, notes, PolicyAverage(share=1.0), Fails(), module=module)
    assert len(notes.after_step) == 2
    assert torch.equal(weights_of(module), notes.after_step[-1])


def test_a_second_fit_begins_with_the_average_and_averages_anew(tmp_path: Path) -> None:
    average, notes = PolicyAverage(share=1.0), NotesWeights()
    module = fit(tmp_path, average)
    fit(tmp_path, average, notes, module=module, max_epochs=2)
    torch.testing.assert_close(weights_of(module), averages(notes.after_step, [1 / 2])[-1])


def test_lightnings_own_averages_are_evaluated_too(tmp_path: Path) -> None:
    notes, evaluated = NotesWeights(), NotesEvaluated()
    fit(tmp_path, evaluated, EMAWeightAveraging(decay=0.5), notes)
    torch.testing.assert_close(evaluated.played[0], averages(notes.after_step[:2], [0.5])[-1])


def test_without_an_average_the_weights_are_the_newest(tmp_path: Path) -> None:
    module = PlayingModule()
    before = weights_of(module)
    with averaged_weights(quiet_trainer(tmp_path), module):
        assert torch.equal(weights_of(module), before)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"share": -0.1}, "PolicyAverage: share=-0.1: must be from 0 to 1"),
        ({"share": float("nan")}, "PolicyAverage: share=nan: must be from 0 to 1"),
        ({"max_steps": 0}, "PolicyAverage: max_steps=0: must be 1 or more"),
    ],
)
def test_an_argument_out_of_range_is_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PolicyAverage(**options)
    assert list(refused.value.errors) == [line]
