"""Where an export goes, and in which format: what can be known of it before torch is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from keisei_lightning.errors import ConfigError
from keisei_lightning.export.card import ExportFormat
from keisei_lightning.export.onnx_policy import missing_library
from keisei_lightning.system.paths import no_path, one_line
from keisei_lightning.system.stopping import temporary_file

__all__ = ["LIBRARIES", "SUFFIXES", "Target"]

SUFFIXES: Final[dict[str, ExportFormat]] = {
    ".onnx": "onnx",
    ".pt2": "torch_export",
    ".safetensors": "safetensors",
}
"""Formats by the suffix of a file."""

LIBRARIES: Final[dict[ExportFormat, tuple[str, ...]]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torch_export": (),
    "safetensors": ("safetensors",),
}
"""What writes and reads a format, beside torch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A file to write, and its card.

    Attributes:
        file: the file.
        file_format: of it.
    """

    file: Path
    file_format: ExportFormat

    @property
    def card(self) -> Path:
        """The file of the card, beside it: ``shogi.onnx.json`` of ``shogi.onnx``."""
        return self.file.with_name(f"{self.file.name}.json")

    @classmethod
    def of(cls, to: str | os.PathLike[str], file_format: str | None = None, *, overwrite: bool = False) -> Target:
        """Check a file to write.

        Args:
            to: its path.
            file_format: of it; None: as its suffix says.
            overwrite: it may be there already.

        Raises:
            ConfigError: the suffix says no format, a library of the format is missing, or the file cannot be made.
        """
        name, file = one_line(os.fspath(to)), Path(to)
        suffixes = ", ".join(f"{suffix} ({each})" for suffix, each in SUFFIXES.items())
        chosen = SUFFIXES.get(file.suffix) if file_format is None else file_format
        if chosen is None:
            raise ConfigError(f"to={name}: its suffix says no format; must be one of {suffixes}, or add format=...")
        if chosen not in LIBRARIES:
            raise ConfigError(f"format={chosen}: must be one of {', '.join(get_args(ExportFormat))}")
        target = cls(file=file, file_format=chosen)
        if reason := target._no_file(overwrite=overwrite):
            raise ConfigError(f"to={name}: {reason}")
        if line := missing_library(*LIBRARIES[target.file_format]):
            raise ConfigError(f"to={name}: {line}")
        return target

    def _no_file(self, *, overwrite: bool) -> str:
        """Why the file cannot be written; empty where it can."""
        if reason := no_path(self.card):  # the longer name of the two
            return f"must be a file that can be written ({reason})"
        if not self.file.parent.is_dir():
            return f"must be in a folder that is there ({one_line(str(self.file.parent))} is none)"
        for file in (self.file, self.card):
            if file.is_dir():
                return f"must be a file that can be written ({file.name} is a folder)"
            if file.exists() and not overwrite:
                return f"must be a new file ({file.name} is there); add overwrite=true to replace it"
        if not os.access(self.file.parent, os.W_OK):
            return "must be in a folder that can be written to"
        return ""

    def write(self, content: bytes, card: str) -> None:
        """Write both files, or none: on an error, such as a full disk, all is as it was before.

        Args:
            content: of the file.
            card: as JSON.

        Raises:
            OSError: it cannot be written; it names the file.
        """
        temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (self.file, self.card)]
        try:
            with temporary_file(temporaries[0]) as file, temporary_file(temporaries[1]) as beside:
                _write_through(file, content)
                _write_through(beside, f"{card}\n".encode())
                os.replace(file, self.file)
                os.replace(beside, self.card)
        except OSError as error:
            raise type(error)(error.errno, f"{error.strerror} (nothing was written)", str(self.file)) from error


def _write_through(path: Path, content: bytes) -> None:
    """Write a file to the disk itself: a renamed file that is empty after a power cut would be neither old nor new."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
