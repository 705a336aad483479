"""A browser for the tests of the site: Debian's Chromium, steered by Playwright."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 120_000
"""When a test gives up what it waits for: far beyond what a machine that is busy with other work may need."""

AXE = "axe-core@4.14.1"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
SCREENSHOTS = os.environ.get("KEISEI_SCREENSHOTS")
"""A folder for pictures of what the tests see; they look at it alone where it is named."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser of the test's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages; an error on one of them, or a breach of the site's own policy, fails the test."""
    errors: list[str] = []

    def make(**options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 860}, **options})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        return page

    yield make
    assert errors == []


@pytest.fixture
def shoot() -> Callable[..., None]:
    """Keeps a picture of a page where a person wants one."""

    def keep(page: Page, name: str, **options: Any) -> None:
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", **options)

    return keep


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker axe-core (MPL-2.0), fetched by npm once, for the tests alone."""
    cache = getattr(pytestconfig, "cache", None)
    archive = (cache.mkdir("axe") if cache else tmp_path_factory.mktemp("axe")) / "axe-core-4.14.1.tgz"
    if not archive.is_file():
        if shutil.which("npm") is None:
            pytest.skip("needs npm, to fetch axe-core")
        fetched = subprocess.run(["npm", "pack", "--silent", AXE], cwd=archive.parent, capture_output=True, timeout=300)
        if fetched.returncode:
            pytest.skip("npm could not fetch axe-core")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == AXE_SHA256
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
