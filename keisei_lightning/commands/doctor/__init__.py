"""The command ``keisei doctor``: what this machine and this installation mean for a training, and what mends them.

Torch is imported in a process of its own (``probe.py``), so that the doctor runs where torch cannot.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keisei_lightning.commands.doctor.findings import Finding
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.errors import KeiseiError
from keisei_lightning.system.options import Options, option

__all__ = ["DoctorOptions", "main"]

_ABOUT = """\
Looks at this machine and this installation, and says of each finding whether it is OK, what it means for a training,
and which command mends it. A bug report should have its output. The exit code is 1 where there is a problem."""

_NOTES = """\
examples:
  keisei doctor
  keisei doctor json=true > doctor.json
"""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(Options):
    """The keys of ``keisei doctor``."""

    json: bool = option(False, "Print JSON instead of text.")
    folder: str = option("results", "Where trainings will write their results.", form="a folder")


def _examine(options: DoctorOptions) -> None:
    """Print all findings.

    Raises:
        KeiseiError: there is a problem.
    """
    from keisei_lightning.commands.doctor.report import as_json, as_text, summary_of

    findings = list(_findings(options))
    sys.stdout.write(as_json(findings) if options.json else as_text(findings))
    sys.stdout.flush()
    if any(one.status == "problem" for one in findings):
        raise KeiseiError(f"doctor: {summary_of(findings)}")


def _findings(options: DoctorOptions) -> Iterator[Finding]:
    from keisei_lightning.commands.doctor import hardware, software

    probe = software.run_probe()
    yield from software.check_versions(probe)
    yield from software.check_kernels()
    yield from hardware.check_processor(probe)
    yield from hardware.check_memory(probe)
    yield from hardware.check_limits()
    yield from hardware.check_threads()
    yield from hardware.check_gpu(probe)
    yield from hardware.check_disk(options.folder)
    yield from software.check_engines()
    yield from software.check_extras()
    yield from software.check_entry_points(probe)


main: Final = OptionsCommand(
    name="doctor",
    arguments="[KEY=VALUE ...]",
    about=_ABOUT,
    options=DoctorOptions,
    run=_examine,
    notes=lambda: _NOTES,
)
