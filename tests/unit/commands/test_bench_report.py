"""What every measurement says of its machine, also where there is a GPU, and where we were never installed."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import pytest
import torch

from keisei_lightning.commands.bench import report
from keisei_lightning.commands.bench.report import describe_machine, print_report


def test_a_gpu_is_named_with_its_memory_and_its_cuda(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(name="A100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(report, "_driver", lambda: "580.1")
    machine = describe_machine()
    assert (machine["gpu"], machine["cuda"]) == ("A100, 80 GiB", "13.0, driver 580.1")
    monkeypatch.setenv("COLUMNS", "300")
    print_report("a test", [{"case": "a", "plies": 1}], as_json=False)
    assert "A100, 80 GiB, CUDA 13.0, driver 580.1" in capsys.readouterr().out


def test_without_a_gpu_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not {"gpu", "cuda"} & describe_machine().keys()


def test_a_checkout_that_was_never_installed_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def installed(name: str) -> str:
        if name == "keisei-lightning":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    versions = describe_machine()["versions"]
    assert versions["keisei-lightning"] == "not installed"
    assert versions["torch"] == version("torch")
