"""Compiles the shogi boards and the tree search if there is a C compiler; without one the package installs as well."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCES = (Path("keisei_lightning/games/shogi/kernel.c"), Path("keisei_lightning/search/kernel.c"))
FLAGS = ["-O3", "-fno-math-errno", "-shared", "-fPIC", "-fvisibility=hidden"]
OLDEST_GLIBC = (2, 17)
"""The glibc of manylinux2014; older systems have no Python 3.11 and no torch."""
OLDEST_MACOS = "11.0"
"""The first macOS on Apple's own processors."""


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the library of each C file beside it, for a wheel and for an editable installation: all or none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and set the wheel's platform tag."""
        root = Path(self.root)
        environment = {"MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS, **os.environ}
        libraries = [library_of(source) for source in SOURCES]
        try:
            for source, library in zip(SOURCES, libraries, strict=True):
                compile_library(root / source, root / library, environment)
        except (OSError, subprocess.CalledProcessError) as error:
            for library in libraries:
                (root / library).unlink(missing_ok=True)
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"shogi and search are played without compiled code, far slower: {reason}")
            return
        content = b"".join((root / library).read_bytes() for library in libraries)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{wheel_platform(content, environment['MACOSX_DEPLOYMENT_TARGET'])}"
        build_data["artifacts"] += [library.as_posix() for library in libraries]


def library_of(source: Path) -> Path:
    """The library of a C file, where ``keisei_lightning.system.compiled`` looks for it."""
    return source.with_name(f"lib{source.parent.name}_{source.stem}.so")


def compile_library(source: Path, library: Path, environment: dict[str, str]) -> None:
    """Compile a C file, which gets its own digest as ``SOURCE_SHA256``.

    Raises:
        OSError: there is no compiler.
        subprocess.CalledProcessError: it failed.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, f'-DSOURCE_SHA256="{digest}"']
    fresh = library.with_suffix(".new")  # a running process may have the present one open
    subprocess.run(
        [*command, "-o", str(fresh), str(source)], check=True, capture_output=True, text=True, env=environment
    )
    fresh.replace(library)


def wheel_platform(library: bytes, macos: str) -> str:
    """The platform tag of a wheel with a library that was compiled here.

    Args:
        library: content of the library, or of several.
        macos: the oldest macOS that it was compiled for; ignored on other systems.

    Returns:
        Such as ``manylinux_2_17_x86_64``, ``musllinux_1_2_aarch64`` or ``macosx_11_0_arm64``; never ``linux_x86_64``,
        which package indexes refuse, on a Linux whose C library is known.
    """
    if sys.platform == "linux":
        tags = list(platform_tags())
        return linux_platform(library, next((tag for tag in tags if not tag.startswith("linux_")), tags[0]))
    if sys.platform == "darwin":
        major, minor = (int(part) for part in f"{macos}.0".split(".")[:2])
        # The compiler's own architecture, not the several ones of a universal Python; 11 and later are named by 0.
        return f"macosx_{major}_{0 if major > 10 else minor}_{platform.machine()}"
    return re.sub(r"[-.]", "_", sysconfig.get_platform())


def linux_platform(library: bytes, here: str) -> str:
    """The oldest Linux that a library runs on.

    PEP 600: ``manylinux_X_Y`` is for libraries that run wherever glibc is X.Y or newer. An ELF file names, for each
    symbol that it imports, the version of glibc that introduced it, such as ``GLIBC_2.14``; the library needs the
    newest of them. The kernels are plain C that imports a few functions of libc and no other library.

    Args:
        library: content of an ELF file. All its bytes are searched: a text that only looks like a version can make the
            tag's version newer than necessary, but not older.
        here: the tag of this machine, which holds for everything that is compiled on it. It is returned with musl,
            whose symbols have no versions, and if a name is no version (``GLIBC_ABI_DT_RELR``).
    """
    found = re.fullmatch(r"manylinux_\d+_\d+_(\w+)", here)
    names = {name.decode() for name in re.findall(rb"GLIBC_([\w.]+)", library)}
    if found is None or not all(re.fullmatch(r"\d+(\.\d+)+", name) for name in names):
        return here
    versions = (tuple(int(part) for part in name.split(".")[:2]) for name in names)
    major, minor = max([OLDEST_GLIBC, *versions])
    return f"manylinux_{major}_{minor}_{found[1]}"
