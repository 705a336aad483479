"""Tests and measurements on an accelerator, in one command and one table: ``python tests/gpu.py`` (``make gpu``).

Each part runs in a process of its own, within a time of its own, most valuable first; one that fails or hangs is told
with its last lines, and the next one runs. ``gpu.json`` and ``gpu.md`` are written anew after every part, ``gpu.log``
has what they all said. On a machine that has torch and CUDA and little else::

    python tests/gpu.py --wheels FOLDER --out results/gpu                # everything, within nine minutes
    python tests/gpu.py --parts train match --resume results/gpu/last.ckpt  # train on, by another nine
    python tests/gpu.py --device cpu                                     # a rehearsal, with tiny sizes

Exit status: 0 if every part passed (one that was left out for want of time has not failed), else 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gpu_program.figures import newest
from gpu_program.parts import CHECKPOINT, Part, all_parts
from gpu_program.processes import run_bounded
from gpu_program.report import LOG_NAME, PartResult, Report, key_figures
from gpu_program.setup import ROOT, build_kernels, install_wheels, part_environment, source_head, write_metadata

__all__ = ["main", "run_parts"]

_LEAST_S = 5.0
"""A part that would have less time than this is left out."""

_LAST_LINES = 30
_MARGIN_S = 4.0  # between a measurement's own end and the bound at which it is killed


def run_parts(
    parts: Sequence[Part],
    *,
    report: Report,
    out: Path,
    scratch: Path,
    deadline: float,
    say: Callable[[str], None],
) -> bool:
    """Run parts one after the other.

    Args:
        parts: in their order.
        report: takes in what came of each.
        out: folder of results.
        scratch: for what need not be kept, and on the parts' path.
        deadline: ``time.monotonic()`` when all has to be over.
        say: is given a line when a part begins and one when it has ended.

    Returns:
        Whether none failed.
    """
    environment = part_environment(scratch / "site")
    for number, part in enumerate(parts):
        reserve_s = sum(later.reserve_s for later in parts[number + 1 :])
        left_s = deadline - time.monotonic() - reserve_s
        bound_s = left_s if part.bound_s is None else min(part.bound_s, left_s)
        say(f"{part.name}: {part.what} (at most {max(bound_s, 0):.0f} s)")
        result = (
            _run(part, bound_s=bound_s, out=out, scratch=scratch, environment=environment)
            if bound_s >= _LEAST_S
            else _left_out(part, bound_s)
        )
        report.add(result)
        if part.name == "environment":
            report.head |= result.figures
            report.write()
        say(f"{part.name}: {result.status} after {result.seconds:.1f} s; {key_figures(result) or 'no figures'}")
        for line in result.last_lines:
            say(f"    {line}")
    return all(result.status in ("passed", "left out") for result in report.results)


def _run(part: Part, *, bound_s: float, out: Path, scratch: Path, environment: dict[str, str]) -> PartResult:
    work = scratch / f"work_{part.name}"
    work.mkdir()
    places = {"{work}": str(work), "{out}": str(out), "{seconds}": f"{bound_s - _MARGIN_S:.0f}"}
    words = [_filled(word, places) for word in part.words]
    shown = shlex.join(["python", *words]).replace(str(work), "FOLDER")
    with (out / LOG_NAME).open("a", encoding="utf-8") as log:
        log.write(f"\n======== {part.name}: {shown}\n")
    ending = run_bounded(
        [sys.executable, *words],
        bound_s=bound_s,
        log=out / LOG_NAME,
        environment=environment,
        folder=ROOT,
        stops_in_order=part.stops_in_order,
    )
    problems = []
    figures, rows = {}, []
    try:
        found = part.read(work, ending.output)
        figures, rows = dict(found.key), list(found.rows)
        for name, patterns in dict(part.keeps).items():
            if file := next(filter(None, (newest(work, pattern) for pattern in patterns)), None):
                shutil.copyfile(file, out / name)
    except Exception as error:  # noqa: BLE001 - half of a file, another format: the other parts are to run
        problems = [f"what it left could not be read: {type(error).__name__}: {error}"]
    status = "failed" if problems and ending.status == "passed" else ending.status
    tail = [] if status == "passed" else ending.output.rstrip().splitlines()[-_LAST_LINES:]
    shutil.rmtree(work, ignore_errors=True)
    return PartResult(
        name=part.name,
        what=part.what,
        command=shown,
        status=status,
        bound_s=bound_s,
        seconds=ending.seconds,
        exit_status=ending.exit_status,
        figures=figures,
        rows=rows,
        last_lines=[*tail, *problems],
    )


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word


def _left_out(part: Part, bound_s: float) -> PartResult:
    return PartResult(
        name=part.name,
        what=part.what,
        command=shlex.join(["python", *part.words]),
        status="left out",
        bound_s=max(bound_s, 0.0),
        seconds=0.0,
        exit_status=None,
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()  # it may be read while the next part runs


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: with tiny sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu", help="folder of results")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (default: 9)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install for this run, without network")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these (default: all; see --list)")
    parser.add_argument("--list", action="store_true", help="show the parts and their commands, and run nothing")
    parser.add_argument("--resume", type=Path, metavar="CKPT", help="checkpoint that the training resumes from")
    parser.add_argument("--train", nargs="+", default=[], metavar="KEY=VALUE", help="more words for the training")
    arguments = parser.parse_args(argv)
    if arguments.resume is not None and not arguments.resume.is_file():
        parser.error(f"--resume {arguments.resume}: there is no such file")
    known = [part.name for part in _parts(arguments)]
    if unknown := [name for name in arguments.parts or () if name not in known]:
        parser.error(f"--parts {' '.join(unknown)}: must be of {', '.join(known)}")
    return arguments


def _parts(arguments: argparse.Namespace) -> list[Part]:
    resume = None if arguments.resume is None else str(arguments.resume.absolute())
    return all_parts(on_gpu=arguments.device == "cuda", resume=resume, overrides=arguments.train)


def _head(notes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "tests/gpu.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        **source_head(),
        **notes,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    start = time.monotonic()
    arguments = _arguments(argv)
    parts = _parts(arguments)
    if arguments.list:
        for part in parts:
            _say(f"{part.name}: {part.what}\n    {shlex.join(['python', *part.words])}")
        return 0
    chosen = [part for part in parts if arguments.parts is None or part.name in arguments.parts]
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # so that what runs is killed
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG_NAME).unlink(missing_ok=True)
    if arguments.resume is not None and "train" not in [part.name for part in chosen]:
        shutil.copyfile(arguments.resume, out / CHECKPOINT)  # for a match of it
    with tempfile.TemporaryDirectory(prefix="keisei-gpu-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        notes: dict[str, Any] = {}
        if arguments.wheels is not None:
            notes["wheels"] = install_wheels(arguments.wheels, scratch / "site") or f"of {arguments.wheels}"
        write_metadata(scratch / "site")
        notes["kernels"] = build_kernels()
        report = Report(out, _head(notes))
        report.write()
        for name, value in report.head.items():
            _say(f"{name.replace('_', ' ')}: {value}")
        went_well = run_parts(
            chosen,
            report=report,
            out=out,
            scratch=scratch,
            deadline=start + 60 * arguments.minutes,
            say=_say,
        )
    _say(f"{time.monotonic() - start:.0f} s; results: {os.path.relpath(out)}")
    return 0 if went_well else 1


if __name__ == "__main__":
    sys.exit(main())
