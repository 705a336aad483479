"""The compiled tries do what those in NumPy do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from searches import roots_of, uneven

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.search import Found, SearchOptions, TreeSearch, compiled_tries
from keisei_lightning.search.compiled_tries import why_not_compiled

needs_library = pytest.mark.skipif(bool(why_not_compiled()), reason=f"no compiled library: {why_not_compiled()}")


def found_in(name: str, options: SearchOptions, *, compiled: bool, noise: int | None = None) -> list[Found]:
    """What two searches find that follow each other, of three boards."""
    game = game_factory(name, opening_plies=20)(3)
    game.seed(1)
    game.reset()
    source = None if noise is None else np.random.default_rng(noise)
    search = TreeSearch(uneven, game_factory(name), options, compiled=compiled, noise=source)
    first = search.run(roots_of(game))
    game.step(np.array([each.action for each in first]))
    alive = [row for row in range(3) if not game.outcome(row)]
    return first + search.run(roots_of(game, alive))


@needs_library
@pytest.mark.parametrize("leaves", [1, 40])
@pytest.mark.parametrize("method", ["gumbel", "puct"])
@pytest.mark.parametrize("name", ["connect_four", "othello", "dots_and_boxes", "shogi"])
def test_compiled_tries_find_what_those_in_numpy_find(name: str, method: str, leaves: int) -> None:
    options = SearchOptions(simulations=70, method=method, leaves=leaves)  # type: ignore[arg-type]
    noise = 3 if leaves == 40 and method == "gumbel" else None
    pairs = zip(
        found_in(name, options, compiled=True, noise=noise),
        found_in(name, options, compiled=False, noise=noise),
        strict=True,
    )
    for ours, numpys in pairs:
        assert ours.visits.tolist() == numpys.visits.tolist()
        assert ours.action == numpys.action
        assert ours.variation == numpys.variation
        assert ours.result == numpys.result
        np.testing.assert_allclose(ours.values, numpys.values, atol=1e-12)
        np.testing.assert_allclose(ours.policy, numpys.policy, atol=1e-12)


def test_without_the_library_a_search_is_made_in_numpy_and_a_demand_for_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiled_tries, "_SOURCE", tmp_path / "kernel.c")
    game = game_factory("tic_tac_toe")(1)
    game.reset()
    (found,) = TreeSearch(uneven, game_factory("tic_tac_toe"), SearchOptions(simulations=9)).run(roots_of(game))
    assert found.visits.sum() == 9
    with pytest.raises(ConfigError, match="compiled tries of a search: it was installed without a C compiler"):
        TreeSearch(uneven, game_factory("tic_tac_toe"), SearchOptions(), compiled=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler now")
@pytest.mark.slow
def test_searches_show_no_undefined_behaviour_of_the_c_code(tmp_path: Path) -> None:
    library, source = tmp_path / "checked.so", compiled_tries._SOURCE
    flags = ["-g", "-O1", "-fsanitize=undefined,bounds", "-fno-sanitize-recover=all", "-shared", "-fPIC"]
    command = ["cc", *flags, "-Wall", "-Wextra", "-Werror", '-DSOURCE_SHA256="x"', "-o", str(library), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "sanitize" in built.stderr or "ubsan" in built.stderr:
        pytest.skip("the compiler has no sanitizer here")
    assert built.returncode == 0, built.stderr
    program = f"""
import sys
from pathlib import Path
from keisei_lightning.search import compiled_tries
compiled_tries.why_not_compiled = lambda: ""
import keisei_lightning.system.compiled as compiled
compiled.library_of = lambda source: Path({str(library)!r})
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from searches import roots_of, uneven
from keisei_lightning.games import game_factory
from keisei_lightning.search import SearchOptions, TreeSearch
for method in ("gumbel", "puct"):
    game = game_factory("othello", opening_plies=30)(8)
    game.reset()
    search = TreeSearch(uneven, game_factory("othello"), SearchOptions(simulations=100, method=method), compiled=True)
    assert all(found.visits.sum() for found in search.run(roots_of(game)))
print("searched")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "searched\n"
