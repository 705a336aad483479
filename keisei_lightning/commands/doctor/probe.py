"""What can only be known by importing it: torch, the libraries beside it, and all that entry points name.

Run as a program of its own (``python -m keisei_lightning.commands.doctor.probe``): a library that was built for another
processor ends the process that imports it, and the doctor must survive that. Each line of its output is JSON: a pair of
what was tried and what came of it. A line is written before the next thing is tried.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from keisei_lightning.commands.doctor.software import LIBRARIES

__all__ = ["main"]

_REGISTRIES = {
    "game": ("keisei_lightning.games.registry", "GAMES"),
    "player": ("keisei_lightning.evaluation.registry", "PLAYERS"),
    "network": ("keisei_lightning.models.registry", "NETWORKS"),
    "encoder": ("keisei_lightning.models.encoder", "ENCODERS"),
}


def main() -> int:
    """Try everything, and print what came of it."""
    for library in LIBRARIES:
        _tell(f"import {library}", partial(_imported, library))
    if "torch" in sys.modules:
        _tell("torch", _torch)
    for kind, (module, attribute) in _REGISTRIES.items():
        _tell_registry(kind, module, attribute)
    # KiB on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _tell("memory", lambda: {"bytes": peak})
    return 0


def _tell(what: str, find: Callable[[], dict[str, Any]]) -> None:
    sys.stdout.write(json.dumps([f"{what} begins", {}]) + "\n")
    sys.stdout.flush()
    try:
        found = find()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a third party's module raises is the finding
        found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    sys.stdout.write(json.dumps([what, found]) + "\n")
    sys.stdout.flush()


def _imported(library: str) -> dict[str, Any]:
    importlib.import_module(library)
    return {}


def _torch() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda or getattr(torch.version, "hip", None),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": [],
    }
    if found["cuda"]:
        try:
            torch.cuda.init()
            for index in range(torch.cuda.device_count()):
                device = torch.cuda.get_device_properties(index)
                found["devices"].append({"name": device.name, "bytes": device.total_memory})
            torch.ones(1, device="cuda").add_(1).item()  # a build without this GPU's kernels fails only here
        except (RuntimeError, AssertionError) as error:
            found["cuda_error"] = " ".join(str(error).split())[:500]
    return found


def _tell_registry(kind: str, module: str, attribute: str) -> None:
    names: list[str] = []

    def listed() -> dict[str, Any]:
        names.extend(getattr(importlib.import_module(module), attribute).names())
        return {"names": names}

    def loaded(name: str) -> dict[str, Any]:
        getattr(importlib.import_module(module), attribute).load(name)
        return {}

    _tell(f"{kind}s", listed)
    for name in names:
        _tell(f"{kind} {name}", partial(loaded, name))


if __name__ == "__main__":
    sys.exit(main())
