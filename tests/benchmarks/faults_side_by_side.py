"""The same faults given to our collector and to TorchRL's multi-process collectors, side by side in one table.

Everything, three times (about an hour), one fault only, and with weights published after every batch::

    python tests/benchmarks/faults_side_by_side.py --json faults.json
    python tests/benchmarks/faults_side_by_side.py --faults SIGKILL --options default --repeats 1
    python tests/benchmarks/faults_side_by_side.py --faults SIGSTOP --options default --publish

On a Ray cluster of this machine, beside TorchRL's RayCollector (which has no option for failures)::

    python tests/benchmarks/faults_side_by_side.py --subjects keisei-ray torchrl-ray --options default \
        --faults SIGKILL "SIGKILL of the actor"

It starts hundreds of processes: run it on a machine that does nothing else, or read only what was done, not how fast.

Every case is a fresh Python process with a time limit (``fault_case.py``). It takes a few batches, then orders one
worker to make the fault half a rollout later: the game sends SIGKILL or SIGSTOP to its own process, raises, or calls
``os._exit``, and notes when; a thread of the learner sees from outside that the process has died or stopped. The
learner goes on asking for batches as if nothing had happened, until every worker has delivered again, the collector
raises, or ``--patience`` is over; the latter interrupts it as Ctrl-C does. Then it shuts the collector down.

All collectors play the same game with the same policy, with as many workers, boards and plies, and with their default
options. What TorchRL 0.14 has for failures is no argument but the environment variable ``MAX_IDLE_COUNT``: how many
seconds the learner waits for data, and a worker for orders, before it raises; by default for ever. (Its
``preemptive_threshold`` cuts slow workers short but waits for their answer; ``TORCHRL_WEIGHT_SYNC_TIMEOUT`` holds at
the start only.) So TorchRL has a second row with ``MAX_IDLE_COUNT``, and ours one with a shorter heartbeat and restart
delay.

Columns: seconds are counted from the fault and are medians. *Lost*: rollouts begun and never delivered, of processes
that are gone, and of all processes if the collector delivers nothing any more. *Told*: whether the error or what was
printed names the worker and the cause. *Program ends*: whether the case's own process, which lets the error through
after ``shutdown()`` as most programs do, has ended 8 s later (TorchRL 0.14.1 on Python 3.11 hangs there after any such
error, a learner's own too: ``SharedMemWeightSyncScheme.__del__`` starts a thread while the interpreter ends). *Left*:
workers alive or zombies when ``shutdown()`` returned, processes of the case that still ran 5 s after its end, and new
files in /dev/shm.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import rich.box
from fault_case import ERROR_TEXT, EXIT_CODE, FAULTS, GAME, GAMES, LIMITS_S, PLIES, Case, is_ended, wait_for
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.report import describe_machine

START_LIMIT_S, END_LIMIT_S, AFTER_END_S = 90.0, 8.0, 5.0
TABLE_WIDTH = 600  # characters: a row of a Markdown table is one line
CASE = Path(__file__).with_name("fault_case.py")
CAUSES = {
    "SIGKILL": r"SIGKILL|exit code -9|worker process has died",
    "SIGKILL of the actor": r"SIGKILL|exit code -9|process has died",
    "SIGSTOP": r"sign of life|Failed to gather",
    "exception": ERROR_TEXT,
    "os._exit": rf"exit code {EXIT_CODE}",
}
"""Words that tell a user what happened, in the error or on the terminal."""


def session_of(leader: int) -> list[int]:
    """Processes of a session that are not zombies (a Ray actor has a process group of its own)."""
    pids = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader and not is_ended(pid):
                pids.append(pid)
    return pids


def start_case(case: Case) -> dict[str, Any]:
    """Run a case in a fresh Python, bounded in time; nothing of it is left afterwards."""
    shared_before = set(os.listdir("/dev/shm"))
    limit_s = START_LIMIT_S + case.patience_s + LIMITS_S
    environment = {key: value for key, value in os.environ.items() if key != "MAX_IDLE_COUNT"}
    if case.tuned and case.maker == "torchrl":
        environment["MAX_IDLE_COUNT"] = str(case.max_idle_count)
    with tempfile.TemporaryDirectory() as name, open(f"{name}/output", "ab") as output:
        command = [sys.executable, str(CASE), json.dumps(dataclasses.asdict(case)), name]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        result = Path(name) / "result.json"
        wait_for(lambda: result.exists() or process.poll() is not None, limit_s)
        end_s = wait_for(lambda: process.poll() is not None, END_LIMIT_S)
        if end_s is not None:
            wait_for(lambda: not session_of(process.pid), AFTER_END_S)  # a fork server leaves a moment later
        survivors = session_of(process.pid)
        for pid in survivors:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        if result.exists():
            found = json.loads(result.read_text())
        else:
            printed = Path(output.name).read_text(errors="replace").strip()
            found = {"outcome": f"no result: {printed.splitlines()[-1:]}", "printed": printed[-4000:]}
    return {
        **dataclasses.asdict(case),
        "subject": case.subject,
        **found,
        "end_s": end_s,
        "survivors": len(survivors),
        "shared_memory_left": sorted(set(os.listdir("/dev/shm")) - shared_before),
    }


def describe_told(result: dict[str, Any]) -> str:
    """What a user is told by the error and by what is printed: which worker it was, and what happened to it."""
    text = result["message"] + "\n" + result["printed"]
    known = {"worker": r"worker \d|pid: \d", "cause": CAUSES[result["fault"]]}
    names = [name for name, pattern in known.items() if re.search(pattern, text)]
    where = [name for name, key in (("error", "message"), ("output", "printed")) if result[key].strip()]
    return f"{' and '.join(names) or 'no details'} ({' + '.join(where)})" if where else "nothing"


def describe_left(result: dict[str, Any]) -> str:
    """What was left behind."""
    counts = {
        "alive": result["alive_at_return"],
        "zombies": result["zombies_at_return"],
        "after the end": result["survivors"] if result["end_s"] is not None else 0,
        "in /dev/shm": len(result["shared_memory_left"]),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"


def describe_outcome(result: dict[str, Any]) -> str:
    """What the collector did, with the first sentence of what it raised."""
    first = str(result.get("message", "")).partition("\n")[0].partition(". ")[0]
    return f"{result['outcome']}: {first}" if first else str(result["outcome"])


def summarise(results: list[dict[str, Any]]) -> dict[str, str]:
    """One row of the table: the repeats of one case, of which those without a result count as what they did alone."""
    whole = [result for result in results if "longest_wait_s" in result]

    def median(key: str) -> str:
        values = [result[key] for result in whole if result[key] is not None]
        return f"{statistics.median(values):.2f}" if values else "-"

    def common(values: list[str]) -> str:
        counts = Counter(values).most_common()
        return " / ".join(value if len(counts) == 1 else f"{count}x {value}" for value, count in counts) or "-"

    return {
        "fault": results[0]["fault"],
        "collector": results[0]["subject"],
        "what it did": common([describe_outcome(result) for result in results]),
        "replaced, s": median("replaced_s"),
        "raised, s": median("error_s"),
        "longest wait for a batch, s": median("longest_wait_s"),
        "lost": common([str(result["lost_rollouts"]) for result in whole]),
        "told": common([describe_told(result) for result in whole]),
        "shutdown, s": median("shutdown_s"),
        "program ends": common(["hangs" if result["end_s"] is None else "yes" for result in whole]),
        "left": common([describe_left(result) for result in whole]),
    }


def print_table(results: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Print a table that can be pasted into a Markdown page, and where it was measured."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: list(FAULTS).index(result["fault"])):
        rows.setdefault((result["fault"], result["subject"]), []).append(result)
    summaries = [summarise(row) for row in rows.values()]
    table = Table(box=rich.box.MARKDOWN)
    for column in summaries[0]:
        table.add_column(column, no_wrap=True)
    for summary in summaries:
        table.add_row(*summary.values())
    repeats = sorted({len(row) for row in rows.values()})
    first = results[0]
    console = Console(width=TABLE_WIDTH, highlight=False)
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(
        f"{first['workers']} workers x {GAMES} boards of {GAME} x {PLIES} plies, weights "
        f"{'published after every batch' if first['publish'] else 'not published'}; medians of "
        f"{' to '.join(map(str, repeats))} repeats; patience {first['patience_s']:g} s"
    )
    console.print(
        f"{machine['date']}, {machine['processor']}, {machine['cpus']} CPUs, Python {machine['python']}, {versions}"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Give the same faults to our collector and to TorchRL's, and print one table of what each does.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="made by one worker")
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=["keisei", "torchrl", "keisei-ray", "torchrl-ray"],
        default=["keisei", "torchrl"],
        help="whose; the last two on a Ray cluster of this machine",
    )
    parser.add_argument("--schedules", nargs="+", choices=["sync", "async"], default=["sync", "async"], help="which")
    parser.add_argument(
        "--options", nargs="+", choices=["default", "tuned"], default=["default", "tuned"], help="see the next three"
    )
    parser.add_argument("--heartbeat", type=float, default=1.0, metavar="S", help="ours, tuned: heartbeat_s")
    parser.add_argument("--backoff", type=float, default=0.02, metavar="S", help="ours, tuned: restart_backoff_s")
    parser.add_argument("--max-idle-count", type=int, default=5, metavar="S", help="TorchRL's, tuned: MAX_IDLE_COUNT")
    parser.add_argument("--publish", action="store_true", help="publish weights after every batch, as a learner does")
    parser.add_argument("--workers", type=int, default=4, help="worker processes of each collector")
    parser.add_argument("--repeats", type=int, default=3, help="times that each case is run; medians are quoted")
    parser.add_argument("--patience", type=float, default=30.0, metavar="S", help="seconds to go on asking for batches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single result there")
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print the table of such a file")
    return parser


def main() -> int:
    """Run all cases, one after the other."""
    arguments = make_parser().parse_args()
    if arguments.show:
        earlier = json.loads(arguments.show.read_text())
        print_table(earlier["results"], earlier["machine"])
        return 0
    cases = [
        case
        for _ in range(arguments.repeats)
        for fault, maker, options, schedule in itertools.product(
            arguments.faults, arguments.subjects, arguments.options, arguments.schedules
        )
        if (case := Case(
            maker, schedule, options == "tuned", fault, arguments.workers, arguments.patience, arguments.heartbeat,
            arguments.backoff, arguments.max_idle_count, arguments.publish,
        )).is_possible
    ]  # fmt: skip
    progress, results = Console(stderr=True, highlight=False), []
    for number, case in enumerate(cases, 1):
        start = time.monotonic()
        results.append(start_case(case))
        took = time.monotonic() - start
        progress.print(f"[{number}/{len(cases)}] {case.fault}: {case.subject}: {results[-1]['outcome']} ({took:.0f} s)")
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=1))
    print_table(results, describe_machine())
    return 0 if all("longest_wait_s" in result for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
