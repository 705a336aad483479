"""The share of time in which a GPU runs kernels, seen from inside the process that gives it work.

:class:`ProfiledPolicy` is an ``ActorCritic`` that, wherever it is unpickled in a child process (the inference process
of ``mode="central"``), starts a thread there. The thread waits for a file, records the device's activity for a moment
(``torch.profiler``, which asks CUPTI for that of the whole process, CUDA graphs included), and leaves the trace. No
part of the library knows of it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from keisei_lightning.models import ActorCritic

__all__ = ["ProfiledPolicy", "Utilisation", "busy_share", "kernel_share"]

WINDOW_S = 0.5
_POLL_S = 0.05


class ProfiledPolicy(ActorCritic):
    """A policy that can be asked, from another process, for a trace of the device.

    Args:
        network: as of :class:`ActorCritic`.

    Attributes:
        folder: where the files lie by which the two processes speak; set it before the policy is pickled.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.folder = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if multiprocessing.parent_process() is not None and self.folder:
            threading.Thread(target=_leave_trace, args=(Path(self.folder),), name="profiler", daemon=True).start()

    def request_trace(self) -> None:
        """Let the other process record, now."""
        (Path(self.folder) / "go").touch()

    def trace(self) -> list[dict[str, Any]] | None:
        """The events recorded (Chrome's trace format); None as long as they are not there."""
        file = Path(self.folder) / "trace.json"
        if not file.exists():
            return None
        events: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
        return events


def _leave_trace(folder: Path) -> None:
    """Wait for the request, record, write; in a thread of the inference process."""
    while not (folder / "go").exists():
        time.sleep(_POLL_S)
    unfinished = folder / "unfinished.json"
    try:
        activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
        with profile(activities=[activity]) as profiler:
            time.sleep(WINDOW_S)
        profiler.export_chrome_trace(str(unfinished))
    except Exception:  # noqa: BLE001 - no CUPTI, say: the figures that need no trace are to be had all the same
        traceback.print_exc()
        unfinished.write_text('{"traceEvents": []}', encoding="utf-8")
    os.replace(unfinished, folder / "trace.json")


def busy_share(events: Iterable[dict[str, Any]], categories: Iterable[str]) -> float | None:
    """Share of time in which at least one event of some categories ran.

    The time counts from the first to the last event on the device, so what lies between the kernels counts, and the
    profiler's own start and end do not.

    Args:
        events: of a trace, times in microseconds.
        categories: such as "kernel", "gpu_memcpy", "gpu_memset".

    Returns:
        In [0, 1]; None where nothing ran on a device.
    """
    on_device = [event for event in events if event.get("ph") == "X" and event.get("cat") in _ON_DEVICE]
    if not on_device:
        return None
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in on_device if event["cat"] in set(categories))
    busy, end = 0.0, -1.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    first = min(event["ts"] for event in on_device)
    last = max(event["ts"] + event["dur"] for event in on_device)
    return float(busy / max(last - first, 1e-9))


_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def kernel_share(events: Iterable[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Share of time in kernels, and in kernels or copies."""
    events = list(events)
    return busy_share(events, ["kernel"]), busy_share(events, _ON_DEVICE)


class Utilisation:
    """NVIDIA's own "GPU utilisation", asked for while a block runs: coarser than a trace, and needs no profiler.

    Args:
        device: to ask about.

    Attributes:
        percent: mean of the samples; None where nobody answers (no GPU, no driver's library).
    """

    def __init__(self, device: torch.device) -> None:
        self.percent: float | None = None
        self._device, self._ended, self._samples = device, threading.Event(), list[float]()

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Sample while the block runs."""
        thread = threading.Thread(target=self._sample)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self.percent = sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        while not self._ended.wait(0.2):
            value = _utilisation(self._device)
            if value is None:
                return
            self._samples.append(value)


def _utilisation(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # noqa: BLE001 - it needs pynvml, which raises errors of its own
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=5).stdout
            return float(answer.split()[device.index or 0])
    return None
