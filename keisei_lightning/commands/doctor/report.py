"""Findings as text for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from keisei_lightning.commands.doctor.findings import Finding, Status
from keisei_lightning.system.paths import one_line

__all__ = ["as_json", "as_text", "summary_of"]

_WIDTH, _WIDEST = 80, 110
_COLOURS: dict[Status, str] = {"OK": "32", "note": "33", "problem": "1;31"}
_INDENT = " " * 9


def as_json(findings: Sequence[Finding]) -> str:
    """An object with ``findings``, ``problems`` and ``notes``."""
    counts = {f"{status}s": sum(one.status == status for one in findings) for status in ("problem", "note")}
    return json.dumps({**counts, "findings": [asdict(one) for one in findings]}, indent=1) + "\n"


def as_text(findings: Sequence[Finding]) -> str:
    """A block for each section; 80 columns and no colour where standard output is no terminal."""
    is_terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, _WIDEST) if is_terminal else _WIDTH
    has_colour = is_terminal and not os.environ.get("NO_COLOR")
    lines: list[str] = []
    for section in dict.fromkeys(one.section for one in findings):
        lines.append(section)
        for one in findings:
            if one.section == section:
                lines += _lines(one, width, has_colour=has_colour)
    return "\n".join([*lines, "", summary_of(findings), ""])


def summary_of(findings: Sequence[Finding]) -> str:
    """How many problems and notes there are, and of what."""
    parts = []
    for status in ("problem", "note"):
        names = [f"{one.section} {one.name}" for one in findings if one.status == status]
        count = f"{len(names) or 'no'} {status}{'' if len(names) == 1 else 's'}"
        parts.append(f"{count} ({', '.join(names)})" if names and status == "problem" else count)
    return ", ".join(parts)


def _lines(finding: Finding, width: int, *, has_colour: bool) -> list[str]:
    mark = f"{finding.status:<7}"
    if has_colour:
        mark = f"\x1b[{_COLOURS[finding.status]}m{mark}\x1b[0m"
    first = textwrap.wrap(
        f"{one_line(finding.name)}: {one_line(finding.value)}",
        width - len(_INDENT),
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    lines = [f"{mark}  {first[0]}", *(_INDENT + line for line in first[1:])]
    if finding.meaning:
        wrapped = textwrap.wrap(finding.meaning, width - len(_INDENT) - 2, break_on_hyphens=False)
        lines += [f"{_INDENT}  {line}" for line in wrapped]
    if finding.remedy:  # one line, however long: it is to be copied
        lines.append(f"{_INDENT}  $ {finding.remedy}")
    return lines
