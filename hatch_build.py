"""Compiles the shogi boards where there is a C compiler; without one the package is installed all the same."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("keisei_lightning/games/shogi_kernel.c")
LIBRARY = SOURCE.with_name("libshogi_kernel.so")
FLAGS = ["-O3", "-shared", "-fPIC", "-fvisibility=hidden"]


class ShogiKernel(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``libshogi_kernel.so`` beside its source, for the wheel and for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the platform in the wheel's name."""
        source = Path(self.root) / SOURCE
        library = Path(self.root) / LIBRARY
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, f'-DSOURCE_SHA256="{digest}"']
        fresh = library.with_suffix(".new")  # a running process may have the present one open
        try:
            subprocess.run([*command, "-o", str(fresh), str(source)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            library.unlink(missing_ok=True)
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"shogi is played by rsshogi alone, at a fraction of the speed: {reason}")
            return
        fresh.replace(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(LIBRARY.as_posix())
