"""What is saved at the end of a fit, however it ends. (Signals: ``tests/e2e/test_resume.py``.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf
from training_fakes import FakeCollector, FourByteNetwork, quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.training import (
    AtomicCheckpointIO,
    CurvesCallback,
    FinalCheckpoint,
    OrderlyStop,
    PPOModule,
    SelfPlayDataModule,
)
from keisei_lightning.training.saveable import first_unsaveable, plain

STEPS = 8  # of an epoch


class Fails(Callback):
    """Raises in one hook, in the third epoch."""

    def __init__(self, hook: str, error: BaseException) -> None:
        self._error = error
        setattr(self, hook, self._fail)

    def _fail(self, trainer: Any, *args: Any, **options: Any) -> None:
        if trainer.current_epoch >= 2 or trainer.fit_loop.done:
            raise self._error


class NotesEvents(Callback):
    """Keeps what the collector has been asked for until an error came."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        assert "shutdown" in trainer.datamodule.collector.events
        self.events = trainer.datamodule.collector.events


def full(descriptor: int) -> None:
    """In the place of ``os.fsync``: what a full disk says to it."""
    raise OSError(28, "No space left on device")


def fit(
    tmp_path: Path, *callbacks: Callback, max_epochs: int = 3, ckpt_path: Path | None = None, **options: Any
) -> FakeCollector:
    torch.manual_seed(0)
    actor_critic = ActorCritic(FourByteNetwork())
    collector = FakeCollector(policy=actor_critic)
    path = tmp_path / "last.ckpt"
    trainer = quiet_trainer(
        tmp_path,
        max_epochs=max_epochs,
        plugins=[AtomicCheckpointIO()],
        callbacks=[OrderlyStop(path), FinalCheckpoint(path), *callbacks],
    )
    data = SelfPlayDataModule(collector, minibatch_size=8)
    trainer.fit(PPOModule(actor_critic, **options), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    collector.events.append(f"step {trainer.global_step}")
    return collector


def saved_step(tmp_path: Path) -> int:
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]  # and nothing half-written
    return int(torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end"])
def test_the_last_checkpoint_is_there_and_one_can_resume_from_it_whatever_fails_at_the_end(
    tmp_path: Path, hook: str
) -> None:
    with pytest.raises(OSError, match="on purpose"):
        fit(tmp_path, Fails(hook, OSError("on purpose")))
    assert saved_step(tmp_path) == 3 * STEPS
    assert fit(tmp_path, max_epochs=4, ckpt_path=tmp_path / "last.ckpt").events[-1] == f"step {4 * STEPS}"


def test_an_error_in_the_middle_of_training_saves_nothing_over_a_good_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match="on purpose"):
        fit(tmp_path, Fails("on_train_batch_end", ValueError("on purpose")))
    assert saved_step(tmp_path) == STEPS


def test_a_disk_that_is_full_at_the_end_leaves_the_older_checkpoint_and_names_file_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FillsTheDisk(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
                monkeypatch.setattr("os.fsync", full)

    with pytest.raises(OSError, match="No space left") as caught:
        fit(tmp_path, FillsTheDisk())
    monkeypatch.undo()
    path = tmp_path / "last.ckpt"
    assert str(caught.value) == f"[Errno 28] No space left on device (the checkpoint was not saved): '{path}'"
    assert saved_step(tmp_path) == 2 * STEPS


def test_of_two_errors_the_first_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FailsOnAFullDisk(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                monkeypatch.setattr("os.fsync", full)
                raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fit(tmp_path, FailsOnAFullDisk())
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    (line,) = [message for message in caplog.messages if "No space left" in message]
    assert line.startswith("the checkpoint could not be saved either: [Errno 28] No space left on device")


@pytest.mark.slow
def test_the_history_in_a_checkpoint_after_an_error_has_no_row_of_an_epoch_whose_metrics_are_not_complete(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        fit(tmp_path, CurvesCallback(tmp_path / "run"), Fails("on_train_epoch_end", ValueError("on purpose")))
    history = torch.load(tmp_path / "last.ckpt", weights_only=True)["keisei_history"]
    assert [row["epoch"] for row in history] == [1.0, 2.0]
    assert len({row["train/entropy"] for row in history}) == 2


def test_a_full_disk_is_known_before_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    notes = NotesEvents()
    with pytest.raises(OSError, match="No space left") as caught:
        fit(tmp_path, notes)
    path = tmp_path / "last.ckpt"
    assert str(caught.value) == f"[Errno 28] No space left on device (the checkpoint was not saved): '{path}'"
    assert "collect" not in notes.events
    assert list(tmp_path.iterdir()) == []


class Holds(Callback):
    """Keeps something in the checkpoint."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return {"held": self._state}


def test_a_state_that_could_not_be_read_back_is_known_before_the_first_batch(tmp_path: Path) -> None:
    notes = NotesEvents()
    with pytest.raises(ConfigError) as caught:
        fit(tmp_path, Holds(OmegaConf.create([2, 3])), notes)
    assert caught.value.errors == (
        "this training could not be saved: checkpoint['callbacks']['Holds']['held'] is a "
        "omegaconf.listconfig.ListConfig; states must be made of numbers, strings, lists, dictionaries and tensors",
    )
    assert "collect" not in notes.events
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_in_containers_of_another_library_is_saved_in_plain_ones(tmp_path: Path) -> None:
    options = OmegaConf.create({"heaps": [2, 3], "names": {"first": "a"}})
    recipe = {"env": {"game": "fake", "options": options}, "model": OmegaConf.create({"kind": "mlp"})}
    fit(tmp_path, recipe=recipe)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["keisei_recipe"] == {
        "env": {"game": "fake", "options": {"heaps": [2, 3], "names": {"first": "a"}}},
        "model": {"kind": "mlp"},
    }


def test_what_is_plain_can_be_read_back(tmp_path: Path) -> None:
    class Odd(dict[str, int]):
        pass

    values = {
        "a": (1, 2.5, True, None, "text", b"bytes"),
        "b": {Path("x"): {3}},
        "c": [torch.arange(2).numpy(), torch.arange(1).numpy()[0]],
        "d": Odd(one=1),
        "e": range(3),
    }
    torch.save(plain(values), tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=True) == {
        "a": [1, 2.5, True, None, "text", b"bytes"],
        "b": {"x": [3]},
        "c": [[0, 1], 0],
        "d": {"one": 1},
        "e": [0, 1, 2],
    }
    assert first_unsaveable(plain(values)) is None
    assert first_unsaveable({"b": values["b"]}) == f"a key of checkpoint['b'] is a {type(Path()).__module__}.PosixPath"
    assert first_unsaveable({"list": [0, (1, values["d"])]}, "x").startswith("x['list'][1][1] is a test_orderly_stop.")
