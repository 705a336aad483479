"""What the doctor finds: a fact, what it means for training, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Status", "note", "ok", "problem"]

Status = Literal["OK", "note", "problem"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        section: what it belongs to.
        name: of what was looked at.
        value: what was found.
        status: ``note``: training works, but could be better; ``problem``: something does not work.
        meaning: for training; may be empty for what is as it should be.
        remedy: a command that mends it, or empty.
    """

    section: str
    name: str
    value: str
    status: Status = "OK"
    meaning: str = ""
    remedy: str = ""


def ok(section: str, name: str, value: str, meaning: str = "") -> Finding:
    """A fact that is as it should be."""
    return Finding(section=section, name=name, value=value, meaning=meaning)


def note(section: str, name: str, value: str, meaning: str, remedy: str = "") -> Finding:
    """A fact that costs something."""
    return Finding(section=section, name=name, value=value, status="note", meaning=meaning, remedy=remedy)


def problem(section: str, name: str, value: str, meaning: str, remedy: str = "") -> Finding:
    """A fact because of which something does not work."""
    return Finding(section=section, name=name, value=value, status="problem", meaning=meaning, remedy=remedy)
