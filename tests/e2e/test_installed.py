"""The package away from its checkout: a wheel that was built from an sdist, and an application that uses either."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from runs import ROOT, TINY

from keisei_lightning.config.schemas import config_dir
from keisei_lightning.games.shogi.kernel import why_no_kernel
from keisei_lightning.published import published_names

EXAMPLE = ROOT / "examples" / "own_hydra_app"
SMALLEST = (
    "env@self_play.env=tic_tac_toe",
    "self_play.parallel.num_workers=1",
    "self_play.parallel.games_per_worker=16",
    "self_play.trainer.max_epochs=2",
    "self_play.evaluation.num_games=2",
    "final_match.games=4",
    "title=The smallest study",
)

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it: the checkout is left as it is."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The wheel, unpacked as an installer does it."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(built / "site")
    return built / "site"


def run_python(words: list[str], site: Path, work: Path) -> str:
    """Standard output of a Python that finds the package in ``site``, and runs in a folder of its own."""
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_with_its_configuration_and_its_kernel(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = {file.relative_to(config_dir()) for file in config_dir().rglob("*.yaml")}
    assert {f"keisei_lightning/conf/{file}" for file in [*files, "__init__.py"]} <= names
    assert "keisei_lightning/py.typed" in names
    policies = {
        f"keisei_lightning/published/{name}{ending}" for name in published_names() for ending in (".ckpt", ".json")
    }
    assert len(policies) == 10
    assert policies <= names
    has_kernel = "keisei_lightning/games/shogi/libshogi_kernel.so" in names
    assert has_kernel == (why_no_kernel() == "")
    assert has_kernel == ("keisei_lightning/search/libsearch_kernel.so" in names)
    assert wheel.name.endswith("-py3-none-any.whl") != has_kernel
    assert "-linux_" not in wheel.name  # package indexes refuse it
    assert not any(name.startswith(("tests/", "conf/", "examples/")) for name in names)
    with tarfile.open(sdist) as archive:
        assert not any(member.issym() for member in archive)  # Windows, and archives made of archives, lose links


def test_an_installed_wheel_trains_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    words = ["-m", "keisei_lightning", "train", *TINY, "trainer.max_epochs=1", "parallel=serial"]
    run_python(words, installed, tmp_path)
    assert list(tmp_path.rglob("last.ckpt"))


@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_an_application_of_ones_own_trains(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    site = ROOT if place == "checkout" else request.getfixturevalue("installed")  # an editable install is a path, too
    app = shutil.copytree(EXAMPLE, tmp_path / "app") / "app.py"
    where = run_python(["-c", "import keisei_lightning; print(keisei_lightning.__file__)"], site, tmp_path / "work")
    assert Path(where.strip()).is_relative_to(site)
    out = run_python([str(app), *SMALLEST], site, tmp_path / "work")
    (summary,) = (tmp_path / "work").rglob("study.json")
    told = json.loads(summary.read_text(encoding="utf-8"))
    assert told["title"] == "The smallest study"
    assert 0 <= told["training_score"] <= 1
    assert 0 <= told["final_score"] <= 1
    assert f"The smallest study: policy scores {told['final_score']:.1%} against tactics" in out
    assert (summary.parent / "self_play" / "checkpoints" / "last.ckpt").is_file()
    assert re.search(r"self_play\.ckpt_path=\S*last\.ckpt self_play\.trainer\.max_epochs=4", out)  # what resumes it
