"""What a wheel with the compiled kernel says of the machines that it runs on."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("names", "here", "tag"),
    [
        ("GLIBC_2.2.5", "manylinux_2_36_x86_64", "manylinux_2_17_x86_64"),  # of x86-64's first glibc
        ("GLIBC_2.2.5 GLIBC_2.14", "manylinux_2_36_x86_64", "manylinux_2_17_x86_64"),
        ("GLIBC_2.17", "manylinux_2_28_aarch64", "manylinux_2_17_aarch64"),
        ("GLIBC_2.2.5 GLIBC_2.34 GLIBC_2.4", "manylinux_2_36_x86_64", "manylinux_2_34_x86_64"),
        ("GLIBC_2.2.5 GLIBC_ABI_DT_RELR", "manylinux_2_36_x86_64", "manylinux_2_36_x86_64"),
        ("", "manylinux_2_36_x86_64", "manylinux_2_17_x86_64"),
        ("libc.musl-x86_64.so.1", "musllinux_1_2_x86_64", "musllinux_1_2_x86_64"),
    ],
)
def test_a_library_runs_where_the_newest_symbol_that_it_needs_is(
    names: str, here: str, tag: str, hook: ModuleType
) -> None:
    library = b"\x7fELF" + b"\0".join(b"\0libc.so.6 memchr".split() + names.encode().split()) + b"\0"
    assert hook.linux_platform(library, here) == tag


@pytest.mark.parametrize(
    ("macos", "machine", "tag"),
    [
        ("11.0", "arm64", "macosx_11_0_arm64"),
        ("10.13", "x86_64", "macosx_10_13_x86_64"),
        ("14.2", "arm64", "macosx_14_0_arm64"),
        ("12", "arm64", "macosx_12_0_arm64"),
    ],
)
def test_on_a_mac_the_tag_is_of_what_was_compiled_not_of_a_universal_python(
    macos: str, machine: str, tag: str, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr("sysconfig.get_platform", lambda: "macosx-10.9-universal2")
    assert hook.wheel_platform(b"", macos) == tag


def initialized(hook: ModuleType, root: Path) -> dict[str, Any]:
    """What the hook tells the builder, for a source tree of its own."""
    for source in hook.SOURCES:
        (root / source).parent.mkdir(parents=True)
        shutil.copy(ROOT / source, root / source)
    data: dict[str, Any] = {"artifacts": [], "pure_python": True}
    hook.Kernels(str(root), {}, None, None, str(root), "wheel").initialize("standard", data)
    return data


def test_without_a_compiler_the_wheel_is_for_every_machine(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert initialized(hook, tmp_path) == {"artifacts": [], "pure_python": True}  # hatchling: py3-none-any
    assert "shogi and search are played without compiled code" in "".join(capfd.readouterr())


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="compiles on Linux")
def test_the_kernels_compiled_here_are_for_many_linuxes(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    data = initialized(hook, tmp_path)
    assert not data["pure_python"]
    assert data["tag"].startswith(("py3-none-manylinux_", "py3-none-musllinux_"))
    assert data["tag"].endswith(platform.machine())
    assert [Path(name).name for name in data["artifacts"]] == ["libshogi_kernel.so", "libsearch_kernel.so"]
    assert all((tmp_path / name).is_file() for name in data["artifacts"])
