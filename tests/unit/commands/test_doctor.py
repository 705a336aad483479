"""``keisei doctor``: what it finds, also where torch cannot be imported, and how it says so."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei_lightning.commands.doctor import hardware, report, software
from keisei_lightning.commands.doctor.findings import Finding, note, ok, problem
from keisei_lightning.commands.doctor.software import LIBRARIES
from keisei_lightning.commands.main import main
from keisei_lightning.system.processor import processor_features, processor_name

SOUND = {
    **{f"import {library}": {} for library in LIBRARIES},
    "torch": {"version": "2.13.0+cpu", "cuda": None, "kernels": "AVX2", "threads": 2, "devices": []},
    "memory": {"bytes": 2**20},
    **{f"{kind}s": {"names": ["a"]} for kind in ("game", "player", "network", "encoder")},
    **{f"{kind} a": {} for kind in ("game", "player", "network", "encoder")},
}


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


# ---- software


def test_versions_are_ok_where_all_can_be_imported() -> None:
    found = by_name(software.check_versions(SOUND))
    assert {one.status for one in found.values()} == {"OK"}
    assert {"python", "torch", "torchrl", "tensordict", "lightning", "numpy", "rsshogi", "open_spiel"} <= found.keys()


def test_a_library_that_cannot_be_imported_or_is_not_there_is_a_problem_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = software._version
    monkeypatch.setattr(software, "_version", lambda package: None if package == "torchrl" else present(package))
    found = by_name(software.check_versions({**SOUND, "import torch": {"error": "ImportError: libcudart.so.13"}}))
    assert found["torch"].status == found["torchrl"].status == "problem"
    assert "libcudart.so.13" in found["torch"].value
    assert found["torchrl"].value == "not installed"
    assert found["torch"].remedy.startswith(f"{sys.executable} -m pip install '")


def test_a_version_that_this_package_was_not_made_for_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_requirements", lambda: {"numpy": "numpy<1.0"})
    found = by_name(software.check_versions(SOUND))
    assert (found["numpy"].status, found["numpy"].remedy.endswith("'numpy<1.0'")) == ("note", True)


def test_kernels_that_are_not_used_are_notes_that_say_what_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "why_no_library", lambda source: "it was installed without a C compiler")
    monkeypatch.setattr(software.shutil, "which", lambda name, path=None: None)
    found = by_name(software.check_kernels())
    assert {"search", "C compiler"} <= found.keys()
    assert {one.status for one in found.values()} == {"note"}
    assert "in Python" in found["search"].meaning
    assert found["search"].remedy.startswith("sudo apt-get install gcc && ")


def test_engines_are_looked_for_on_the_path_and_where_debian_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "_ENGINE_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert by_name(software.check_engines())["fairy-stockfish"].status == "note"
    engine = tmp_path / "fairy-stockfish"
    engine.write_text("#!/bin/sh\n")
    engine.chmod(0o755)
    assert by_name(software.check_engines())["fairy-stockfish"] == ok("engines", "fairy-stockfish", str(engine))


def test_an_entry_point_that_cannot_be_loaded_is_a_problem() -> None:
    assert {one.status for one in software.check_entry_points(SOUND)} == {"OK"}
    found = by_name(software.check_entry_points({**SOUND, "game a": {"error": "ImportError: no module b"}}))
    assert (found["game a"].status, found["game a"].value) == ("problem", "ImportError: no module b")
    broken = by_name(software.check_entry_points({**SOUND, "players": {"error": "no"}}))
    assert broken["players"].status == "problem"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise ImportError('libtorch.so: cannot open')", "ImportError: libtorch.so: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "the process that imported it was ended: SIGILL"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_it_runs_where_torch_cannot_be_imported_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    (tmp_path / "path" / "torch").mkdir(parents=True)
    (tmp_path / "path" / "torch" / "__init__.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "json=true"]) == 1
    out, err = capsys.readouterr()
    content_of = json.loads(out)
    torch = next(one for one in content_of["findings"] if (one["section"], one["name"]) == ("versions", "torch"))
    assert (torch["status"], reason in torch["value"]) == ("problem", True)
    assert content_of["problems"] >= 1
    assert err.startswith("keisei: doctor: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.process
@pytest.mark.slow
def test_what_is_installed_here_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probe = software.run_probe()
    assert {name for name, found in probe.items() if "error" in found} == set()
    assert "shogi" in probe["games"]["names"]
    assert probe["memory"]["bytes"] > 50 * 2**20
    assert {one.status for one in software.check_entry_points(probe)} == {"OK"}


# ---- hardware


def test_a_processors_name_and_features_are_read_from_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 amx_bf16\n")
    assert processor_name(file) == "A CPU"
    assert processor_features(file) == {"fpu", "avx2", "amx_bf16"}
    assert processor_features(tmp_path / "nosuch") == frozenset()


def test_torch_that_ignores_vector_instructions_and_a_quota_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "processor_features", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(hardware, "allowed_cpus", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    monkeypatch.setattr(hardware.psutil, "cpu_percent", lambda interval: 0.0)
    found = by_name(hardware.check_processor({"torch": {"kernels": "DEFAULT"}}))
    assert [found[name].status for name in ("torch's kernels", "CPUs", "neighbours")] == ["note"] * 3
    assert found["CPUs"].value == "2 of 64"


@pytest.mark.parametrize(("features", "told"), [({"avx2"}, False), ({"avx2", "avx512_bf16"}, True)])
def test_a_processor_that_computes_in_bf16_is_told_with_the_keys_for_it(
    features: set[str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "processor_features", lambda: frozenset(features))
    found = by_name(hardware.check_processor({}))["features"]
    assert found.status == "OK"
    assert ("trainer.precision=bf16-mixed parallel.worker_precision=bf16-mixed" in found.meaning) is told


@pytest.mark.parametrize(("free", "status"), [(10**6, "problem"), (2 * 10**9, "note"), (10**11, "OK")])
def test_memory_is_compared_with_what_the_imports_took(monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: free)
    assert by_name(hardware.check_memory({"memory": {"bytes": 10**9}}))["memory"].status == status


def test_threads_that_the_user_limits_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "allowed_cpus", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    found = by_name(hardware.check_threads())
    assert found["OMP_NUM_THREADS"].meaning == "torch learns with 4 of 8 CPUs"
    assert found["waiting"].remedy == "unset OMP_WAIT_POLICY"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("KMP_BLOCKTIME", "1")  # what `keisei` itself sets
    assert "KMP_BLOCKTIME" not in by_name(hardware.check_threads())["waiting"].value


@pytest.mark.parametrize(
    ("torch", "name", "status"),
    [
        ({"version": "2", "cuda": None, "devices": []}, "torch's build", "note"),
        ({"version": "2", "cuda": "13.0", "devices": [], "cuda_error": "too old"}, "torch's build", "problem"),
        ({"version": "2", "cuda": "13.0", "devices": []}, "torch's build", "problem"),
        ({"version": "2", "cuda": "13.0", "devices": [{"name": "H", "bytes": 2**36}]}, "torch's build", "OK"),
        ({}, "device", "OK"),
    ],
)
def test_a_gpu_that_torchs_build_cannot_use_is_told(
    monkeypatch: pytest.MonkeyPatch, torch: dict[str, object], name: str, status: str
) -> None:
    monkeypatch.setattr(hardware, "_driver", lambda: "570.1")
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda query: ["H, 80 GiB"])
    assert by_name(hardware.check_gpu({"torch": torch} if torch else {}))[name].status == status


def test_without_a_gpu_there_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_driver", lambda: None)
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda query: [])
    assert [one.status for one in hardware.check_gpu(SOUND)] == ["OK"]
    assert "is of no use here" in next(hardware.check_gpu({"torch": {"cuda": "13.0", "devices": []}})).meaning


def test_results_that_cannot_be_written_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert next(hardware.check_disk(str(tmp_path / "file" / "results"))).status == "problem"
    assert "GiB free" in next(hardware.check_disk(str(tmp_path / "new"))).value
    assert not (tmp_path / "new").exists()


def test_the_limits_are_those_of_the_training_itself() -> None:
    found = by_name(hardware.check_limits())
    assert {"workers", "open files"} <= found.keys()


# ---- the report


def test_text_is_80_columns_wide_and_plain_where_there_is_no_terminal() -> None:
    findings = [
        ok("one", "a", "fine"),
        note("one", "b", "word " * 40, "meaning " * 30, "mend this"),
        problem("two", "c", "bad\x1b[2J", "no training", ""),
    ]
    text = report.as_text(findings)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    assert lines[:2] == ["one", "OK       a: fine"]
    assert "           $ mend this" in lines
    assert lines[-1] == "1 problem (two c), 1 note"


def test_json_counts_notes_and_problems() -> None:
    content = json.loads(report.as_json([ok("one", "a", "fine"), note("one", "b", "so", "what")]))
    assert (content["problems"], content["notes"], len(content["findings"])) == (0, 1, 2)
    assert content["findings"][1] == {
        **{"section": "one", "name": "b", "value": "so", "status": "note", "meaning": "what", "remedy": ""}
    }
