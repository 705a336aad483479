"""Every test here runs on the CPU, and once more on the first GPU where there is one (marker ``gpu``)."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where networks learn and play."""
    name: str = request.param
    return name
