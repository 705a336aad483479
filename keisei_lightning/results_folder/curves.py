"""A run's metrics as curves, read on and on while they are written.

Lightning writes the file anew when a metric comes that it has no column for; then, or when it has become shorter, it is
read from its start again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from keisei_lightning.results_folder.metrics import cells_of, number_in

__all__ = ["CurveReader"]

_MAX_POINTS: Final = 2000
_PIECE: Final = 1 << 20


class CurveReader:
    """Reads a file of metrics on and on, and keeps a bounded number of its rows.

    Attributes:
        generation: changes when the rows before are no longer those that were given.
    """

    def __init__(self, max_points: int = _MAX_POINTS) -> None:
        self._max_points = max_points
        self.generation = 0
        self._begin(b"")

    def _begin(self, header: bytes) -> None:
        self._header, self._offset, self._seen, self._stride = header, len(header), 0, 1
        self._names = cells_of(header.decode("utf-8", "replace")) if header else []
        self._rows: list[list[float | None]] = []
        self._latest: list[float | None] = []
        self.generation += 1

    def read(self, file: Path | None) -> None:
        """Read what has been added to the file; None: there is none yet."""
        if file is None:
            return
        with file.open("rb") as stream:
            header = stream.readline(_PIECE)
            if not header.endswith(b"\n"):
                return  # it is being written anew
            if header != self._header or os.fstat(stream.fileno()).st_size < self._offset:
                self._begin(header)
            stream.seek(self._offset)
            while chunk := stream.read(_PIECE):
                whole = chunk[: chunk.rfind(b"\n") + 1]
                if not whole:
                    return
                self._add(whole)
                self._offset += len(whole)
                stream.seek(self._offset)

    def since(self, generation: int, row: int) -> dict[str, Any]:
        """Rows for a client that has those before.

        Args:
            generation: of the rows that it has.
            row: how many it has.

        Returns:
            ``generation``, ``row`` (the number of the first one), ``columns`` by name, and ``latest``: the last number
            of each.
        """
        first = row if generation == self.generation else 0
        rows = self._rows[first:]
        columns = {name: [values[place] for values in rows] for place, name in enumerate(self._names)}
        latest = dict(zip(self._names, self._latest, strict=False))
        return {"generation": self.generation, "row": first, "columns": columns, "latest": latest}

    def _add(self, lines: bytes) -> None:
        for line in lines.decode("utf-8", "replace").splitlines():
            cells = cells_of(line)
            if len(cells) != len(self._names):
                continue
            values = [number_in(cell) for cell in cells]
            before = self._latest or values
            self._latest = [old if new is None else new for new, old in zip(values, before, strict=True)]
            # An evaluation is rare: its row is kept, whatever the stride.
            is_rare = any(v is not None and n.startswith("eval/") for n, v in zip(self._names, values, strict=True))
            if self._seen % self._stride == 0 or is_rare:
                self._rows.append(values)
            self._seen += 1
            if len(self._rows) > self._max_points:
                self._rows = self._rows[::2]
                self._stride *= 2
                self.generation += 1
