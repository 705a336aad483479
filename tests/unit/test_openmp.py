import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei_lightning import limit_spinning, openmp
from keisei_lightning.openmp import SETTINGS, USER_VARIABLES, CpuTime, SpinningWatch, cpu_time, spinning_limited


@pytest.fixture(autouse=True)
def _nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set, and nobody has called too late."""
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openmp, "_called_too_late", False)


def run_python(code: str, **variables: str) -> str:
    """What a fresh interpreter prints, with these variables and none else of OpenMP's."""
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True).stdout


def variables_now() -> dict[str, str]:
    return {name: os.environ[name] for name in USER_VARIABLES if name in os.environ}


class TestTheLimit:
    def test_it_is_set_before_torch_is_imported_and_reaches_children(self) -> None:
        code = (
            "import keisei_lightning, subprocess, sys\n"
            "assert 'torch' not in sys.modules\n"
            "print(keisei_lightning.limit_spinning(), flush=True)\n"
            "subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"GOMP_SPINCOUNT\"])'], check=True)"
        )
        assert run_python(code).split() == ["True", SETTINGS["GOMP_SPINCOUNT"]]

    def test_libgomp_itself_reads_it(self) -> None:
        # OMP_DISPLAY_ENV makes the runtime print its settings as it is loaded.
        code = "import keisei_lightning; keisei_lightning.limit_spinning(); import torch; torch.ones(9).sum()"
        environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
        command = [sys.executable, "-c", code]
        shown = subprocess.run(
            command, env=environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True
        ).stderr
        if "GOMP" not in shown:
            pytest.skip("torch's OpenMP here is not libgomp")
        assert f"GOMP_SPINCOUNT = '{SETTINGS['GOMP_SPINCOUNT']}'" in shown

    @pytest.mark.parametrize("name", USER_VARIABLES)
    def test_a_user_who_has_set_a_variable_has_decided(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "ACTIVE")
        assert limit_spinning()
        with spinning_limited():
            assert variables_now() == {name: "ACTIVE"}
        assert variables_now() == {name: "ACTIVE"}

    def test_after_torch_it_says_that_it_is_too_late_and_says_so_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)
        assert not limit_spinning()
        assert not limit_spinning()
        assert variables_now() == SETTINGS  # for the processes that this one starts

    def test_before_torch_twice_is_harmless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        assert limit_spinning()
        assert limit_spinning()

    def test_a_process_is_started_with_it_and_the_environment_is_put_back(self) -> None:
        before = dict(os.environ)
        with spinning_limited():
            assert variables_now() == SETTINGS
        assert dict(os.environ) == before

    def test_the_commands_set_it(self) -> None:
        code = (
            "import os\nfrom keisei_lightning.{module} import main\nmain({words})\nprint(os.environ['GOMP_SPINCOUNT'])"
        )
        for module, words in (("cli", ["games"]), ("launch", ["parallel.num_workers=-1"])):
            printed = run_python(code.format(module=module, words=words))
            assert printed.split()[-1] == SETTINGS["GOMP_SPINCOUNT"], module


class TestCpuTime:
    def test_the_threads_of_a_folder_are_added_up(self, tmp_path: Path) -> None:
        for thread, line in {"1": "3000000000 500000000 7", "2": "1000000000 250000000 9"}.items():
            (tmp_path / thread).mkdir()
            (tmp_path / thread / "schedstat").write_text(line)
        assert cpu_time(tmp_path) == CpuTime(run_s=4.0, wait_s=0.75)

    def test_a_thread_that_has_ended_and_a_kernel_that_does_not_tell(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "schedstat").write_text("gone")
        assert cpu_time(tmp_path) is None
        assert cpu_time(tmp_path / "no such folder") is None


class TestTheWatch:
    """Looks at 0, 5, 10 ... seconds; each reading is what the kernel says then."""

    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
        with caplog.at_level(logging.WARNING, logger="keisei_lightning.openmp"):
            yield caplog

    @staticmethod
    def watch(*readings: CpuTime | None, threads: int = 2) -> None:
        now, left = [0.0], list(readings)
        watch = SpinningWatch(clock=lambda: now[0], read=lambda: left.pop(0))
        for _ in readings:
            watch.look(threads)
            watch.look(threads)  # too soon: nothing is read
            now[0] += SpinningWatch.INTERVAL_S

    def test_it_warns_once_of_spinning_on_a_busy_machine(self, logged: pytest.LogCaptureFixture) -> None:
        self.watch(CpuTime(100.0, 90.0), CpuTime(106.0, 94.0))
        (message,) = logged.messages
        assert "waited for a CPU in 40 % of their time" in message
        assert "keisei_lightning.limit_spinning() before torch is imported" in message

    def test_it_looks_no_more_after_a_warning(self, logged: pytest.LogCaptureFixture) -> None:
        watch_readings = [CpuTime(1.0, 0.0), CpuTime(2.0, 1.0)]
        now = [0.0]
        watch = SpinningWatch(clock=lambda: now[0], read=lambda: watch_readings.pop(0))
        for _ in range(5):
            watch.look(2)
            now[0] += 100.0
        assert len(logged.messages) == 1

    def test_a_quiet_machine_is_no_reason(self, logged: pytest.LogCaptureFixture) -> None:
        self.watch(CpuTime(1.0, 0.0), CpuTime(9.0, 1.9), CpuTime(20.0, 2.0))
        assert not logged.messages

    def test_one_thread_waits_for_nobody(self, logged: pytest.LogCaptureFixture) -> None:
        self.watch(CpuTime(1.0, 0.0), CpuTime(2.0, 5.0), threads=1)
        assert not logged.messages

    def test_a_kernel_that_does_not_tell_is_no_reason(self, logged: pytest.LogCaptureFixture) -> None:
        self.watch(None, CpuTime(1.0, 9.0), None)
        assert not logged.messages

    def test_a_limit_is_a_reason_to_be_silent_unless_it_came_too_late(
        self, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
        self.watch(CpuTime(1.0, 0.0), CpuTime(2.0, 5.0))
        assert not logged.messages
        monkeypatch.setattr(openmp, "_called_too_late", True)
        self.watch(CpuTime(1.0, 0.0), CpuTime(2.0, 5.0))
        assert len(logged.messages) == 1
