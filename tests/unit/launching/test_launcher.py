"""Several ranks as one function call: what they know, what comes back, and how all end when one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest
from rank_functions import (
    PATIENCE_S,
    exits_on_rank_1,
    fails_on_rank_1,
    gets_no_answer_on_rank_0,
    kills_itself_on_rank_1,
    loaded_modules,
    loses_its_peer_on_rank_0,
    place_and_port,
    raises_alike,
    raises_late_on_rank_0_what_all_have_agreed_on,
    raises_what_cannot_be_sent,
    refuses,
    stops_in_order,
    wait_for,
    warns,
)

from keisei_lightning.errors import ConfigError, RankError
from keisei_lightning.launching import launcher, run_ranks
from keisei_lightning.system.rank_place import RankPlace
from keisei_lightning.system.stopping import Stopped, StopSignals

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

pytestmark = pytest.mark.process
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="another kernel wakes no process")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_AFTER_FAILURE_S", 0.2)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")


def test_each_rank_knows_its_place_and_rank_0_answers() -> None:
    before = dict(os.environ)
    place, port = run_ranks(place_and_port, 2)
    assert place == RankPlace(launcher="keisei", rank=0, world_size=2, local_rank=0, local_world_size=2)
    assert 1024 <= int(port) < 65536
    assert dict(os.environ) == before


def test_launching_itself_loads_no_network() -> None:
    assert {"torch", "lightning", "torchrl"} & set(run_ranks(loaded_modules, 1)) == set()


def test_a_rank_that_raises_ends_the_others_and_its_traceback_comes_along(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"^rank 1: ZeroDivisionError: on purpose$") as caught:
        run_ranks(partial(fails_on_rank_1, tmp_path), 2)
    assert 'raise ZeroDivisionError("on purpose")' in str(caught.value.__cause__)
    assert not psutil.pid_exists(int((tmp_path / "started.0").read_text()))


def test_what_all_ranks_refuse_is_refused_once() -> None:
    with pytest.raises(ConfigError) as caught:
        run_ranks(refuses, 2)
    assert caught.value.errors == ("model.channels=3: must be even", "env.game=x: no such game")


def test_what_all_ranks_raise_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_AFTER_FAILURE_S", 300.0)  # on a busy machine the other one may be late
    with pytest.raises(LookupError, match=r"no such trial") as caught:
        run_ranks(raises_alike, 2)
    assert "in raises_alike" in str(caught.value.__cause__)
    with pytest.raises(RankError, match=r"^rank [01]: Unpicklable: on purpose$"):
        run_ranks(raises_what_cannot_be_sent, 2)


def test_what_all_ranks_have_agreed_to_raise_leaves_a_slow_one_time_to_end(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no better than others"):
        run_ranks(partial(raises_late_on_rank_0_what_all_have_agreed_on, tmp_path), 2)
    assert (tmp_path / "ended.0").exists()


def test_a_rank_that_is_killed_is_named_with_its_signal_and_what_it_did() -> None:
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL while saving a checkpoint \(likely out of "):
        run_ranks(kills_itself_on_rank_1, 2)
    with pytest.raises(RankError, match=r"^rank 1 ended with exit code 7 while collecting a rollout; the other ranks"):
        run_ranks(exits_on_rank_1, 2)


def test_who_loses_a_killed_rank_is_not_blamed(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL while in a backward pass, where gradients are"):
        run_ranks(partial(loses_its_peer_on_rank_0, tmp_path), 2)


def test_a_rank_that_does_not_answer_is_named_with_what_it_did(tmp_path: Path) -> None:
    with pytest.raises(
        RankError,
        match=r"^rank 0 got no answer from the other ranks while in a backward pass.*: rank 1 was still collecting",
    ) as caught:
        run_ranks(partial(gets_no_answer_on_rank_0, tmp_path), 2)
    assert "Timed out waiting" in str(caught.value.__cause__)
    assert not psutil.pid_exists(int((tmp_path / "started.1").read_text()))


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_rank_stops_all_in_order(tmp_path: Path, signalled: int) -> None:
    with pytest.raises(Stopped) as caught:
        run_ranks(partial(stops_in_order, tmp_path, signalled), 2)
    assert caught.value.signum == signal.SIGTERM
    assert {file.name for file in tmp_path.glob("saved.*")} == {"saved.0", "saved.1"}


def test_a_signal_to_the_parent_stops_all_in_order_and_is_the_parents_own(tmp_path: Path) -> None:
    def signals_when_ready() -> None:
        for rank in range(2):
            wait_for(tmp_path / f"ready.{rank}")
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=signals_when_ready)
    sender.start()
    with pytest.raises(Stopped) as caught, StopSignals():
        run_ranks(partial(stops_in_order, tmp_path, None), 2)
    sender.join()
    assert caught.value.signum == signal.SIGTERM
    assert {file.name for file in tmp_path.glob("saved.*")} == {"saved.0", "saved.1"}


@pytest.mark.parametrize("is_stopped", [False, pytest.param(True, marks=ON_LINUX)])
def test_ranks_end_in_order_when_their_parent_is_killed(is_stopped: bool, tmp_path: Path) -> None:
    program = (
        "from functools import partial; from pathlib import Path; from keisei_lightning.launching import run_ranks; "
        "from rank_functions import stops_in_order\n"
        f"if __name__ == '__main__': run_ranks(partial(stops_in_order, Path({str(tmp_path)!r}), None), 2)"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    with (tmp_path / "stderr").open("w") as stderr:
        parent = subprocess.Popen([sys.executable, str(script)], stderr=stderr)
    try:
        for rank in range(2):
            wait_for(tmp_path / f"ready.{rank}")
        ranks = [psutil.Process(int((tmp_path / f"ready.{rank}").read_text())) for rank in range(2)]
        if is_stopped:  # as one that hangs, it could not even hear of it
            ranks[1].suspend()
    finally:
        parent.kill()
        parent.wait()
    _, left = psutil.wait_procs(ranks, timeout=PATIENCE_S)
    assert left == []
    assert {file.name for file in tmp_path.glob("saved.*")} == {"saved.0", "saved.1"}
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_further_ranks_log_warnings_alone_with_their_number(capfd: pytest.CaptureFixture[str]) -> None:
    run_ranks(warns, 3)
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line for line in lines if "of something" in line) == [
        "5 % of something",
        "warning: [rank 1] 5 % of something",
        "warning: [rank 2] 5 % of something",
    ]
    assert not any("a word" in line for line in lines)
