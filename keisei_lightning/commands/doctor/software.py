"""Versions, libraries, kernels, engines, extras, and what entry points name."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from keisei_lightning.commands.doctor.findings import Finding, note, ok, problem
from keisei_lightning.system.compiled import why_no_library

__all__ = [
    "LIBRARIES",
    "check_engines",
    "check_entry_points",
    "check_extras",
    "check_kernels",
    "check_versions",
    "run_probe",
]

Probe = Mapping[str, Mapping[str, Any]]
"""What the probe found, by what it tried."""

LIBRARIES: Final = ("numpy", "torch", "tensordict", "torchrl", "lightning", "hydra", "pyspiel", "rsshogi")
"""Modules that a training imports."""

_ROOT: Final = Path(__file__).parents[2]
_DISTRIBUTION: Final = "keisei-lightning"
_PROBE_S: Final = 300.0
_COMPILERS: Final = ("cc", "gcc", "clang")
_ENGINES: Final = ("fairy-stockfish", "gpsshogi", "YaneuraOu")
_ENGINE_FOLDERS: Final = ("/usr/games", "/usr/local/games")
_PACKAGES: Final = {"pyspiel": "open_spiel", "hydra": "hydra-core"}
"""Distributions of modules that have another name."""

_SLOWER: Final = {
    "games": "its moves are made by a library that Python calls for each board: several times slower",
    "search": "its trees are grown in Python: a search takes longer beside the network",
}


def run_probe(python: str = sys.executable) -> dict[str, dict[str, Any]]:
    """Import what a training imports, in a process of its own.

    Args:
        python: the interpreter.

    Returns:
        What was found, by what was tried. What ended the process, if it did not end by itself, is told as the error of
        what was being tried.
    """
    command = [python, "-P", "-m", "keisei_lightning.commands.doctor.probe"]
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH", ""), str(_ROOT.parent)) if part)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
        )
        output, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as expired:
        raw = expired.stdout or b""
        output = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        errors, code = f"it took longer than {_PROBE_S:.0f} s", 1
    found: dict[str, dict[str, Any]] = {}
    trying = "import torch"
    for line in output.splitlines():
        try:
            what, content = json.loads(line)
        except ValueError:  # what a library prints as it is imported
            continue
        trying = str(what).removesuffix(" begins")
        if trying == what:
            found[trying] = content
    if code:
        reason = signal.Signals(-code).name if code < 0 else " ".join(errors.split())[-300:] or f"exit code {code}"
        found[trying] = {"error": f"the process that imported it was ended: {reason}"}
    return found


def check_versions(probe: Probe) -> Iterator[Finding]:
    """Python and the libraries: present, importable, of versions that this package was made for."""
    version = platform.python_version()
    yield ok("versions", "python", f"{version}, {sys.executable}")
    yield ok("versions", _DISTRIBUTION, _version(_DISTRIBUTION) or f"a checkout in {_ROOT.parent}")
    wanted = _requirements()
    for module in LIBRARIES:
        package = _PACKAGES.get(module, module)
        have = _version(package)
        error = probe.get(f"import {module}", {}).get("error")
        requirement = wanted.get(package.lower(), package)
        mend = f"{sys.executable} -m pip install '{requirement}'"
        if have is None:
            yield problem("versions", package, "not installed", "no training can start", mend)
        elif error is not None:
            yield problem("versions", package, f"{have}, cannot be imported: {error}", "no training can start", mend)
        elif not _fits(requirement, have):
            meaning = f"this package was made and tested with {requirement}: what fails may be due to that"
            yield note("versions", package, have, meaning, mend)
        else:
            yield ok("versions", package, have)
    ray = _version("ray")
    if ray is not None:
        yield ok("versions", "ray", ray)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, str]:
    """What this package requires, by the package's name, such as ``torch>=2.11``; empty if it is not installed."""
    try:
        lines = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    plain = [line for line in lines if ";" not in line]
    names = ("".join(_name_of(line)).lower() for line in plain)
    return dict(zip(names, plain, strict=True))


def _name_of(requirement: str) -> Iterator[str]:
    """The characters of the name that a requirement begins with."""
    for character in requirement:
        if not (character.isalnum() or character in "-_."):
            return
        yield character


def _fits(requirement: str, version: str) -> bool:
    try:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.version import InvalidVersion
    except ImportError:  # it comes with Lightning, which may be missing
        return True
    try:
        return Requirement(requirement).specifier.contains(version, prereleases=True)
    except (InvalidRequirement, InvalidVersion):
        return True


def check_kernels() -> Iterator[Finding]:
    """The libraries that are compiled when this package is installed."""
    root = _ROOT
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    mend = "" if compiler else "sudo apt-get install gcc && "
    again = f"{sys.executable} -m pip install --force-reinstall --no-deps "
    again += f"-e {root.parent}" if (root.parent / "pyproject.toml").is_file() else _DISTRIBUTION
    for source in sorted(root.rglob("kernel.c")):
        name = source.parent.relative_to(root).as_posix()
        if reason := why_no_library(source):
            yield note("kernels", name, f"not used: {reason}", _SLOWER[name.partition("/")[0]], mend + again)
        else:
            yield ok("kernels", name, "compiled, and loads")
    if compiler:
        yield ok("kernels", "C compiler", compiler)
    else:
        meaning = "kernels cannot be compiled, nor can torch.compile (ppo.compile_mode) on a CPU"
        yield note("kernels", "C compiler", "none", meaning, "sudo apt-get install gcc")


def check_engines() -> Iterator[Finding]:
    """Engines that others have written, as opponents."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ENGINE_FOLDERS])
    found = {name: place for name in _ENGINES if (place := shutil.which(name, path=path))}
    for name, place in found.items():
        yield ok("engines", name, place)
    if _ENGINES[0] not in found:
        meaning = "fairy_stockfish(...) cannot be an opponent; all other players can"
        yield note("engines", _ENGINES[0], "none", meaning, "sudo apt-get install fairy-stockfish")


def check_extras() -> Iterator[Finding]:
    """Optional parts of this package, and what is missing of each."""
    try:
        from packaging.requirements import Requirement

        metadata = importlib.metadata.metadata(_DISTRIBUTION)
        lines = importlib.metadata.requires(_DISTRIBUTION) or []
    except (ImportError, importlib.metadata.PackageNotFoundError):
        meaning = "what its extras need is not known; its own games and players are found all the same"
        yield note("extras", _DISTRIBUTION, "a checkout, not installed", meaning, "make install")
        return
    requirements = [Requirement(line) for line in lines]
    for extra in metadata.get_all("Provides-Extra") or []:
        own = [
            one
            for one in requirements
            if one.marker and one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})
        ]
        missing = [one.name for one in own if one.name != _DISTRIBUTION and _version(one.name) is None]
        if not missing:
            yield ok("extras", extra, "installed")
        else:
            mend = f"{sys.executable} -m pip install '{_DISTRIBUTION}[{extra}]'"
            # Whoever does not use it misses nothing, so that it is no note.
            yield Finding(section="extras", name=extra, value=f"not installed: {', '.join(missing)}", remedy=mend)


def check_entry_points(probe: Probe) -> Iterator[Finding]:
    """Games, players, networks and encoders, of this package and of others: whether each can be loaded."""
    for kind in ("game", "player", "network", "encoder"):
        if error := probe.get(f"{kind}s", {"error": "not tried"}).get("error"):
            yield problem("entry points", f"{kind}s", f"cannot be listed: {error}", f"no {kind} can be found by name")
            continue
        names = probe[f"{kind}s"].get("names", [])
        errors = {name: probe.get(f"{kind} {name}", {}).get("error") for name in names}
        whole = [name for name in names if errors[name] is None]
        yield ok("entry points", f"{kind}s", ", ".join(name.rpartition(".")[2] for name in whole) or "none")
        for name, error in errors.items():
            if error is not None:
                meaning = f"a training that names this {kind} cannot start; others can"
                yield problem("entry points", f"{kind} {name}", error, meaning, _owner(kind, name))


def _owner(kind: str, name: str) -> str:
    """The command that mends the package that an entry point is of."""
    for entry in importlib.metadata.entry_points(group=f"keisei_lightning.{kind}s"):
        if entry.name == name and entry.dist is not None and entry.dist.name != _DISTRIBUTION:
            return f"{sys.executable} -m pip install --upgrade {entry.dist.name}"
    return ""
