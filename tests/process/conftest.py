"""The soak's report: filled by tests, printed at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fault_helpers import SOAK
from soak_report import SoakReport

REPORT = SoakReport()


@pytest.fixture
def soak_report() -> SoakReport:
    """Where a fault test says what it has shown."""
    return REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the report after a soak."""
    if SOAK and REPORT.rows:
        terminalreporter.section("soak")
        for line in REPORT.markdown():
            terminalreporter.write_line(line)
        if path := os.environ.get("KEISEI_SOAK_ROWS"):  # for soak.py
            Path(path).write_text(json.dumps(REPORT.rows))
