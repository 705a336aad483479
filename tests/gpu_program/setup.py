"""Makes a bare checkout runnable: packages from a folder of wheels, entry points, the compiled kernel.

What is measured is always the source of this checkout. Where it is not installed, a folder on the path gets what an
installation would have given: metadata with the version and the entry points. The compiled boards of shogi are built
where they are missing, or were built from other source.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "build_kernels", "install_wheels", "part_environment", "source_head", "write_metadata"]

ROOT = Path(__file__).resolve().parents[2]
_KERNELS = [ROOT / "keisei_lightning" / room / "kernel.c" for room in ("games/shogi", "search")]
_SOURCES = ("keisei_lightning", "conf", "tests", "train.py", "pyproject.toml")


def install_wheels(wheels: Path, target: Path) -> str:
    """Install every wheel of a folder into another, without network and without what they depend on.

    Returns:
        What went wrong; empty where nothing did.
    """
    files = sorted(str(file) for file in wheels.glob("*.whl"))
    if not files:
        return f"{wheels} holds no wheels"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(target), *files],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"pip: {(done.stderr or done.stdout).strip()[-1000:]}" if done.returncode else ""


def write_metadata(target: Path) -> bool:
    """Give the checkout the metadata of an installed package, unless it is installed.

    Args:
        target: a folder on the path of the parts.

    Returns:
        Whether it was written.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        importlib.metadata.distribution(project["name"])
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        return False
    package = (ROOT / "keisei_lightning" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"', package, re.MULTILINE)
    assert found
    folder = target / f"{project['name'].replace('-', '_')}-{found[1]}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {found[1]}\n")
    lines: list[str] = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return True


def build_kernels() -> str:
    """Compile each C file beside it where that has not been done.

    Returns:
        A few words for the report. Whether the libraries can be used, the environment's part tells.
    """
    return ", ".join(f"{source.parent.name} {_build(source)}" for source in _KERNELS)


def _build(source: Path) -> str:
    library = source.with_name(f"lib{source.parent.name}_{source.stem}.so")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if library.exists() and digest.encode() in library.read_bytes():
        return "was there"
    fresh = library.with_suffix(".new")
    command = [*shlex.split(os.environ.get("CC", "cc")), *_kernel_flags(), f'-DSOURCE_SHA256="{digest}"']
    try:
        subprocess.run([*command, "-o", str(fresh), str(source)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"not built: {' '.join(str(getattr(error, 'stderr', None) or error).split())[:300]}"
    fresh.replace(library)
    return "built"


def _kernel_flags() -> list[str]:
    """The compiler's flags as ``hatch_build.py`` has them; it cannot be imported where hatchling is missing."""
    for node in ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == [
            "FLAGS"
        ]:
            return [str(flag) for flag in ast.literal_eval(node.value)]
    raise LookupError("hatch_build.py: no FLAGS")


def part_environment(target: Path) -> dict[str, str]:
    """The variables of every part: the checkout comes first on the path, then the target, then what was there."""
    paths = [str(ROOT), str(target), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}


def source_head() -> dict[str, str]:
    """Which source this is: a digest of the files, and git's commit where its folder is there."""
    digest = hashlib.sha256()
    for file in _source_files():
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return {"source_sha256": digest.hexdigest()[:16], "commit": _commit()}


def _source_files() -> Iterator[Path]:
    suffixes = {".py", ".c", ".yaml", ".toml"}
    for name in _SOURCES:
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and file.suffix in suffixes)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"
