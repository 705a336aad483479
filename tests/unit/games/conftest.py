"""Shogi's tests are run on both kinds of boards."""

from __future__ import annotations

import pytest

from keisei_lightning.games.shogi import game as shogi
from keisei_lightning.games.shogi.kernel import why_no_kernel


@pytest.fixture(params=["kernel", "library"])
def shogi_boards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Games of shogi that do not say so themselves take the compiled boards, then rsshogi's."""
    if request.param == "library":
        monkeypatch.setattr(shogi, "load_kernel", lambda: None)
    elif reason := why_no_kernel():
        pytest.skip(f"the shogi kernel is not compiled: {reason}")
