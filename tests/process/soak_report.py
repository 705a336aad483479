"""What a soak has shown, row by row: one table at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SoakReport"]


@dataclass(slots=True)
class SoakReport:
    """Rows of (row of the fault table, fault, how often, what came of it)."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, row: str, fault: str, count: int, result: str) -> None:
        """Note what came of a fault that was made ``count`` times."""
        self.rows.append((row, fault, f"{count:,}", result))

    def markdown(self) -> list[str]:
        """The table, as it goes into docs/results/faults.md."""
        head = ["| row | fault | times | result |", "|---|---|---|---|"]
        return head + ["| " + " | ".join(row) + " |" for row in self.rows]
