"""The site that `make docs` builds: what is generated is complete, links lead to the site's places, nothing warns."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from types import SimpleNamespace as Page

import pytest

import keisei_lightning
from keisei_lightning import errors
from keisei_lightning.config.reference import reference
from keisei_lightning.evaluation.registry import PLAYERS

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks.py"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", HOOKS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name_key_player_and_metric(hooks: ModuleType) -> None:
    names = set(re.findall(r"^::: keisei_lightning\.(\w+)$", hooks.api(), re.MULTILINE))
    assert names == set(keisei_lightning.__all__) - set(errors.__all__)
    keys = {key.name for section in reference() for key in section.keys}
    assert len(keys) > 80
    assert keys == set(re.findall(r"^\| `([\w.]+)` \|", hooks.configuration(), re.MULTILINE))
    players = set(re.findall(r"^## `(\w+)`$", hooks.players(), re.MULTILINE))
    assert {"random", "tactics", "usi"} <= players <= set(PLAYERS)
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    metrics = set(re.findall(r"`((?:self_play|train|eval|league)/[\w/<>]+)`", glossary))
    assert len(metrics) > 40
    assert metrics == set(re.findall(r"^\| `([\w/<>]+)` \|", hooks.metrics(), re.MULTILINE))


def test_every_reference_page_is_generated(hooks: ModuleType) -> None:
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        (name,) = re.findall(r"^<!-- generated: (\w+) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert (name, name in hooks.GENERATED) == (page.stem, True)


@pytest.mark.parametrize(
    ("place", "written", "expected"),
    [
        ("index.md", "[a](docs/how-to/gpu.md#x)", "[a](how-to/gpu.md#x)"),
        ("index.md", "![a](docs/pictures/quickstart.png)", "![a](pictures/quickstart.png)"),
        ("results/index.md", "[a](docs/results/shogi.md)", "[a](shogi.md)"),
        ("results/speed.md", "[a](../../RESULTS.md#machines)", "[a](index.md#machines)"),
        ("how-to/own_game.md", "[a](../../examples/own_game.py)", "a"),  # the site has no such page
        ("examples.md", "[a](../docs/how-to/own_game.md)", "[a](how-to/own_game.md)"),
        ("architecture.md", "[a](../SECURITY.md)", "[a](security.md)"),
        ("concepts.md", "[a](#a-batch) [b](https://example.org/x.md)", "[a](#a-batch) [b](https://example.org/x.md)"),
        ("how-to/own_game.md", "<!-- file: docs/hooks.py -->", f"```python\n{HOOKS.read_text(encoding='utf-8')}```"),
        ("concepts.md", "```python\nf[0](x.md)\n```", "```python\nf[0](x.md)\n```"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    hooks: ModuleType, place: str, written: str, expected: str
) -> None:
    page = Page(file=Page(src_uri=place))
    assert hooks.on_page_markdown(written, page=page, config=None, files=None) == expected


def test_roles_of_docstrings_become_links(hooks: ModuleType) -> None:
    html = "<p>As :class:<code>PPOModule</code>, :func:<code>~keisei_lightning.games.check_game</code>::</p>"
    assert hooks.on_page_content(html, page=None, config=None, files=None) == (
        '<p>As <autoref identifier="keisei_lightning.PPOModule" optional><code>PPOModule</code></autoref>, '
        '<autoref identifier="keisei_lightning.games.check_game" optional><code>check_game</code></autoref>:</p>'
    )


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    configuration = (tmp_path / "site" / "reference" / "configuration" / "index.html").read_text(encoding="utf-8")
    assert "parallel.num_workers" in configuration
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search("<!-- (generated|file): ", page.read_text(encoding="utf-8"))
