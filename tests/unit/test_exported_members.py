"""What the package exports is exact, and importing it is quick and starts nothing."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import keisei_lightning

ROOT = Path(keisei_lightning.__file__).parent
MODULES = sorted(
    ".".join(["keisei_lightning", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for file in ROOT.rglob("*.py")
    if file.name != "__main__.py"
)


def test_every_public_name_is_there_and_sorted() -> None:
    assert len(set(keisei_lightning.__all__)) == len(keisei_lightning.__all__)
    assert all(getattr(keisei_lightning, name) is not None for name in keisei_lightning.__all__)
    assert set(keisei_lightning.__all__) <= set(dir(keisei_lightning))


def test_a_public_name_is_the_object_that_its_module_exports() -> None:
    assert set(keisei_lightning._MODULE_OF) == set(keisei_lightning.__all__)
    for name, module_name in keisei_lightning._MODULE_OF.items():
        module = importlib.import_module(f"keisei_lightning.{module_name}")
        assert name in module.__all__
        assert getattr(keisei_lightning, name) is getattr(module, name)


def test_every_error_is_exported() -> None:
    from keisei_lightning import errors

    assert set(errors.__all__) - {"RemoteTraceback"} <= set(keisei_lightning.__all__)


def test_the_lines_of_a_config_error_also_have_their_former_name() -> None:
    error = keisei_lightning.ConfigError(["a=1: must be 2", "b=3: must be 4"])
    assert error.errors == error.faults == ("a=1: must be 2", "b=3: must be 4")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ParallelManager'"):
        keisei_lightning.ParallelManager  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    is_package = Path(str(module.__file__)).name == "__init__.py"  # some only hold modules
    exported = getattr(module, "__all__", []) if is_package else module.__all__
    assert all(hasattr(module, public) for public in exported)
    own = [public for public in vars(module) if not public.startswith("_")]
    classes = {
        public
        for public in own
        if isinstance(getattr(module, public), type) and getattr(module, public).__module__ == name
    }
    assert classes <= set(exported), "a public class is not exported: give it an underscore or export it"


def test_the_version_is_that_of_the_installed_metadata() -> None:
    assert keisei_lightning.__version__ == version("keisei-lightning")


@pytest.mark.parametrize("module", ["keisei_lightning", "keisei_lightning.commands.main"])
@pytest.mark.slow
def test_the_command_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout == f"{keisei_lightning.__version__}\n"


@pytest.mark.slow
def test_training_runs_as_a_module() -> None:
    """A word that no key is refused: it was read."""
    words = [sys.executable, "-m", "keisei_lightning.commands.train", "ppo.gama=1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "keisei")


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_keeps_to_itself_it_uses(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    kept: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            kept.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            kept |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    private = {public for public in kept if re.match("_[^_]", public)}
    assert private <= used, f"never used: {', '.join(sorted(private - used))}"


@pytest.mark.slow
def test_importing_the_package_imports_no_torch_and_starts_nothing() -> None:
    code = (
        "import sys, threading, keisei_lightning, keisei_lightning.commands.train, keisei_lightning.commands.main\n"
        "heavy = {'torch', 'lightning', 'tensordict', 'torchrl', 'matplotlib', 'rsshogi', 'pyspiel'}\n"
        "print(sorted(heavy & sys.modules.keys()), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=6000, check=True)
    assert done.stdout.split() == ["[]", "1"]
