"""Whatever happens to a disk or to a process that saves: an error, never silence, and a checkpoint that loads."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import torch
from runs import PATIENCE_S

import keisei_lightning
from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.training import (
    AtomicCheckpointIO,
    CheckpointHeader,
    newest_whole_checkpoint,
    read_checkpoint_header,
    remove_stale_temporaries,
)
from keisei_lightning.training.integrity import corruption, create_locked, temporary_path

SOAK = os.environ.get("KEISEI_SOAK") == "1"
SPEC = GameSpec(name="shogi", num_actions=2187, observation_shape=(98,), max_plies=256)


def content(step: int = 1, weights: int = 1000) -> dict[str, Any]:
    return {
        "keisei": CheckpointHeader.of(SPEC).to_dict(),
        "state_dict": {"w": torch.full((weights,), float(step)), "b": torch.arange(float(weights))},
        "global_step": step,
    }


def saved(path: Path, step: int = 1, **options: int) -> Path:
    AtomicCheckpointIO().save_checkpoint(content(step, **options), path)
    return path


def with_byte(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


# ---- corruption


def test_a_file_that_is_truncated_anywhere_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt")
    data = path.read_bytes()
    for length in random.Random(0).sample(range(len(data)), 50):
        path.write_bytes(data[:length])
        with pytest.raises(ConfigError, match="cannot be read as a checkpoint") as caught:
            AtomicCheckpointIO().load_checkpoint(path)
        assert str(caught.value).startswith(f"ckpt_path={path}: ")
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt")
    data, whole = path.read_bytes(), content()
    rng, found = random.Random(1), 0
    for _ in range(3000 if SOAK else 300):
        path.write_bytes(with_byte(data, rng.randrange(len(data)), 1 << rng.randrange(8)))
        try:
            loaded = AtomicCheckpointIO().load_checkpoint(path)
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017 - not every flip raises
            found += 1
        else:  # padding, or a field that nobody reads
            assert loaded["keisei"] == whole["keisei"]
            assert all(torch.equal(loaded["state_dict"][name], whole["state_dict"][name]) for name in ("w", "b"))
    assert found > 200


def test_a_flipped_bit_in_a_weight_is_found_where_torch_sees_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt")
    data = path.read_bytes()
    weight = data.index(torch.full((1000,), 1.0).numpy().tobytes())
    path.write_bytes(with_byte(data, weight + 2001, 4))
    assert torch.load(path, weights_only=True)["state_dict"]["w"].unique().numel() == 2  # torch believes it
    with pytest.raises(ConfigError, match=r"the checksum of .* is wrong"):
        read_checkpoint_header(path)


def test_last_falls_back_to_the_newest_that_is_whole_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = saved(tmp_path / "run_1" / "epoch_00010.ckpt", step=10)
    old = saved(tmp_path / "run_1" / "epoch_00020.ckpt", step=20)
    last = saved(tmp_path / "run_1" / "last.ckpt", step=25)
    for age, file in enumerate((last, old, older)):
        os.utime(file, (1000 - age, 1000 - age))
    assert newest_whole_checkpoint(tmp_path) == last
    assert caplog.messages == []
    last.write_bytes(last.read_bytes()[:-1])
    assert newest_whole_checkpoint(tmp_path) == old
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{last}: cannot be read as a checkpoint (corrupt or truncated: " in record.message
    assert record.message.endswith(f"resuming from {old} (step 20)")
    for file in (old, older):
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"ckpt_path=last: none of the 3 checkpoints in .* can be read: .*last.ckpt"):
        newest_whole_checkpoint(tmp_path)


def test_without_a_last_checkpoint_there_is_nothing_to_resume_from(tmp_path: Path) -> None:
    saved(tmp_path / "mine.ckpt")
    assert newest_whole_checkpoint(tmp_path) is None


# ---- a full disk


@contextlib.contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """No file may become longer: the next write fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 1000, 3_999_000])
def test_a_disk_that_is_full_is_an_error_that_names_the_file(limit: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt")
    before = path.read_bytes()
    with pytest.raises(OSError, match="was not saved") as caught, at_most(limit):
        saved(path, step=2, weights=1_000_000)
    assert str(caught.value) == f"[Errno 27] File too large (the checkpoint was not saved): '{path}'"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            saved(tmp_path / "last.ckpt")
    finally:
        tmp_path.chmod(0o700)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt")
    before = path.read_bytes()
    with pytest.raises(
        TypeError, match=r"could not be loaded again: \S*\['mine'\] is a pathlib\S*PosixPath; states must"
    ):
        AtomicCheckpointIO().save_checkpoint({"callbacks": {"mine": Path("x")}}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


# ---- SIGKILL

# One process loads the libraries; each of its children saves, over and over, until it is killed.
SAVERS = """
import os, sys, torch
from keisei_lightning.training import AtomicCheckpointIO
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        for step in range(1, 1_000_000):
            content = {"step": step, "w": torch.full((4_000_000,), float(step))}
            AtomicCheckpointIO().save_checkpoint(content, line.strip())
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def start_saving() -> Iterator[Callable[[Path], tuple[int, Callable[[], None]]]]:
    """Start a process that saves to a path; gives its id, and a function that kills it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAVERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers = process.stdout

    def start(path: Path) -> tuple[int, Callable[[], None]]:
        process.stdin.write(f"{path}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        pid = int(answers.readline())

        def kill() -> None:
            os.kill(pid, signal.SIGKILL)
            assert answers.readline() == "ended\n"

        return pid, kill

    yield start
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.process
def test_a_process_killed_in_a_save_leaves_a_checkpoint_that_loads(
    tmp_path: Path, start_saving: Callable[[Path], tuple[int, Callable[[], None]]]
) -> None:
    path, hits, rng = tmp_path / "last.ckpt", 0, random.Random(2)
    while hits < (50 if SOAK else 5):
        _, kill = start_saving(path)
        wait_for(lambda: path.exists() and list(tmp_path.glob(".*.tmp")))
        time.sleep(0.005 * rng.randrange(8))  # somewhere in this save or in one of the next
        kill()
        left = list(tmp_path.glob(".*.tmp"))
        assert len(left) <= 1
        hits += len(left)  # the kill has hit a save: what was written by then is there
        loaded = AtomicCheckpointIO().load_checkpoint(path)
        assert (loaded["w"] == loaded["step"]).all()
        saved(tmp_path / "other.ckpt")  # the next save into the folder cleans up
        assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "other.ckpt"]


@pytest.mark.process
def test_a_save_of_another_process_is_not_cleaned_up(
    tmp_path: Path, start_saving: Callable[[Path], tuple[int, Callable[[], None]]]
) -> None:
    path = tmp_path / "last.ckpt"
    pid, kill = start_saving(path)
    wait_for(path.exists)
    for _ in range(300):
        wait_for(lambda: list(tmp_path.glob(".*.tmp")) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        remove_stale_temporaries(tmp_path)
    assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE, "its file was taken away"
    kill()
    assert corruption(path) is None


@pytest.fixture
def before_a_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen just before a file is locked, once."""

    def arrange(happen: Callable[[], None]) -> None:
        lock, waiting = fcntl.flock, [happen]

        def lock_late(file: IO[bytes], operation: int) -> None:
            while waiting:
                waiting.pop()()
            lock(file, operation)

        monkeypatch.setattr(fcntl, "flock", lock_late)

    return arrange


def test_a_clean_up_just_before_the_lock_costs_no_save(
    tmp_path: Path, before_a_lock: Callable[[Callable[[], None]], None]
) -> None:
    before_a_lock(lambda: remove_stale_temporaries(tmp_path))
    with create_locked(temporary_path(tmp_path / "last.ckpt")) as file:
        file.write(b"new")
    assert temporary_path(tmp_path / "last.ckpt").read_bytes() == b"new"


def test_a_clean_up_leaves_the_next_file_of_the_same_name(
    tmp_path: Path, before_a_lock: Callable[[Callable[[], None]], None]
) -> None:
    file = tmp_path / ".last.ckpt.1.tmp"

    def replace() -> None:
        file.unlink()
        file.write_bytes(b"new")

    file.write_bytes(b"old")
    before_a_lock(replace)
    remove_stale_temporaries(tmp_path)
    assert file.read_bytes() == b"new"


# ---- code in a checkpoint


def test_weights_only_false_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights_only=False: refused"):
        AtomicCheckpointIO().load_checkpoint(saved(tmp_path / "a.ckpt"), weights_only=False)


def test_every_load_in_the_package_runs_no_code() -> None:
    loads = 0
    for file in Path(keisei_lightning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            # Lightning's own, with weights_only=True unless the caller decides otherwise: RecordedModule.
            is_lightnings = file.name == "recorded_module.py" and ast.unparse(owner) == "super()"
            assert node.func.attr != "load_from_checkpoint" or is_lightnings, (
                f"{file}:{node.lineno} loads past AtomicCheckpointIO"
            )
            if node.func.attr == "load" and isinstance(owner, ast.Name) and owner.id == "torch":
                loads += 1
                (weights_only,) = [word.value for word in node.keywords if word.arg == "weights_only"]
                assert isinstance(weights_only, ast.Constant), f"{file}:{node.lineno}"
                assert weights_only.value is True, f"{file}:{node.lineno}"
    assert loads >= 2
