"""A run folder from somebody else is resumed and evaluated: nothing that its files name is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig

from keisei_lightning.app import run
from keisei_lightning.commands import evaluate
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import RECIPE_KEY

TINY = (
    *("experiment=smoke", "env=tic_tac_toe", "env.max_plies=null", "model=mlp", "model.channels=16", "parallel=serial"),
    *("parallel.games_per_worker=4", "parallel.plies_per_rollout=8", "ppo.minibatch_size=32", "logger=none"),
    *("evaluation.num_games=2", "trainer.enable_progress_bar=false"),
)


def composed(folder: Path, *overrides: str) -> DictConfig:
    return compose_training([f"output_dir={folder}", *TINY, *overrides])


def test_nothing_that_its_files_name_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, wrote = tmp_path / "theirs", tmp_path / "wrote"
    run(composed(theirs, "trainer.max_epochs=1"))
    path = {"_target_": "pathlib.Path", "_args_": [str(wrote)]}
    model = {
        "_target_": "torch.nn.Identity",
        "x": {"_target_": "pathlib.Path.write_text", "self": path, "data": "what they like"},
    }
    checkpoint = theirs / "checkpoints" / "last.ckpt"
    content = AtomicCheckpointIO().load_checkpoint(checkpoint)
    content[RECIPE_KEY]["model"] = model
    content["hyper_parameters"] = {
        **content["hyper_parameters"],
        "_target_": "pathlib.Path.write_text",
        "_instantiator": "os.system",
        "x": model,
    }
    content["datamodule_hyper_parameters"] = content["hyper_parameters"]
    AtomicCheckpointIO().save_checkpoint(content, checkpoint)
    config = {"env": {"game": "tic_tac_toe", "opening_plies": 0, "max_plies": None, "options": {}}, "model": model}
    (theirs / ".hydra").mkdir()
    (theirs / ".hydra" / "config.yaml").write_text(yaml.safe_dump({**config, "trainer": model, "logger": model}))

    run(composed(tmp_path / "ours", f"ckpt_path={checkpoint}", "trainer.max_epochs=2"))
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "ours" / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert evaluate.main([f"checkpoint={checkpoint}", f"output_dir={tmp_path / 'eval'}"]) == 2
    assert "a file may not choose what is called" in capsys.readouterr().err
    assert not wrote.exists()
