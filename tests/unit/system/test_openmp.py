import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from keisei_lightning import limit_spinning
from keisei_lightning.system import openmp
from keisei_lightning.system.machine import available_cpus
from keisei_lightning.system.openmp import (
    SETTINGS,
    USER_VARIABLES,
    CpuTime,
    ExtraThreads,
    SpinningGovernor,
    Throttle,
    cpu_time,
    governed_spinning,
    spinning_limited,
)

LINUX = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells how long threads waited")

CALM, BUSY = (1.0, 0.01), (1.0, 1.0)
"""What the kernel tells of one interval: seconds on a CPU, seconds of waiting for one."""


@pytest.fixture(autouse=True)
def _nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set, and no call came too late."""
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openmp, "_called_too_late", False)


def python_environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in USER_VARIABLES} | variables


def run_python(code: str, **variables: str) -> str:
    """What a fresh interpreter prints, with these variables and none else of OpenMP's."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=python_environment(**variables), capture_output=True, text=True, check=True)
    return done.stdout


def variables_now() -> dict[str, str]:
    return {name: os.environ[name] for name in USER_VARIABLES if name in os.environ}


class TestTheVariables:
    @pytest.mark.slow
    def test_they_are_set_before_torch_is_imported_and_reach_children(self) -> None:
        code = (
            "import keisei_lightning, subprocess, sys\n"
            "print(keisei_lightning.limit_spinning(), 'torch' in sys.modules, flush=True)\n"
            "subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"KMP_BLOCKTIME\"])'], check=True)"
        )
        assert run_python(code).split() == ["True", "False", SETTINGS["KMP_BLOCKTIME"]]

    @pytest.mark.parametrize("name", USER_VARIABLES)
    def test_a_variable_of_the_user_is_kept(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "ACTIVE")
        assert limit_spinning()
        with spinning_limited():
            assert variables_now() == {name: "ACTIVE"}
        assert variables_now() == {name: "ACTIVE"}

    def test_after_torch_each_call_reports_that_it_is_too_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)
        assert not limit_spinning()
        assert not limit_spinning()
        assert variables_now() == SETTINGS  # for the processes that this one starts

    def test_two_calls_before_torch_are_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        assert limit_spinning()
        assert limit_spinning()

    def test_a_process_is_started_with_them_and_the_environment_is_put_back(self) -> None:
        before = dict(os.environ)
        with spinning_limited():
            assert variables_now() == SETTINGS
        assert dict(os.environ) == before

    @pytest.mark.slow
    def test_the_commands_set_them(self) -> None:
        code = (
            "import os; from keisei_lightning.{module} import main; main({words}); print(os.environ['KMP_BLOCKTIME'])"
        )
        for module, words in (("commands.main", ["games"]), ("commands.train", ["parallel.num_workers=-1"])):
            printed = run_python(code.format(module=module, words=words))
            assert printed.split()[-1] == SETTINGS["KMP_BLOCKTIME"], module


class TestCpuTime:
    def test_the_threads_of_a_folder_are_added_up(self, tmp_path: Path) -> None:
        for thread, line in {"1": "3000000000 500000000 7", "2": "1000000000 250000000 9"}.items():
            (tmp_path / thread).mkdir()
            (tmp_path / thread / "schedstat").write_text(line)
        assert cpu_time(tmp_path) == CpuTime(run_s=4.0, wait_s=0.75)

    def test_a_thread_that_has_ended_and_a_kernel_that_reports_nothing_are_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "schedstat").write_text("gone")
        assert cpu_time(tmp_path) is None
        assert cpu_time(tmp_path / "no such folder") is None

    @LINUX
    def test_the_kernel_reports_times_of_this_process(self) -> None:
        before = cpu_time()
        sum(range(3_000_000))
        after = cpu_time()
        assert before is not None
        assert after is not None
        assert after.run_s > before.run_s > 0


class FakeThrottle(Throttle):
    """Notes what is asked of it.

    Args:
        works: what ``engage`` returns.
    """

    def __init__(self, *, works: bool = True) -> None:
        self.asked: list[str] = []
        self._works = works

    def engage(self) -> bool:
        self.asked.append("engage")
        return self._works

    def release(self) -> None:
        self.asked.append("release")


class Kernel:
    """Tells of intervals, one after the other: seconds on a CPU and of waiting for one."""

    def __init__(self, intervals: Sequence[tuple[float, float]]) -> None:
        self._left = list(intervals)
        self._now = CpuTime(10.0, 5.0)

    def __call__(self) -> CpuTime:
        now = self._now
        if self._left:
            run_s, wait_s = self._left.pop(0)
            self._now = CpuTime(now.run_s + run_s, now.wait_s + wait_s)
        return now


def governed(*intervals: tuple[float, float], works: bool = True) -> tuple[SpinningGovernor, FakeThrottle]:
    """A governor that has sampled these intervals."""
    throttle = FakeThrottle(works=works)
    governor = SpinningGovernor(read=Kernel([*intervals, (0.0, 0.0)]), throttle=throttle)
    for _ in intervals:
        governor.sample()
    return governor, throttle


class TestTheGovernor:
    def test_threads_spin_on_a_calm_machine(self) -> None:
        governor, throttle = governed(*[CALM] * 9)
        assert not governor.is_throttled
        assert throttle.asked == []

    def test_one_busy_interval_is_enough_to_let_them_sleep(self) -> None:
        governor, throttle = governed(CALM, BUSY, BUSY)
        assert governor.is_throttled
        assert throttle.asked == ["engage"]

    def test_they_spin_again_after_some_consecutive_calm_intervals(self) -> None:
        calm = [CALM] * (SpinningGovernor.CALM_SAMPLES - 1)
        governor, throttle = governed(BUSY, *calm, BUSY, *calm)
        assert throttle.asked == ["engage"]
        governor, throttle = governed(BUSY, *calm, CALM)
        assert throttle.asked == ["engage", "release"]
        assert not governor.is_throttled

    def test_between_the_two_bounds_nothing_changes(self) -> None:
        between = (1.0, 0.1)  # a share of 0.09
        assert governed(*[between] * 9)[1].asked == []
        assert governed(BUSY, *[between] * 9)[1].asked == ["engage"]

    def test_an_interval_in_which_nothing_was_computed_says_nothing(self) -> None:
        assert governed((0.001, 0.01), (0.0, 0.0))[1].asked == []
        asleep = [(0.001, 0.0)] * (2 * SpinningGovernor.CALM_SAMPLES)
        assert governed(BUSY, *asleep)[1].asked == ["engage"]

    def test_threads_that_end_lower_the_sums_without_an_error(self) -> None:
        governor, throttle = governed(BUSY, (-5.0, -2.0), CALM)
        assert throttle.asked == ["engage"]
        assert governor.is_throttled

    def test_another_runtime_without_a_limit_is_one_warning(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)
        governor = SpinningGovernor(read=Kernel([BUSY] * 3), throttle=FakeThrottle(works=False))
        with caplog.at_level(logging.WARNING, logger="keisei_lightning.system.openmp"):
            assert not governor.sample()  # and its thread ends
        (message,) = caplog.messages
        assert "threads waited for a CPU in 50 % of their time" in message
        assert "keisei_lightning.limit_spinning() before torch is imported" in message

    @pytest.mark.parametrize(("too_late", "warnings"), [(False, 0), (True, 1)])
    def test_a_limit_is_a_reason_to_be_silent_unless_it_came_too_late(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, too_late: bool, warnings: int
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)
        monkeypatch.setenv("KMP_BLOCKTIME", SETTINGS["KMP_BLOCKTIME"])
        monkeypatch.setattr(openmp, "_called_too_late", too_late)
        governor = SpinningGovernor(read=Kernel([BUSY] * 3), throttle=FakeThrottle(works=False))
        with caplog.at_level(logging.WARNING, logger="keisei_lightning.system.openmp"):
            assert not governor.sample()
        assert len(caplog.messages) == warnings

    def test_before_torch_is_imported_it_goes_on_sampling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        governor = SpinningGovernor(read=Kernel([BUSY] * 3), throttle=FakeThrottle(works=False))
        assert governor.sample()

    def test_its_thread_samples_and_ends(self) -> None:
        throttle = FakeThrottle()
        governor = SpinningGovernor(read=Kernel([BUSY] * 99), throttle=throttle, interval_s=0.001)
        governor.start()
        while not governor.is_throttled:
            assert threading.active_count() > 1
        governor.close()
        assert throttle.asked == ["engage", "release"]

    @pytest.mark.parametrize("name", USER_VARIABLES)
    def test_it_does_nothing_if_the_user_has_decided(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "77")
        governor = SpinningGovernor(read=Kernel([BUSY] * 99), throttle=FakeThrottle(), interval_s=0.001)
        before = threading.active_count()
        governor.start()
        assert threading.active_count() == before
        governor.close()

    def test_contexts_share_one(self) -> None:
        def governors() -> int:
            return sum(thread.name == "keisei-spinning-governor" for thread in threading.enumerate())

        before = governors()  # that of the whole test run
        with governed_spinning():
            there = governors()
            with governed_spinning():
                assert governors() == there
            assert governors() == there
        assert governors() == before


@LINUX
class TestExtraThreads:
    SPINNING = """
import time, torch
from keisei_lightning.system.openmp import ExtraThreads
torch.set_num_threads(2)
large = torch.ones(1 << 16)

def spun():  # seconds of CPU time while this thread sleeps after an operation of two threads
    total = 0.0
    for _ in range(20):
        large.exp_()
        large.fill_(1.0)
        start = time.process_time()
        time.sleep(0.01)
        total += time.process_time() - start
    return total

spun()
threads = ExtraThreads()
print(spun(), threads.engage() and spun(), threads.release() or spun())
"""

    @pytest.mark.skipif(available_cpus() < 2, reason="on one CPU two threads are more than there are, and never spin")
    @pytest.mark.slow
    def test_they_let_the_runtime_itself_sleep_and_spin_again(self) -> None:
        # Side by side in one process, as shares of CPU time: a busy machine delays all three alike.
        free, throttled, free_again = map(float, run_python(self.SPINNING).split())
        assert throttled < free / 4
        assert throttled < free_again / 4

    def test_without_libgomp_nothing_is_engaged(self, tmp_path: Path) -> None:
        maps = tmp_path / "maps"
        maps.write_text("7f00-7f01 r-xp 00000000 fe:00 1 /usr/lib/libc.so.6\n")
        assert not ExtraThreads(maps).engage()
        assert not ExtraThreads(tmp_path / "none").engage()

    @pytest.mark.slow
    def test_they_end_at_release_and_both_calls_may_be_repeated(self) -> None:
        code = (
            "import os, torch\n"
            "from keisei_lightning.system.openmp import ExtraThreads\n"
            "torch.set_num_threads(1)\n"
            "count = lambda: len(os.listdir('/proc/self/task'))\n"
            "before, threads = count(), ExtraThreads()\n"
            "assert threads.engage() and threads.engage()\n"
            "during = count()\n"
            "threads.release(); threads.release()\n"
            "while count() > before: pass\n"
            "print(during - before == len(os.sched_getaffinity(0)) + 1)\n"
        )
        assert run_python(code).split() == ["True"]
