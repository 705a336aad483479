"""The whole soak in one command and one table: ``python tests/soak.py`` (``make soak``; about three hours).

1. the fault tests with the full counts (``KEISEI_SOAK=1 pytest``), which say what they have shown;
2. training under a fault a minute beside training without (``benchmarks/chaos.py``);
3. a Ray cluster whose agents and nodes are killed every half minute (``benchmarks/cluster_chaos.py``);
4. the same faults given to TorchRL's collectors (``benchmarks/faults_side_by_side.py``): a table of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "process"))
from soak_report import SoakReport

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "tests" / "benchmarks"


def run(*command: str | Path, **environment: str) -> bool:
    """Run a part; its output is shown as it comes. Returns whether it went well."""
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode == 0


def add_chaos(report: SoakReport, result: dict[str, Any]) -> None:
    """The chaos run as a row."""
    curve = ", ".join(f"{100 * score:.1f}" for _, score in result["curve"])
    report.add(
        "36",
        f"SIGKILL or SIGSTOP of a random worker, {result['turns']} x {result['chaos_minutes']:g} minutes of training "
        f"shogi, heartbeat {result['heartbeat_s']:g} s",
        len(result["faults"]),
        f"{result['ratio_of_means']:.1%} of the plies/s of the quiet blocks between; score against random, %: {curve}",
    )


def add_cluster_chaos(report: SoakReport, result: dict[str, Any]) -> None:
    """The chaos run of a cluster as a row."""
    arguments, faults = result["arguments"], result["faults"]
    killed = " and ".join(f"{count} x {how}" for how, count in faults.items())
    report.add(
        "42",
        f"{killed} killed in {arguments['minutes']:g} minutes, {arguments['nodes']} simulated nodes, "
        f"heartbeat {arguments['heartbeat']:g} s",
        sum(faults.values()),
        f"{result['torn']} torn, {result['duplicated']} delivered twice in {result['delivered']} rollouts; "
        f"{result['lost_rollouts']} lost, counted; agents' own share {result['ratio_own_share']:.1%} of quiet, raw "
        f"{result['ratio_raw']:.1%}; recovery p50 {result['recovery_s_p50']} s, p99 {result['recovery_s_p99']} s",
    )


def main() -> int:
    """Run all parts, print the table, and return 1 if any part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=("tests", "chaos", "cluster", "torchrl"), help="parts to leave out"
    )
    parser.add_argument("--turns", default="10", help="of the chaos run: 3 minutes with faults and 1.5 without, each")
    arguments = parser.parse_args()
    report, failed = SoakReport(), []
    with tempfile.TemporaryDirectory() as folder:
        rows, chaos = Path(folder, "rows.json"), Path(folder, "chaos.json")
        if "tests" not in arguments.skip and not run(
            *(sys.executable, "-m", "pytest", "-q", "tests/process", "tests/e2e/test_checkpoint_faults.py"),
            *("--timeout", "3600"),
            KEISEI_SOAK="1",
            KEISEI_SOAK_ROWS=str(rows),
        ):
            failed.append("tests")
        if rows.exists():
            report.rows += [tuple(row) for row in json.loads(rows.read_text())]
        if "chaos" not in arguments.skip:
            if run(sys.executable, BENCHMARKS / "chaos.py", "--turns", arguments.turns, "--json", chaos):
                add_chaos(report, json.loads(chaos.read_text()))
            else:
                failed.append("chaos")
        if "cluster" not in arguments.skip:
            cluster = Path(folder, "cluster.json")
            if run(sys.executable, BENCHMARKS / "cluster_chaos.py", "--minutes", "20", "--json", cluster):
                add_cluster_chaos(report, json.loads(cluster.read_text()))
            else:
                failed.append("cluster")
        if "torchrl" not in arguments.skip and not run(sys.executable, BENCHMARKS / "faults_side_by_side.py"):
            failed.append("torchrl")
    console = Console(width=600)
    console.print(*report.markdown(), sep="\n", markup=False, highlight=False)
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
