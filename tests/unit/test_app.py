"""A configuration becomes the parts of a run, and a run reports what came of it."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
from pathlib import Path

import pytest
import torch
from fakes import CountingGame
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from keisei_lightning.app import build, run
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.config.validation import ValidatedConfig, validate
from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec, register_game
from keisei_lightning.games.registry import GAMES
from keisei_lightning.models import build_network
from keisei_lightning.models.resnet import ResidualNetwork
from keisei_lightning.parallel import OpponentOptions
from keisei_lightning.policies import load_policy
from keisei_lightning.system.stopping import Stopped
from keisei_lightning.training import (
    BestCheckpoint,
    EvaluationCallback,
    LiveStateCallback,
    PPOModule,
    SnapshotCallback,
    TrainingProgress,
    WeightSyncCallback,
    read_checkpoint_header,
)
from keisei_lightning.training.checkpoint_header import Recipe, read_recipe

TINY = [
    "experiment=smoke",
    "env=tic_tac_toe",
    "env.max_plies=null",
    "model=mlp",
    "model.channels=16",
    "parallel=serial",
    "parallel.games_per_worker=8",
    "parallel.plies_per_rollout=16",
    "trainer.max_epochs=1",
    "evaluation.num_games=2",
]


AS_PUBLISHED = [
    "env=connect_four",
    "model=small",
    "model.equivariant=true",
    "model.channels=32",
    "initial_policy=published:connect_four",
]


def composed(folder: Path, *overrides: str) -> DictConfig:
    return compose_training([f"output_dir={folder}", *TINY, *overrides])


def validated(folder: Path, *overrides: str) -> ValidatedConfig:
    return validate(composed(folder, *overrides))


def winged_network(spec: GameSpec, *, wings: int) -> nn.Module:
    """A third party's network, as a YAML file of its own would name it."""
    return build_network(spec, kind="mlp", num_blocks=1, channels=8 * wings)


def test_a_new_training_begins_with_the_weights_of_its_initial_policy(tmp_path: Path) -> None:
    first = build(validated(tmp_path / "first", "seed=1"))
    first.fit()
    trained = first.module.actor_critic.state_dict()
    start = f"initial_policy={first.last_checkpoint}"
    second = build(validated(tmp_path / "second", "seed=2", start, "ppo.learning_rate=1e-5"))
    assert all(torch.equal(weight, trained[name]) for name, weight in second.module.actor_critic.state_dict().items())
    assert second.data.collector.policy_version == 0
    second.fit()
    assert (second.trainer.current_epoch, read_checkpoint_header(second.last_checkpoint).epoch) == (1, 1)
    resumed = ["seed=3", f"initial_policy={tmp_path / 'gone.ckpt'}", f"ckpt_path={second.last_checkpoint}"]
    third = build(validated(tmp_path / "third", *resumed))  # which has weights of its own
    assert not torch.equal(next(third.module.actor_critic.parameters()), next(iter(trained.values())))


def test_a_deeper_network_begins_as_its_initial_policy_and_learns_with_all_its_blocks(tmp_path: Path) -> None:
    published = load_policy("published:connect_four")
    assert isinstance(published.actor_critic.network, ResidualNetwork)
    depth = len(published.actor_critic.network.tower) + 2
    parts = build(composed(tmp_path, *AS_PUBLISHED, f"model.num_blocks={depth}"))
    own = parts.module.actor_critic
    assert isinstance(own.network, ResidualNetwork)
    assert len(own.network.tower) == depth
    shape = published.game(1).spec.observation_shape
    observation = torch.randint(2, (32, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for ours, theirs in zip(own(observation), published.actor_critic(observation), strict=True):
            assert torch.equal(ours, theirs)
    assert not own.network.tower[-1].conv2.weight.any()
    parts.fit()
    assert own.network.tower[-1].conv2.weight.any()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            [*AS_PUBLISHED, "model.num_blocks=1"],
            "initial_policy=published:connect_four: another network's checkpoint (network.tower.1.conv1.bias is only",
        ),
        (
            [*AS_PUBLISHED, "model.num_blocks=3", "model.channels=64"],
            "initial_policy=published:connect_four: another network's checkpoint (",
        ),
        (["initial_policy=gone.ckpt"], "initial_policy=gone.ckpt: there is no such file"),
        (
            ["initial_policy=published:hex"],
            "initial_policy=published:hex: its game is hex(board_size=5), this run's is tic_tac_toe",
        ),
        (
            ["env=connect_four", "initial_policy=published:connect_four"],
            "initial_policy=published:connect_four: another network's checkpoint (",
        ),
    ],
)
def test_an_initial_policy_that_does_not_fit_is_refused(tmp_path: Path, overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(composed(tmp_path, *overrides))
    assert [each[: len(line)] for each in refused.value.errors] == [line]


def test_every_key_reaches_its_part(tmp_path: Path) -> None:
    ladder = tmp_path / "results.json"
    ladder.write_text(
        '{"game": "tic_tac_toe", "matches": '
        '[{"player": "random", "opponent": "x", "wins": 1, "draws": 2, "losses": 3}]}'
    )
    parts = build(
        validated(
            tmp_path,
            "seed=11",
            "ppo.gamma=0.9",
            "ppo.lmbda=0.8",
            "ppo.epochs=3",
            "ppo.minibatch_size=32",
            "ppo.clip_epsilon=0.3",
            "ppo.entropy_coeff=0.07",
            "ppo.learning_rate=0.002",
            "ppo.final_learning_rate=null",
            "parallel.heartbeat_s=3",
            "weight_sync.every_n_steps=5",
            "evaluation.num_games=6",
            "evaluation.every_n_epochs=4",
            'evaluation.opponents=[random,"mcts(simulations=2)"]',
            "evaluation.against_epochs_ago=8",
            f"evaluation.ladder={ladder}",
            "evaluation.max_time_share=0.25",
            "opponents=snapshots",
            "opponents.share=0.25",
            "opponents.every_n_epochs=3",
            "opponents.choice=prioritised",
            "ppo.kl_target=0.02",
            "ppo.decoupled=true",
            "checkpoint.every_n_epochs=2",
            "checkpoint.keep_best=true",
            "trainer.max_epochs=9",
            "trainer.gradient_clip_val=0.7",
        )
    )
    data, module, trainer = parts.data, parts.module, parts.trainer
    minibatches = data.options
    assert (minibatches.gamma, minibatches.lmbda, minibatches.epochs, minibatches.minibatch_size) == (0.9, 0.8, 3, 32)
    assert (data.seed, parts.evaluation.seed, data.collector.seed) == (11, 11, 11)
    assert module.hparams["clip_epsilon"] == 0.3
    assert (module.options.entropy_coeff, module.learning_rate, module.options.final_learning_rate) == (
        0.07,
        0.002,
        None,
    )
    assert data.collector.frames_per_batch == 128
    assert (trainer.max_epochs, trainer.gradient_clip_val) == (9, 0.7)
    assert (parts.evaluation.options.num_games, parts.evaluation.options.every_n_epochs) == (6, 4)
    assert parts.evaluation.options.opening_plies is None
    assert parts.evaluation.opponents == ["random", "mcts(simulations=2)"]
    assert parts.evaluation.options.against_epochs_ago == 8
    assert parts.evaluation.ladder is not None
    assert parts.evaluation.ladder.names == ["random", "x"]
    assert parts.evaluation.options.max_time_share == 0.25
    assert (module.options.kl_target, data.options.decoupled) == (0.02, True)
    (snapshots,) = (callback for callback in trainer.callbacks if isinstance(callback, SnapshotCallback))
    assert snapshots.every_n_epochs == 3
    assert data.collector._collector_spec.opponents == OpponentOptions(
        share=0.25, max_snapshots=12, choice="prioritised"
    )
    (sync,) = (callback for callback in trainer.callbacks if isinstance(callback, WeightSyncCallback))
    assert sync.every_n_steps == 5
    best, checkpoint = (callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint))
    assert checkpoint.dirpath == best.dirpath == str(tmp_path / "checkpoints")
    assert checkpoint._every_n_epochs == 2
    assert isinstance(best, BestCheckpoint)
    assert best.monitor == "eval/score_vs_random"


def test_the_state_of_a_run_is_written_where_the_run_is_unless_it_is_switched_off(tmp_path: Path) -> None:
    def live(*overrides: str) -> list[tuple[Path, float]]:
        callbacks = build(validated(tmp_path, *overrides)).trainer.callbacks
        return [(each.path, each.every_s) for each in callbacks if isinstance(each, LiveStateCallback)]

    assert live() == [(tmp_path / "live.json", 2.0)]
    assert live("live_every_s=0.5") == [(tmp_path / "live.json", 0.5)]
    assert live("live_every_s=0") == []
    with pytest.raises(ConfigError, match=r"^live_every_s=-1: must be a number, from 0"):
        live("live_every_s=-1")


def test_the_learner_and_the_workers_share_one_network(tmp_path: Path) -> None:
    parts = build(validated(tmp_path))
    assert parts.data.collector.policy is parts.module.actor_critic


def test_loggers_are_those_that_are_configured(tmp_path: Path) -> None:
    csv, tensorboard = build(validated(tmp_path)).trainer.loggers
    assert isinstance(csv, CSVLogger)
    assert isinstance(tensorboard, TensorBoardLogger)
    assert Path(csv.log_dir) == tmp_path / "csv"
    assert Path(tensorboard.log_dir) == tmp_path / "tensorboard"
    assert build(validated(tmp_path, "logger=none")).trainer.loggers == []


def test_the_bar_and_the_checkpoints_can_be_switched_off(tmp_path: Path) -> None:
    off = ["trainer.enable_progress_bar=false", "trainer.enable_checkpointing=false"]
    kinds = {type(callback) for callback in build(validated(tmp_path, *off)).trainer.callbacks}
    assert not kinds & {TrainingProgress, ModelCheckpoint}
    assert EvaluationCallback in kinds


class OneShort(nn.Module):
    """Has no logit for the last action."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, state_value = self.network(observation)
        return logits[:, :-1], state_value


def one_short_network(spec: GameSpec) -> nn.Module:
    return OneShort(build_network(spec, kind="mlp", num_blocks=1, channels=8))


def test_a_third_partys_network_is_built_from_its_target(tmp_path: Path) -> None:
    cfg = composed(tmp_path)
    cfg.model = OmegaConf.create({"_target_": f"{__name__}.winged_network", "wings": 3})
    widths = {p.shape[0] for p in build(validate(cfg)).module.actor_critic.parameters() if p.ndim == 2}
    assert 24 in widths


class Heaps(CountingGame):
    """A game whose option is a list."""

    def __init__(self, num_games: int, *, heaps: list[int], opening_plies: int = 0) -> None:
        assert type(heaps) is list
        super().__init__(num_games, goal=sum(heaps), opening_plies=opening_plies)


@pytest.mark.slow
def test_a_game_option_that_is_a_list_comes_as_one_and_is_saved(tmp_path: Path) -> None:
    register_game("heaps", Heaps)
    try:
        cfg = composed(tmp_path, "env.game=heaps", "env.opening_plies=0", "+env.options.heaps=[6,4]", "logger=none")
        run(cfg)
    finally:
        GAMES._registered.pop("heaps")
    assert read_recipe(tmp_path / "checkpoints" / "last.ckpt") == Recipe(
        game="heaps", game_options={"opening_plies": 0, "heaps": [6, 4]}, model=OmegaConf.to_container(cfg.model)
    )


@pytest.mark.slow
def test_pictures_that_cannot_be_written_cost_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "curves.png").mkdir()
    assert 0.0 <= run(composed(tmp_path, "logger=none")) <= 1.0
    assert read_checkpoint_header(tmp_path / "checkpoints" / "last.ckpt").global_step > 0
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [("Is a directory" in line, str(tmp_path / "curves.png") in line) for line in warnings] == [(True, True)]


def test_a_third_partys_network_that_is_not_of_the_game_is_bad_configuration(tmp_path: Path) -> None:
    """Six of connect four's seven logits trained, and said nothing."""
    cfg = composed(tmp_path)
    cfg.model = OmegaConf.create({"_target_": f"{__name__}.one_short_network"})
    with pytest.raises(ConfigError) as caught:
        build(validate(cfg))
    assert caught.value.errors == (
        f"model._target_={__name__}.one_short_network: network=OneShort: its logits are float32 [2, 8]; "
        "must be floating point [2, 9], one for each action of tic_tac_toe",
    )


def test_what_lightning_refuses_is_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^trainer: .*no_such_strategy"):
        build(validated(tmp_path, "trainer.strategy=no_such_strategy"))


def test_a_bad_configuration_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    cfg = composed(tmp_path)
    cfg.ppo.clip_epsilon = 2.0
    with pytest.raises(ConfigError, match=r"^ppo\.clip_epsilon=2: must be"):
        run(cfg)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_returns_the_score_and_shows_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    score = run(composed(tmp_path, "logger=none", "checkpoint.keep_best=true", "checkpoint.every_n_epochs=9"))
    assert 0.0 <= score <= 1.0
    out = capsys.readouterr().out
    assert f"policy scores {score:.1%} against random" in out
    for name in ("checkpoints/last.ckpt", "curves.png", "last_game.svg", "last_game.txt"):
        assert (tmp_path / name).stat().st_size > 0
        assert f" {name}" in out
    assert f" checkpoints/best.ckpt ({score:.1%})" in out
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.parametrize(
    ("overrides", "workers", "learner"),
    [
        (["parallel=workers", "parallel.schedule=async"], 2, 4),  # two workers with two threads each
        (["parallel=workers", "parallel.schedule=async", "parallel.num_workers=8"], 8, 1),
        (["parallel=central", "parallel.schedule=async"], 2, 4),
        (["parallel=workers"], 8, 8),  # in turns
    ],
)
def test_a_learner_that_learns_while_workers_play_leaves_them_their_cpus(
    overrides: list[str], workers: int, learner: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app", "system.limits", "system.machine", "parallel.options"):
        monkeypatch.setattr(f"keisei_lightning.{module}.available_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    parts = build(validated(tmp_path, "parallel.num_workers=auto", *overrides))
    assert parts.data.collector.num_workers == workers
    assert parts.learner_threads == learner


def test_on_two_cpus_a_learner_has_both_beside_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app", "system.limits", "system.machine", "parallel.options"):
        monkeypatch.setattr(f"keisei_lightning.{module}.available_cpus", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ("parallel=workers", "parallel.schedule=async")
    assert build(validated(tmp_path, *words, "parallel.num_workers=auto")).learner_threads == 2
    assert build(validated(tmp_path, *words, "parallel.num_workers=2")).learner_threads == 1


def test_training_gives_the_threads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = build(validated(tmp_path))
    parts = dataclasses.replace(parts, learner_threads=1)
    seen: list[int] = []
    monkeypatch.setattr(parts.trainer, "fit", lambda *args, **options: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parts.fit()
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_last_resumes_where_the_run_ended(tmp_path: Path) -> None:
    results, shape = f"results_dir={tmp_path}", ["name=again", "logger.tensorboard=null"]
    run(composed(tmp_path / "again" / "first", results, *shape))
    config = validated(tmp_path / "again" / "second", results, *shape, "ckpt_path=last", "trainer.max_epochs=2")
    assert config.cfg.ckpt_path == str(tmp_path / "again" / "first" / "checkpoints" / "last.ckpt")
    run(config)
    names, *rows = (tmp_path / "again" / "second" / "csv" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    epochs = {row.split(",")[names.split(",").index("epoch")] for row in rows}
    assert epochs == {"1"}, "only the second epoch is trained"


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_signal_in_anybodys_program_ends_a_run_with_all_that_was_learned(
    signum: int, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PPOModule, "on_train_epoch_end", lambda module: signal.raise_signal(signum), raising=False)
    before = signal.signal(signum, signal.default_int_handler)
    try:
        with pytest.raises(Stopped) as caught:
            run(composed(tmp_path, "trainer.max_epochs=50"))
        assert signal.getsignal(signum) is signal.default_int_handler
    finally:
        signal.signal(signum, before)
    assert caught.value.exit_code == exit_code
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_fast_dev_run_takes_one_step_and_writes_nothing(tmp_path: Path) -> None:
    assert not math.isnan(run(composed(tmp_path, "debug=fast_dev_run")))
    assert list(tmp_path.iterdir()) == []


def test_a_training_learns_from_searches_if_it_is_asked_to(tmp_path: Path) -> None:
    small = ["search_targets.games=4", "search_targets.simulations=4", "search_targets.minibatch_size=8"]
    parts = build(validated(tmp_path, "search_targets=gumbel", *small))
    assert parts.data.search_targets is not None
    parts.fit()
    assert parts.data.search_targets.stats()["search_window"] == 24.0  # a fifth of 128, in whole plies of four games
    assert parts.trainer.callback_metrics["train/search_policy_loss"] > 0.0
    assert build(validated(tmp_path)).data.search_targets is None


@pytest.mark.process
def test_searches_go_with_worker_processes_too(tmp_path: Path) -> None:
    words = ["search_targets=gumbel", "search_targets.games=4", "parallel=workers", "parallel.num_workers=2"]
    run(validated(tmp_path, *words, "parallel.games_per_worker=8", "parallel.schedule=async"))
    found = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = found["SelfPlayDataModule"]["search_targets"]
    assert len(state["window"]["value"]) == 52  # a fifth of 256, in whole plies of four games
