"""Row 27: a collector that this machine cannot run is refused before anything starts; one that it can run does run."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from collector_helpers import collector_of
from fakes import TinyNetwork

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.memory.demand import check_memory
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.slots import SlotLayout
from keisei_lightning.system.limits import DESCRIPTORS_BESIDES, DESCRIPTORS_PER_WORKER
from keisei_lightning.system.machine import available_memory

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
"""Only against a test that waits for ever."""

pytestmark = pytest.mark.process

# Says what came of it, which processes it has, and how it would have ended in a person's script.
SCRIPT = """
import re, sys
sys.path[:0] = [{root!r}, {tests!r}, {process!r}]
import psutil
from collector_helpers import collector_of
from keisei_lightning.errors import ConfigError

def attempt(**options):
    try:
        with collector_of(heartbeat_s=10.0, threads_per_worker=1, **options) as collector:
            batch = next(iter(collector))
            print("PLAYED", len(batch))
    except ConfigError as error:
        assert not psutil.Process().children(), "a process was started"
        for fault in error.errors:
            print("REFUSED", fault)
        return str(error)

if __name__ == "__main__":
"""


def run_script(body: str, *, before: Callable[[], None] | None = None, command: tuple[str, ...] = ()) -> str:
    head = SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests"), process=str(ROOT / "tests" / "process"))
    done = subprocess.run(
        [*command, sys.executable, "-c", head + "".join(f"    {line}\n" for line in body.splitlines())],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        preexec_fn=before,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # a signal (SIGBUS, SIGXFSZ, SIGKILL) would be a negative code
    assert "Traceback" not in done.stderr
    return done.stdout


def limit(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


@contextlib.contextmanager
def soft_limit(which: int, value: int) -> Iterator[None]:
    """A limit of this very process, which may raise it again."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


# ---- file descriptors


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_learner_holds_no_more_descriptors_than_is_computed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    me, peak, close = psutil.Process(), [0], os.close

    def measured(descriptor: int) -> None:
        peak[0] = max(peak[0], me.num_fds())  # whatever is opened for a moment is there when it is closed
        close(descriptor)

    with collector_of(num_workers=2, start_method=method, heartbeat_s=10.0) as collector:
        before = me.num_fds()
        monkeypatch.setattr(os, "close", measured)
        collector.start()
        monkeypatch.setattr(os, "close", close)
        next(iter(collector))
        held = me.num_fds() - before
        assert 2 * DESCRIPTORS_PER_WORKER <= held < peak[0] - before  # the start was watched
        assert peak[0] - before <= 2 * DESCRIPTORS_PER_WORKER + DESCRIPTORS_BESIDES // 2


def test_a_low_ulimit_n_is_refused_with_the_figure_and_the_most_it_allows_really_plays() -> None:
    out = run_script(
        """
error = attempt(num_workers=40)
most = int(re.search(r"must be from 1 to (\\d+) ", error)[1])
attempt(num_workers=most)
""",
        before=limit(resource.RLIMIT_NOFILE, 60),
    )
    found = re.match(
        r"REFUSED num_workers=40: must be from 1 to (\d) \(152 file descriptors are needed, 3 x 40 workers \+ 32, and "
        r"(\d+) are free: ulimit -n is 60, (\d+) are in use; the hard limit is 60\)\nPLAYED (\d+)\n$",
        out,
    )
    assert found, out
    most, free, used, games = map(int, found.groups())
    assert free + used == 60
    assert most == (free - DESCRIPTORS_BESIDES) // DESCRIPTORS_PER_WORKER >= 2
    assert games == 4 * most


def test_too_few_descriptors_for_any_worker_are_refused_and_serial_still_plays() -> None:
    gc.collect()  # what other tests have left open would be closed between the count and its use
    with soft_limit(resource.RLIMIT_NOFILE, psutil.Process().num_fds() + DESCRIPTORS_BESIDES):
        with pytest.raises(ConfigError, match=r"num_workers=1: not even one worker can be started \(35 file descript"):
            collector_of(num_workers=1)
        with collector_of(num_workers=30, mode="serial") as collector:
            assert len(next(iter(collector))) == 30 * 4


# ---- processes


def test_a_low_ulimit_u_is_refused_with_the_figure() -> None:
    uid = os.getuid() or 65534  # root may exceed the limit: it becomes "nobody"
    in_use = sum(process.num_threads() for process in psutil.process_iter() if process.uids().real == uid)
    program = f"""
import os, resource, sys
sys.path.insert(0, {str(ROOT)!r})
from keisei_lightning.system.limits import WorkerDemand, worker_errors
worker_errors(WorkerDemand(num_workers=1))  # imports what it needs: another user may not read it
os.setresuid({uid}, {uid}, {uid})
resource.setrlimit(resource.RLIMIT_NPROC, ({in_use + 40}, {in_use + 40}))
print(*worker_errors(WorkerDemand(num_workers=64, threads_per_worker=1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    wanted = r"num_workers=64: must be from 1 to \d+ \(1\d\d threads are needed, 2 x 64 workers \+ "
    assert re.match(wanted, done.stdout), done.stdout
    assert f"ulimit -u is {in_use + 40}" in done.stdout


def test_a_thousand_workers_are_refused_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.system.limits.available_cpus", lambda: 2)
    with pytest.raises(ConfigError, match=r"num_workers=1000: must be from 1 to \d+ \(64 for each of the 2 CPUs"):
        collector_of(num_workers=1000)


# ---- memory


def test_rollouts_and_weights_beyond_the_memory_are_refused_with_the_sum() -> None:
    layout = SlotLayout.for_game(collector_of(mode="serial").spec, num_slots=1, num_workers=2, num_games=4, num_plies=6)
    check_memory(layout, policy=ActorCritic(TinyNetwork()), mode="workers")
    network = TinyNetwork()
    size = available_memory() // 4 // 12  # four sets are as much as there is; "meta" takes none of it
    network.linear = type(network.linear)(2, size, device="meta")
    with pytest.raises(ConfigError) as refused:
        check_memory(layout, policy=ActorCritic(network), mode="workers")
    assert re.match(
        r"games_per_worker=4: nothing fits with num_workers=2 \(.* of memory are needed and .* are free: "
        r"slots .* = 2 workers x 1 slots x 4 games x 6 plies x \d+ bytes, weights .* = \(2 workers \+ 2\) x .*, "
        r"processes .* = 2 workers x .*\)$",
        str(refused.value),
    )


def test_a_limit_on_files_is_refused_up_front_and_never_a_signal() -> None:
    with soft_limit(resource.RLIMIT_FSIZE, 2**20):
        with pytest.raises(ConfigError, match=r"games_per_worker=4096: must be from 1 to 1\d\d\d \(.* a file may have"):
            collector_of(num_workers=2, games_per_worker=4096)
        with pytest.raises(ConfigError, match=r"shared memory: 64 MiB cannot be reserved \(File too large\)"):
            SharedBuffer(64 * 2**20)


def test_shared_memory_without_a_descriptor_for_its_mapping_is_an_error() -> None:
    fillers: list[int] = []
    before = psutil.Process().num_fds()
    with soft_limit(resource.RLIMIT_NOFILE, psutil.Process().num_fds() + 3):
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        os.close(fillers.pop())  # for the memory itself, but none for its mapping
        with pytest.raises(ConfigError, match=r"shared memory: 1 MiB cannot be reserved \(Too many open files\)"):
            SharedBuffer(2**20)
    for descriptor in fillers:
        os.close(descriptor)
    assert psutil.Process().num_fds() == before


def test_shared_memory_without_address_space_is_an_error_and_never_a_signal() -> None:
    with (
        soft_limit(resource.RLIMIT_AS, psutil.Process().memory_info().vms + 2**24),
        pytest.raises(ConfigError, match=r"shared memory: 64 MiB cannot be reserved \(Cannot allocate memory\)"),
    ):
        SharedBuffer(64 * 2**20)


# ---- /dev/shm


def test_collecting_puts_nothing_into_dev_shm() -> None:
    before = _links()  # of libraries that other tests have used
    with collector_of(heartbeat_s=10.0) as collector:
        next(iter(collector))
        links = _links()
    assert any("memfd:keisei" in link for link in links)  # this is what it has instead
    assert not [link for link in links if link.startswith("/dev/shm") and link not in before]


def _links() -> list[str]:
    """What each descriptor of this process is."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that the folder was listed by
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return links


def test_rollouts_larger_than_dev_shm_are_collected() -> None:
    """A container's /dev/shm of 64 MiB: here it is one of 1 MiB, in a name space of its own."""
    unshare = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no mount name space can be made here")
    out = run_script(
        """
import os
room = os.statvfs("/dev/shm")
assert room.f_blocks * room.f_frsize == 2**20
options = dict(num_workers=2, games_per_worker=64, plies_per_rollout=200)
from collector_helpers import collector_of
with collector_of(heartbeat_s=10.0, schedule="async", slots_per_worker=60, max_policy_lag=1000, **options) as collector:
    batch = next(iter(collector))
    print("PLAYED", len(batch), collector._collector_spec.layout.num_bytes // 2**20, "MiB")
    assert os.listdir("/dev/shm") == []
""",
        command=(*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh"),
    )
    found = re.match(r"PLAYED (\d+) (\d+) MiB\n$", out)
    assert found, out
    assert int(found[2]) > 64
