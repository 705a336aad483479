from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.training import AtomicCheckpointIO, CheckpointHeader, check_checkpoint, read_checkpoint_header

SPEC = GameSpec(name="shogi", num_actions=2187, observation_shape=(98,), max_plies=256)


def a_checkpoint(tmp_path: Path, **header: object) -> Path:
    content = {
        "keisei": CheckpointHeader.of(SPEC).to_dict() | header,
        "state_dict": {"w": torch.arange(3.0)},
        "epoch": 7,
        "global_step": 70,
    }
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


class Unwritable:
    def __reduce__(self) -> str:
        raise RuntimeError("cannot be written")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = a_checkpoint(tmp_path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["epoch"] == 7
    assert torch.equal(loaded["state_dict"]["w"], torch.arange(3.0))
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_folders_are_made_and_the_file_has_ordinary_rights(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_failed_save_leaves_the_older_file_and_no_other(tmp_path: Path) -> None:
    path = a_checkpoint(tmp_path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="cannot be written"):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(1000), "broken": Unwritable()}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_a_full_disk_at_the_rename_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_folder_without_write_permission_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))  # the superuser of a container never meets it

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(PermissionError, match="Permission denied"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "file" / "a.ckpt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Touches:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "was here"),)

    torch.save({"keisei": Touches()}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        read_checkpoint_header(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was here").exists()


def test_a_header_is_read_back(tmp_path: Path) -> None:
    header = check_checkpoint(a_checkpoint(tmp_path), SPEC)
    assert header == CheckpointHeader(
        game="shogi", num_actions=2187, observation_shape=(98,), format=1, global_step=70, epoch=7
    )


def test_another_game_is_named_in_one_line(tmp_path: Path) -> None:
    other = GameSpec(name="hex", num_actions=25, observation_shape=(3, 5, 5), max_plies=25)
    path = a_checkpoint(tmp_path)
    with pytest.raises(ConfigError) as caught:
        check_checkpoint(path, other)
    assert caught.value.errors == (f"ckpt_path={path}: its game is shogi, this run's is hex",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        (b"", "cannot be read as a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_checkpoint_header(path)
    assert str(caught.value).startswith(f"ckpt_path={path}: ")
    assert "\n" not in str(caught.value)


def test_a_foreign_checkpoint_and_another_format_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="no checkpoint of keisei-lightning"):
        read_checkpoint_header(tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="its format is 2, this version reads format 1"):
        read_checkpoint_header(a_checkpoint(tmp_path, format=2))


def test_removing_a_checkpoint_twice_is_harmless(tmp_path: Path) -> None:
    path = a_checkpoint(tmp_path)
    AtomicCheckpointIO().remove_checkpoint(path)
    AtomicCheckpointIO().remove_checkpoint(path)
    assert os.listdir(tmp_path) == []
