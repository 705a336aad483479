"""Rows 12, 26 and 27 from the command line: what cannot work is told in one line each, and nothing was started."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import torch

from keisei_lightning.commands import train as launch
from keisei_lightning.training.checkpoint import AtomicCheckpointIO

ROOT = Path(__file__).resolve().parents[2]
WALL_LIMIT_S = 600.0
IMPORTS = "import hydra, lightning.pytorch, tensordict, torch, torchrl.collectors"

pytestmark = pytest.mark.process

# What is typed, and how the one line begins that it is answered with.
BAD = [
    # ---- wrong types, empty values, nothing
    ("ppo.epochs=few", "ppo.epochs=few: must be a whole number, from 1 to 100"),
    ("ppo.epochs=2.5", "ppo.epochs=2.5: must be a whole number, from 1 to 100"),
    ("ppo.gamma=[1,2]", "ppo.gamma=[1,2]: must be a number, from 0 to 1"),
    ("ppo.gamma=null", "ppo.gamma=null: must be a number, from 0 to 1"),
    ("ppo.gamma=", "ppo.gamma=: must be a number, from 0 to 1"),
    ("parallel.num_workers=many", "parallel.num_workers=many: must be auto, or a whole number, 1 or more"),
    ("parallel.num_workers=", "parallel.num_workers=: must be auto, or a whole number, 1 or more"),
    ("parallel.augment_symmetry=maybe", "parallel.augment_symmetry=maybe: must be true or false"),
    ("env.options=5", "env.options=5: must be a section of keys"),
    ("model=null", "model=null: no such option; must be one of large, medium, mlp, small, tiny"),
    ("~ppo", "ppo: is missing; give it on the command line as ppo=VALUE"),
    ("foo", "foo: cannot be read (missing EQUAL at '<EOF>'); write KEY=VALUE"),
    # ---- numbers out of range
    ("seed=-1", "seed=-1: must be a whole number, from 0 to 4294967295"),
    ("parallel.num_workers=0", "parallel.num_workers=0: must be auto, or a whole number, 1 or more"),
    ("parallel.num_workers=-5", "parallel.num_workers=-5: must be auto, or a whole number, 1 or more"),
    ("parallel.num_workers=100000", "parallel.num_workers=100000: must be from 1 to "),
    ("ppo.clip_epsilon=2", "ppo.clip_epsilon=2: must be a number, more than 0 and less than 1"),
    ("ppo.learning_rate=nan", "ppo.learning_rate=nan: must be a number, more than 0 and at most 1"),
    ("parallel.heartbeat_s=inf", "parallel.heartbeat_s=inf: must be a number, 0.5 or more"),
    ("parallel.heartbeat_s=0.1", "parallel.heartbeat_s=0.1: must be a number, 0.5 or more"),
    ("model.channels=0", "model.channels=0: must be a whole number, from 1 to 8192"),
    ("trainer.max_epochs=0", "trainer.max_epochs=0: must be a whole number, 1 or more"),
    ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0: must be a whole number, 1 or more"),
    ("trainer.limit_train_batches=1.5", "trainer.limit_train_batches=1.5: must be a number of batches, 0 or more, or"),
    ("trainer.max_time=soon", "trainer.max_time=soon: must be DD:HH:MM:SS, such as 00:12:00:00, or null"),
    ("parallel.games_per_worker=65536 parallel.plies_per_rollout=65536", "parallel.games_per_worker=65536: must be "),
    ("ppo.kl_target=0", "ppo.kl_target=0: must be a number, more than 0"),
    ("opponents=snapshots opponents.share=0", "opponents.share=0: must be a number, more than 0 and at most 1"),
    (
        "parallel=central parallel.groups_per_worker=0",
        "parallel.groups_per_worker=0: must be a whole number, from 1 to 16",
    ),
    ("opponents=snapshots opponents.share=0.001", "opponents.share=0.001: must be at least 0.015625, one of parallel."),
    (
        "opponents=snapshots opponents.max_snapshots=0",
        "opponents.max_snapshots=0: must be a whole number, from 1 to 1024",
    ),
    ("evaluation.max_time_share=2", "evaluation.max_time_share=2: must be a number, more than 0 and at most 1"),
    ("evaluation.against_epochs_ago=15", "evaluation.against_epochs_ago=15: must be a multiple of evaluation.every_n_"),
    # ---- typos of keys, groups and options
    ("parallel.num_worker=2", "parallel.num_worker=2: no such key (did you mean parallel.num_workers?); must be one"),
    ("+parallel.num_worker=2", "parallel.num_worker=2: no such key (did you mean parallel.num_workers?)"),
    ("+checkpoints=3", "checkpoints=3: no such key (did you mean checkpoint?)"),
    ("+trainer.max_epoch=3", "trainer.max_epoch=3: no such key (did you mean trainer.max_epochs?)"),
    ("modell=tiny", "modell=tiny: no such key (did you mean model?)"),
    ("env=shogo", "env=shogo: no such option (did you mean shogi?); must be one of breakthrough, connect_four, hex, "),
    (
        "opponents=snapshot",
        "opponents=snapshot: no such option (did you mean snapshots?); must be one of exploiter, le",
    ),
    (
        "opponents=league opponents.members=[tactiks]",
        "opponents.members=tactiks: player tactiks: there is none (did you mean tactics?)",
    ),
    (
        "opponents=league opponents.members=[random,random]",
        "opponents.members: random is there 2 times; must be there once",
    ),
    (
        "opponents=league opponents.members=[gone.ckpt]",
        "opponents.members=gone.ckpt: there is no such file; must be a player's name or a checkpoint file",
    ),
    (
        "opponents=league opponents.members=[] opponents.player_share=0.5",
        "opponents.player_share=0.5: must be null where opponents.members names no player",
    ),
    (
        "opponents=league opponents.own_snapshots=false",
        "opponents.own_snapshots=false: must be true without opponents.folder (nobody would have them)",
    ),
    ("opponents=league opponents.folder=/proc/pool", "opponents.folder=/proc/pool: must be a folder that can be writ"),
    (
        "opponents=league opponents.folder=pool trainer.devices=2",
        "opponents.folder=pool: must be null with several devices of the learner (ranks), which would find different",
    ),
    ("opponents=league opponents.join_score=1", "opponents.join_score=1: must be a number, 0 or more and less than 1"),
    (
        "opponents=snapshots opponents.members=[random]",
        "opponents.members=[random]: must be [] with opponents.mode=snapshots (opponents=league has members)",
    ),
    ("opponents.choice=best", "opponents.choice=best: must be one of uniform, prioritised"),
    ("evaluation.opponents=[]", "evaluation.opponents=[]: must name one player or more, such as random"),
    ("evaluation.opponents=[randm]", "evaluation.opponents=randm: player randm: there is none (did you mean random?)"),
    ("evaluation.opponents=[tactics]", "evaluation.opponents=tactics: "),
    ("parallel.mode=threads", "parallel.mode=threads: must be one of serial, workers, central, ray"),
    ("parallel.start_method=fork", "parallel.start_method=fork: must be one of "),
    (
        "parallel=ray parallel.ray_address=ray://head:1",
        "parallel.ray_address=ray://head:1: must be auto or HOST:PORT of ",
    ),
    (
        "parallel=ray parallel.num_workers=2 parallel.num_agents=2 parallel.min_healthy_workers=5",
        "parallel.min_healthy_workers=5: must be from 0 to 4 (parallel.num_workers x parallel.num_agents)",
    ),
    (
        "parallel=ray parallel.num_workers=2 parallel.num_agents=2 ppo.minibatch_size=99999",
        "ppo.minibatch_size=99999: must be from 1 to the plies of one batch, 8192 = 4 workers x 64 games x 32 plies",
    ),
    ("ppo.critic_loss=huber", "ppo.critic_loss=huber: must be one of l2, smooth_l1, l1"),
    ("trainer.precision=8-bit", "trainer.precision=8-bit: must be one of 32-true, 16-mixed"),
    # ---- games
    ("env.game=nosuch", "env.game=nosuch: there is none; must be one of breakthrough, connect_four, hex, "),
    ("env=open_spiel", "env.game: is missing; give it on the command line as env.game=VALUE"),
    ("+env.options.colour=red", "env.game=shogi: shogi: unknown option colour='red'; it has declaration, kernel, "),
    ("env.game=catch", "env.game=catch: catch: it has 1 players; only sequential two-player zero-sum"),
    ("env.game=goofspiel", "env.game=goofspiel: goofspiel: its players move at the same time; only"),
    ("env.game=backgammon", "env.game=backgammon: backgammon: it has chance moves; only"),
    ("env.game=kuhn_poker", "env.game=kuhn_poker: kuhn_poker: it has chance moves; only"),
    # ---- values that do not go together
    ("parallel=serial parallel.schedule=async", "parallel.schedule=async: must be sync with parallel.mode=serial"),
    (
        "parallel.num_workers=2 parallel.games_per_worker=8 parallel.plies_per_rollout=16 ppo.minibatch_size=257",
        "ppo.minibatch_size=257: must be from 1 to the plies of one batch, 256 = 2 workers x 8 games x 16 plies",
    ),
    (
        "parallel.num_workers=2 parallel.schedule=async weight_sync.every_n_steps=1",
        "parallel.max_policy_lag=2: must be 8 or more with parallel.schedule=async: ",
    ),
    ("evaluation.num_games=7", "evaluation.num_games=7: must be an even number, from 2 to 100000"),
    (
        "parallel.num_workers=2 parallel.min_healthy_workers=3",
        "parallel.min_healthy_workers=3: must be from 0 to 2 (parallel.num_workers)",
    ),
    # ---- files and folders
    (
        "ckpt_path=missing.ckpt",
        "ckpt_path=missing.ckpt: there is no such file; must be null, auto, last or a checkpoint",
    ),
    ("ckpt_path=last", "ckpt_path=last: there is no last.ckpt in results/shogi"),
    ("ckpt_path=other_game.ckpt", "ckpt_path=other_game.ckpt: its game is tic_tac_toe, this run's is shogi"),
    ("ckpt_path=truncated.ckpt", "ckpt_path=truncated.ckpt: cannot be read as a checkpoint ("),
    ("ckpt_path=notes.txt", "ckpt_path=notes.txt: cannot be read as a checkpoint ("),
    ("results_dir=/proc/x", "results_dir=/proc/x: must be a folder that can be written to (/proc: "),
    ("results_dir=notes.txt", "results_dir=notes.txt: must be a folder that can be written to ("),
    ("-m results_dir=/proc/x seed=1,2", "results_dir=/proc/x: must be a folder that can be written to (/proc: "),
    ("name=../elsewhere", "name=../elsewhere: must be a folder's name: not empty, no dot at its start, no slash in it"),
    # ---- devices, and what is not installed
    ("parallel.worker_device=cuda:99", "parallel.worker_device=cuda:99: must be c"),
    ("parallel.worker_precision=16-mixed", "parallel.worker_precision=16-mixed: must be one of 32-true, bf16-mixed"),
    ("model.equivariant=perhaps", "model.equivariant=perhaps: must be true or false"),
    (
        "experiment=hex model.equivariant=true",
        "model.equivariant=true: must be false (the symmetry of hex(board_size=5)",
    ),
    ("model=mlp model.equivariant=true", "model.equivariant=true: must be false with model.kind=mlp"),
    ("parallel.compile_mode=fast", "parallel.compile_mode=fast: must be one of default, reduce-overhead, max-autotune"),
    ("ppo.compile_mode=1", "ppo.compile_mode=1: must be one of default, reduce-overhead, max-autotune"),
    ("parallel.worker_device=tpu", "parallel.worker_device=tpu: must be auto, cpu, cuda or cuda:N"),
    ("trainer.accelerator=quantum", "trainer.accelerator=quantum: must be one of auto, cpu, gpu, cuda, mps"),
    ("trainer.devices=0", "trainer.devices=0: must be a number of devices, auto, or devices' own numbers with a comma"),
    (
        "trainer.num_nodes=2",
        "trainer.num_nodes=2: must be 1 without a launcher on each machine; with one: torchrun",
    ),
    ("trainer.devices=2 trainer.strategy=fsdp", "trainer.strategy=fsdp: must be one of auto, ddp, ddp_find_unused_par"),
    ("trainer.devices=2 trainer.num_nodes=0", "trainer.num_nodes=0: must be a whole number, 1 or more"),
    ("logger=wandb", "logger=wandb: is not installed; must be csv_tensorboard, or install keisei-lightning[tracking]"),
    ("+logger.other.mine=5", "logger.other.mine=5: must have a _target_, the dotted path of a Lightning logger"),
    ("model._target_=nowhere.Network", "model._target_=nowhere.Network: cannot be loaded (ModuleNotFoundError: No mod"),
    ("model._target_=torch.nn.Linea", "model._target_=torch.nn.Linea: cannot be loaded (ModuleNotFoundError: No modu"),
    ("model._target_=torch.nn.Linear", "model._target_=torch.nn.Linear: cannot be called with spec, kind, "),
    ("hparams_search=optuna hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: must be a whole number, 1 or more"),
    ("hparams_search=optuna hydra.sweeper.storage=null", "hydra.sweeper.storage=null: must be a word, one or more"),
    ("hparams_search=optuna hydra.sweeper.seed=x", "hydra.sweeper.seed=x: must be a whole number, or null"),
    ("hparams_search=optuna hydra.sweeper.direction=up", "hydra.sweeper.direction=up: must be maximize or minimize"),
    # ---- what is no option's name, and what comes to nothing
    ("ppo=[1]", "ppo=[1]: no such option; must be one of default, small_budget"),
    ("ppo.gamma=${nothing}", "ppo.gamma=${nothing}: cannot be resolved (Interpolation key 'nothing' not found)"),
    ("seed=${env.game}", "seed=${env.game}: cannot be resolved (While dereferencing interpolation "),
    ("name=${oc.env:NOT_SET_HERE}", "name=${oc.env:NOT_SET_HERE}: cannot be resolved (KeyError raised while resolving"),
    # ---- names and paths
    (f"name={'a' * 300}", f"name={'a' * 300}: must be a folder's name (a name in it is longer than 255 bytes)"),
    (["name=a\nb"], "name=a\\nb: must be a folder's name (it holds a control character, or what is no character)"),
    (["name=\udcff"], "name=\\udcff: must be a folder's name (it holds a control character, or what is no character)"),
    (["name= "], "name=: must be a folder's name: not empty, no dot at its start, no slash in it"),
    (
        f"results_dir={'a' * 300}/b",
        f"results_dir={'a' * 300}/b: must be a folder that can be written to (a name in it ",
    ),
    (f"results_dir={'a/' * 2000}b", f"results_dir={'a/' * 2000}b: must be a folder that can be written to (it is long"),
    ("results_dir=~nobody_here/x", "results_dir=~nobody_here/x: must be a folder that can be written to (there is no "),
    ("hydra.run.dir=/proc/x", "hydra.run.dir=/proc/x: must be a folder that can be written to (/proc: "),
    ("hydra.run.dir=", "hydra.run.dir=: must be a folder that can be written to"),
    (
        "hydra.run.dir=${nothing}",
        "hydra.run.dir: cannot be resolved (Interpolation key 'nothing' not found); must be a",
    ),
    ("hydra.job.chdir=true", "hydra.job.chdir=true: must be false (paths are seen from where the command was typed)"),
    ("-m hydra.sweep.dir=/proc/x seed=1,2", "hydra.sweep.dir=/proc/x: must be a folder that can be written to (/proc"),
    ("ckpt_path=epoch=3-step=9.ckpt", "ckpt_path=epoch=3-step=9.ckpt: there is no such file; must be null, auto, las"),
    ("ckpt_path=a,b.ckpt", "ckpt_path=a,b.ckpt: there is no such file; must be null, auto, last or a checkpoint file"),
    (f"ckpt_path={'a' * 300}", f"ckpt_path={'a' * 300}: there is no such file; must be null, auto, last or a check"),
    ("seed=1 -m results_dir=/proc/x", "results_dir=/proc/x: must be a folder that can be written to (/proc: "),
    # ---- what the checkpoint or Lightning would refuse in a traceback
    (
        "trainer.precision=64-true",
        "trainer.precision=64-true: must be one of 32-true, 16-mixed, bf16-mixed, 32, 16, bf",
    ),
    (
        "experiment=tic_tac_toe ckpt_path=other_game.ckpt trainer.max_epochs=2",
        "trainer.max_epochs=2: must be 3 or more with ckpt_path=other_game.ckpt, which has done 3 epochs",
    ),
    (
        "experiment=tic_tac_toe ckpt_path=weights_alone.ckpt trainer.max_epochs=2",
        "ckpt_path=weights_alone.ckpt: holds weights alone (no optimiser's state), and no training resumes from it",
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of another game, its weights alone, half a checkpoint, and a file that is none."""
    folder = tmp_path_factory.mktemp("typed_here")
    header = {"format": 1, "game": "tic_tac_toe", "num_actions": 9, "observation_shape": [3, 3, 3]}
    weights = {"keisei": header, "epoch": 3, "global_step": 2, "state_dict": {"weight": torch.zeros(1000)}}
    AtomicCheckpointIO().save_checkpoint(weights, folder / "weights_alone.ckpt")
    AtomicCheckpointIO().save_checkpoint({**weights, "optimizer_states": [{}]}, folder / "other_game.ckpt")
    whole = (folder / "other_game.ckpt").read_bytes()
    (folder / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no checkpoint, and no folder either")
    return folder


@pytest.fixture
def typed(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str | list[str]], str]]:
    """Types a command line in this process; returns standard error. No process may start, no file may be made."""

    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(BaseProcess, "start", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.chdir(files)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = sorted(files.rglob("*"))

    def type_it(words: str | list[str]) -> str:
        assert launch.main(words.split() if isinstance(words, str) else words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    yield type_it
    for handler in root.handlers:  # Hydra sets up the root logger
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    assert sorted(files.rglob("*")) == before, "a folder of results was made"


@pytest.mark.parametrize(("words", "line"), BAD, ids=[str(words)[:60] for words, _ in BAD])
def test_row_26_a_bad_configuration_is_one_line_with_key_value_and_range(
    words: str | list[str], line: str, typed: Callable[[str | list[str]], str]
) -> None:
    if words == "logger=wandb" and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    err = typed(words)
    assert err.startswith(f"keisei: {line}"), err
    assert err.count("\n") == 1


def test_row_26_a_sweeper_that_lacks_its_extra_is_told(
    typed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "optuna" else find(name, *rest))
    line = "hparams_search=optuna: Optuna is not installed; install keisei-lightning[sweep]"
    assert typed("hparams_search=optuna") == f"keisei: {line}\n"


def test_row_26_several_faults_are_all_told_at_once(typed: Callable[[str], str]) -> None:
    words = (
        "parallel.num_workers=0 ppo.clip_epsilon=2 model.channels=0 env.game=nosuch ppo.epochs=0 results_dir=/proc/x "
        "ckpt_path=missing.ckpt trainer.devices=0 +trainer.wings=2 +parallel.speed=9 evaluation.num_games=3"
    )
    lines = typed(words).splitlines()
    assert {re.match(r"keisei: ([\w.]+)=\S+: ", line)[1] for line in lines} == {  # type: ignore[index]
        re.match(r"\+?([\w.]+)=", word)[1]  # type: ignore[index]
        for word in words.split()
    }
    assert len(lines) == 11


def test_row_26_a_sweep_with_a_bad_job_does_the_others_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keisei_lightning.app.run", lambda config: seen.append(config.cfg.ppo.clip_epsilon) or 0.5)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    assert launch.main(["-m", "ppo.clip_epsilon=0.1,2,0.3"]) == 2
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    assert seen == [0.1, 0.3]
    captured = capsys.readouterr()
    assert captured.err.endswith("keisei: ppo.clip_epsilon=2: must be a number, more than 0 and less than 1\n")
    assert re.search(r"ppo\.clip_epsilon=2 .* bad configuration", captured.out)


# ---- the same in a process of its own: how fast, and under limits of the shell


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended; CPU seconds are its own."""

    code: int
    out: str
    err: str
    cpu_s: float
    wall_s: float


# Python reads it at its start. It notes each process that is started, by whatever means.
WATCH = """
import _posixsubprocess, os
def noting(start):
    def noted(*args, **kwargs):
        open(os.environ["STARTED"], "a").close()
        return start(*args, **kwargs)
    return noted
os.fork, os.posix_spawn = noting(os.fork), noting(os.posix_spawn)
_posixsubprocess.fork_exec = noting(_posixsubprocess.fork_exec)
"""


def command(
    words: list[str], folder: Path, *, limit: tuple[int, int] | None = None, python_path: str = ""
) -> tuple[Ended, bool]:
    """Type a command; tells how it ended and whether it started a process."""
    watch = folder / ".watch"
    watch.mkdir(exist_ok=True)
    (watch / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join(entry for entry in (str(watch), str(ROOT), python_path) if entry)
    environment = {**os.environ, "PYTHONPATH": path, "STARTED": str(watch / "started"), "COLUMNS": "200"}
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(limit[0], (limit[1], limit[1])),
    )
    out, err = process.communicate(timeout=WALL_LIMIT_S)
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    deadline = time.monotonic() + 60  # multiprocessing's servers end when they see that their pipe has closed
    while left := [pid for pid in psutil.pids() if _session(pid) == process.pid]:
        assert time.monotonic() < deadline, f"processes were left behind: {left}"
        time.sleep(0.02)
    ended = Ended(code=process.returncode, out=out, err=err, cpu_s=cpu, wall_s=wall)
    return ended, (watch / "started").exists()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def imports_cpu_s() -> float:
    """Processor time of importing the libraries, here and now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("parallel.num_workers=1000000", "parallel.num_workers=1000000: must be from 1 to "),
        ("parallel.num_worker=2", "parallel.num_worker=2: no such key (did you mean parallel.num_workers?)"),
        ("env.game=backgammon", "env.game=backgammon: backgammon: it has chance moves; only"),
        ("ckpt_path={files}/truncated.ckpt", "ckpt_path={files}/truncated.ckpt: cannot be read as a checkpoint ("),
        ("results_dir=/proc/x", "results_dir=/proc/x: must be a folder that can be written to (/proc: "),
    ],
)
def test_row_26_the_answer_takes_little_more_than_the_libraries_imports_and_nothing_was_started(
    words: str, line: str, files: Path, tmp_path: Path, imports_cpu_s: float
) -> None:
    ended, started = command(words.format(files=files).split(), tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert ended.err.startswith(f"keisei: {line.format(files=files)}")
    assert ended.cpu_s < 2 * imports_cpu_s  # seconds of a clock would measure the machine
    assert not started
    assert [file.name for file in tmp_path.iterdir()] == [".watch"]


def test_row_27_a_low_ulimit_n_is_one_line_with_the_figure_needed(tmp_path: Path) -> None:
    ended, started = command(
        ["experiment=smoke", "parallel.num_workers=40"], tmp_path, limit=(resource.RLIMIT_NOFILE, 100)
    )
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert re.match(
        r"keisei: parallel\.num_workers=40: must be from 1 to \d+ \(152 file descriptors are needed, 3 x 40 workers \+ "
        r"32, and \d+ are free: ulimit -n is 100, \d+ are in use; the hard limit is 100\)\n$",
        ended.err,
    )
    assert not started
    assert [file.name for file in tmp_path.iterdir()] == [".watch"]


# ---- row 12: a user's game that cannot be used


MY_GAME = """
import multiprocessing
from keisei_lightning.games import make_game

def make(num_games, *, max_plies=None, opening_plies=0):
    if multiprocessing.parent_process() is not None:
        import only_on_your_machine
    return make_game("tic_tac_toe", num_games)
"""


def install(folder: Path, name: str, module: str) -> None:
    """Put a package with one game where Python finds it, as pip would."""
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[keisei_lightning.games]\n{name} = {name}:make\n")


def test_row_12_a_game_that_cannot_be_imported_is_a_bad_configuration(tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    install(site, "my_game", "import only_on_your_machine\n")
    ended, started = command(["experiment=smoke", "env.game=my_game"], work, python_path=str(site))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert ended.err.startswith(
        "keisei: env.game=my_game: cannot be loaded (ModuleNotFoundError: No module named 'only_on_your_machine')"
    )
    assert not started


def test_row_12_a_game_that_fails_in_the_workers_is_one_error_at_once(tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    install(site, "my_game", MY_GAME)
    words = ["experiment=smoke", "env.game=my_game", "env.max_plies=null", "model=mlp", "model.channels=16"]
    words += ["parallel.num_workers=2", "parallel.restart_backoff_s=1000", "trainer.enable_progress_bar=false"]
    ended, started = command(words, work, python_path=str(site))
    assert started  # the workers: the fault is in them
    assert ended.code == 1, ended.err
    first = ended.err.splitlines()[0]
    assert re.fullmatch(
        r"error: training failed: worker \d \(incarnation 0\) raised ModuleNotFoundError: No module named "
        r"'only_on_your_machine', before it was ready; nothing was restarted",
        first,
    ), ended.err
    assert ended.err.count("WorkerBootError") == 1
    assert "my_game.py" in ended.err  # the worker's own traceback
    assert "incarnation 1" not in ended.err
