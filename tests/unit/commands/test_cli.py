"""The words after ``keisei``, and which exit code each ending has."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from keisei_lightning.commands import main as cli
from keisei_lightning.commands import train as launch
from keisei_lightning.commands.train import Stopped
from keisei_lightning.config.schemas import register_configs
from keisei_lightning.config.validation import ValidatedConfig
from keisei_lightning.errors import WorkerError


@pytest.fixture(autouse=True)
def _own_folder_and_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra sets up the root logger; put back what pytest had there, and close the log file."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: BaseProcess) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(BaseProcess, "start", start)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the training itself; what it returns or raises is decided by the seed."""
    seen: list[str] = []

    def fake(config: ValidatedConfig) -> float:
        seed = config.cfg.seed
        seen.append(f"seed={seed}")
        if seed == 13:
            raise WorkerError("worker 3 died")
        if seed in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), seed)
        return seed / 100

    monkeypatch.setattr("keisei_lightning.app.run", fake)
    return seen


class TestWords:
    @pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
    def test_help_names_every_command(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(words) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {command} " in out for command in cli.COMMANDS)

    def test_an_unknown_command_names_those_there_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["fly"]) == 2
        assert capsys.readouterr().err == f"keisei: fly: no such command; must be one of {', '.join(cli.COMMANDS)}\n"

    def test_a_command_that_is_nearly_one_is_guessed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["plya"]) == 2
        assert capsys.readouterr().err.startswith("keisei: plya: no such command (did you mean play?); must be one of ")

    def test_games_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["games"]) == 0
        assert {"shogi", "connect_four", "tic_tac_toe"} <= set(capsys.readouterr().out.split())

    def test_a_missing_kernel_of_shogi_is_told_beside_the_games(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("keisei_lightning.games.shogi.game.load_kernel", lambda: None)
        monkeypatch.setattr("keisei_lightning.games.shogi.game.why_no_kernel", lambda: "no compiler")
        assert cli.main(["games"]) == 0
        out = capsys.readouterr().out
        assert "\nshogi: moves by rsshogi (no compiler), at a third of the compiled kernel's speed\n" in out

    def test_train_help_lists_groups_and_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["train", "--help", "ppo.epochs=7"]) == 0
        out = capsys.readouterr().out
        assert "experiment: breakthrough, connect_four, connect_four_strong, hex, quickstart" in out
        assert re.search(r"\n  ppo\.epochs=7 +[A-Z].*\. \(a whole number, from 1 to 100\)\n", out)

    @pytest.mark.slow
    def test_train_help_shows_the_groups_that_hydra_shows_with_the_same_template(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert cli.main(["train", "--help"]) == 0
        ours = capsys.readouterr().out
        monkeypatch.setattr(launch, "asks_for_help", lambda words: False)
        with pytest.raises(SystemExit):
            cli.main(["train", "--help"])
        theirs = capsys.readouterr().out
        assert ours.partition("== Keys")[0] == theirs.partition("== Keys")[0] != theirs

    def test_help_for_a_key_that_does_not_exist_is_told_as_ever(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["train", "--help", "ppo.epoch=7"]) == 2
        assert capsys.readouterr().err.startswith("keisei: ppo.epoch=7: no such key (did you mean ppo.epochs?)")


class TestExitCodes:
    def test_done_is_0(self, run: list[str]) -> None:
        assert cli.main(["train", "seed=5"]) == 0
        assert run == ["seed=5"]

    @pytest.mark.slow
    def test_failed_is_1_with_the_traceback_on_the_screen_and_in_the_log(
        self, run: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert cli.main(["train", "seed=13"]) == 1
        assert "WorkerError: worker 3 died" in capsys.readouterr().err
        (log,) = (tmp_path / "results" / "shogi").rglob("train.log")
        assert "WorkerError: worker 3 died" in log.read_text(encoding="utf-8")

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.slow
    def test_a_signal_is_128_and_its_number(self, run: list[str], signum: int, code: int) -> None:
        before = signal.getsignal(signum)
        assert cli.main(["train", f"seed={int(signum)}"]) == code
        assert signal.getsignal(signum) is before

    @pytest.mark.slow
    def test_a_signal_that_is_ignored_stays_ignored(self, run: list[str]) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            assert cli.main(["train", f"seed={int(signal.SIGINT)}"]) == 0
        finally:
            signal.signal(signal.SIGINT, before)

    def test_a_signal_is_no_failure_that_could_be_caught(self) -> None:
        assert not issubclass(Stopped, Exception)

    @pytest.mark.slow
    def test_sweeping_goes_on_after_a_failed_job_and_ends_with_1(
        self, run: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert cli.main(["train", "-m", "seed=7,13,42"]) == 1
        assert run == ["seed=7", "seed=13", "seed=42"]
        out = capsys.readouterr().out
        table = out[out.index("3 jobs, best first") :]
        assert table.index("seed=42") < table.index("seed=7") < table.index("seed=13")
        assert "0.4200" in table
        assert "failed: worker 3" in table
        (sweep,) = (tmp_path / "results" / "shogi").iterdir()
        assert sorted(job.name for job in sweep.glob("job_*")) == ["job_0", "job_1", "job_2"]

    @pytest.mark.slow
    def test_a_sweep_over_a_bad_value_ends_with_2(self, run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["train", "-m", "seed=1", "ppo.clip_epsilon=0.1,2"]) == 2
        assert run == ["seed=1"]
        captured = capsys.readouterr()
        assert "keisei: ppo.clip_epsilon=2: must be a number, more than 0 and less than 1\n" in captured.err
        assert "bad configuration" in captured.out


@pytest.mark.usefixtures("no_process")
class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["parallel.num_workers=0"], "parallel.num_workers=0: must be auto, or a whole number, 1 or more"),
            (["parallel.num_workers=-5"], "parallel.num_workers=-5: must be auto, or a whole number, 1 or more"),
            (["parallel.num_workers=100000"], "parallel.num_workers=100000: must be from 1 to "),
            (["parallel.num_worker=2"], "parallel.num_worker=2: no such key (did you mean parallel.num_workers?)"),
            (["env.game=nosuch"], "env.game=nosuch: "),
            (["env=open_spiel", "env.game=backgammon"], "env.game=backgammon: "),
            (["env=open_spiel", "env.game=kuhn_poker"], "env.game=kuhn_poker: "),
            (["model.channels=0"], "model.channels=0: must be a whole number, from 1 to 8192"),
            (["ppo.clip_epsilon=2"], "ppo.clip_epsilon=2: must be a number, more than 0 and less than 1"),
            (
                ["experiment=smoke", "parallel.num_workers=1", "ppo.minibatch_size=4096"],
                "ppo.minibatch_size=4096: must be from 1",
            ),
            (["ckpt_path=missing.ckpt"], "ckpt_path=missing.ckpt: there is no such file"),
            (["env=shoggy"], "env=shoggy: no such option (did you mean shogi?)"),
            (["ppo.gamma=high"], "ppo.gamma=high: "),
            (["--ppo.gamma", "0.9"], "--ppo.gamma: no such flag; options are written KEY=VALUE"),
            (["seed=3", "--epochs=4"], "--epochs=4: no such flag; options are written KEY=VALUE"),
        ],
    )
    @pytest.mark.slow
    def test_it_is_one_line_on_standard_error_and_exit_code_2(
        self, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["train", *words]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"keisei: {line}")
        assert captured.err.count("\n") == 1
        assert captured.out == ""

    def test_the_environment_is_put_back(self) -> None:
        launch.main(["parallel.num_worker=2"])
        assert "HYDRA_FULL_ERROR" not in os.environ
        launch.main(["--cfg", "job"])
        assert not HydraConfig.initialized()

    def test_a_resolved_configuration_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["train", "--cfg", "job", "--resolve", "env=hex"]) == 0
        assert "output_dir: results/hex_board_size_5/DATE-TIME\n" in capsys.readouterr().out

    @pytest.mark.slow
    def test_the_flag_of_a_sweep_may_stand_anywhere(self, run: list[str]) -> None:
        assert cli.main(["train", "experiment=smoke", "-m", "seed=3,4"]) == 0
        assert run == ["seed=3", "seed=4"]

    @pytest.mark.slow
    def test_the_home_folder_is_found_in_a_file_too(
        self, run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nresults_dir: ~/runs\nname: mine\n")
        words = ["--config-dir", str(tmp_path), "--config-name", "mine"]
        assert cli.main(["train", *words]) == 0
        (folder,) = (tmp_path / "home" / "runs" / "mine").iterdir()
        assert f"results_dir: {tmp_path}/home/runs\n" in (folder / ".hydra" / "config.yaml").read_text()
        assert cli.main(["train", "-m", *words]) == 2
        assert not (tmp_path / "~").exists()


class TestBench:
    @pytest.mark.parametrize(
        ("file", "reason"),
        [
            ("/proc/x/y", "must be a file that can be written to (No such file or directory)"),
            (".", "must be a file that can be written to (Is a directory)"),
            ("", "must be a file, or null"),
        ],
    )
    def test_where_nothing_can_be_written_nothing_is_measured(
        self, file: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("keisei_lightning.commands.bench.rules.run", lambda options: pytest.fail("it was measured"))
        assert cli.main(["bench", "rules", "game=tic_tac_toe", f"write={file}"]) == 2
        assert capsys.readouterr().err == f"keisei: write={file}: {reason}\n"

    def test_too_much_for_the_memory_is_one_line_and_2(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def run(options: object) -> None:
            raise MemoryError("Unable to allocate 9 EiB")

        monkeypatch.setattr("keisei_lightning.commands.bench.rules.run", run)
        assert cli.main(["bench", "rules", "game=tic_tac_toe"]) == 2
        assert capsys.readouterr().err == (
            "keisei: there is not enough memory here for what is to be measured (Unable to allocate 9 EiB); "
            "must be fewer games, plies or workers\n"
        )

    def test_ctrl_c_is_one_line_and_130(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr(
            "keisei_lightning.commands.bench.rules.run", lambda options: os.kill(os.getpid(), signal.SIGINT)
        )
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            assert cli.main(["bench", "rules", "game=tic_tac_toe", f"write={tmp_path}/a/b"]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
        assert capsys.readouterr().err == "keisei: stopped by SIGINT\n"
        assert not (tmp_path / "a" / "b").exists()

    def test_several_faults_are_several_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["train", "parallel.num_workers=0", "ppo.clip_epsilon=2"]) == 2
        assert capsys.readouterr().err.count("keisei: ") == 2


def test_registering_the_schemas_twice_is_harmless() -> None:
    register_configs()
    once = ConfigStore.instance().list("schema")
    register_configs()
    assert ConfigStore.instance().list("schema") == once != []
