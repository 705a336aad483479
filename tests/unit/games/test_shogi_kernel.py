"""The compiled boards of shogi against rsshogi's: every array of every ply, in all kinds of positions."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from game_helpers import look, play
from numpy.typing import NDArray
from rsshogi.core import Board

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import NO_MOVE, game_factory
from keisei_lightning.games.shogi import kernel as shogi_kernel
from keisei_lightning.games.shogi.codec import CHECK_BYTE, HANDS_START, NUM_ACTIONS
from keisei_lightning.games.shogi.game import OUTCOMES, Shogi
from keisei_lightning.games.shogi.kernel import why_no_kernel
from keisei_lightning.system.compiled import library_of

ROOT = Path(__file__).parents[3]
NUM_GAMES = 64
DROPS = np.arange(NUM_ACTIONS) >= 20 * 81
# Games that begin here know double checks, pins, long sliders, full hands and entered kings from their first ply.
STARTS = [
    "startpos",
    "l6nl/5+P1gk/2np1S3/p1p4Pp/3P2Sp1/1PPb2P1P/P5GS1/R8/LN4bKL w RGgsn5p 1",
    "R8/2K1S1SSk/4B4/9/9/9/9/9/1L1L1L3 b RBGSNLP3g3n17p 1",
    "4k4/9/9/9/9/9/9/9/4K4 b 2R2B4G4S4N4L18P 1",
    "4k4/9/9/9/9/9/9/9/4K4 w RBGSNL9Prb3g3s3n3l9p 1",
    "+R+B2K4/1+P+P+P+P+P3/9/9/9/9/9/3+p+p+p+p+p1/4k2+b+r b GSNLgsnl 1",
    "lnsgk2nl/1r4gs1/p1pppp1pp/6p2/1p5P1/2P6/PPSPPPP1P/7R1/LN1GKGSNL b Bb 1",
]

pytestmark = pytest.mark.skipif(bool(why_no_kernel()), reason=f"the shogi kernel is not compiled: {why_no_kernel()}")


def weights_of_moves(observation: NDArray[np.uint8], mask: NDArray[np.bool_], taste: str) -> NDArray[np.float32]:
    """How much a random player likes each legal move: [G, A]."""
    liking = mask.astype(np.float32)
    if taste == "drops":
        liking *= np.where(DROPS, 4.0, 1.0).astype(np.float32)
    if taste == "captures":
        targets = np.arange(NUM_ACTIONS) % 81
        liking *= np.where((observation[:, targets] > 14) & ~DROPS, 6.0, 1.0).astype(np.float32)
    return liking


@pytest.mark.parametrize(
    "taste",
    ["any move", pytest.param("drops", marks=pytest.mark.slow), pytest.param("captures", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("start", STARTS, ids=range(len(STARTS)))
def test_random_games_are_the_same_number_by_number(start: str, taste: str) -> None:
    options = {"max_plies": 200, "opening_plies": 30 if start == "startpos" else 0}
    ours, oracle = (Shogi(NUM_GAMES, kernel=kernel, **options) for kernel in (True, False))  # type: ignore[arg-type]
    rng = np.random.default_rng([STARTS.index(start), len(taste)])

    def begin(indices: NDArray[np.int64]) -> None:
        for game in (ours, oracle):
            game.reset(indices)
            for index in indices.tolist() if start != "startpos" else ():
                game.set_position(index, start)

    begin(np.arange(NUM_GAMES))
    num_checks = 0
    for _ in range(100):
        view, expected = look(ours), look(oracle)
        for array, other in zip(view, expected, strict=True):
            np.testing.assert_array_equal(array, other)
        num_checks += int(view.observation[:, CHECK_BYTE].sum())
        liking = weights_of_moves(view.observation, view.mask, taste)
        actions = (liking * rng.random(liking.shape, dtype=np.float32)).argmax(axis=1)
        result, other_result = ours.step(actions), oracle.step(actions)
        np.testing.assert_array_equal(result.reward, other_result.reward)
        np.testing.assert_array_equal(result.terminated, other_result.terminated)
        over = np.flatnonzero(result.terminated)
        assert [ours.outcome(index) for index in over] == [oracle.outcome(index) for index in over]
        begin(over)
    for index in range(0, NUM_GAMES, 8):
        assert ours.history(index) == oracle.history(index)
        assert ours.position(index) == oracle.position(index)
        assert ours.usi(index) == oracle.usi(index)
    assert num_checks > 50


@pytest.mark.slow
def test_all_ends_of_long_random_games_are_the_same() -> None:
    ours, oracle = (Shogi(256, max_plies=600, opening_plies=60, kernel=kernel) for kernel in (True, False))
    rng, outcomes = np.random.default_rng(3), set()
    for ply in range(600):
        view = look(ours)
        liking = weights_of_moves(view.observation, view.mask, "any move")
        # Little choice, so that positions recur.
        liking[:128] *= np.where(np.arange(NUM_ACTIONS) < 3 * 81, 1.0, 1e-3).astype(np.float32)
        actions = (liking * rng.random(liking.shape, dtype=np.float32)).argmax(axis=1)
        result, other = ours.step(actions), oracle.step(actions)
        np.testing.assert_array_equal(result.reward, other.reward)
        over = np.flatnonzero(result.terminated)
        assert [ours.outcome(index) for index in over] == [oracle.outcome(index) for index in over]
        outcomes |= {ours.outcome(index) for index in over}
        for game in (ours, oracle):
            game.reset(over)
        if ply % 50 == 0:
            np.testing.assert_array_equal(look(ours).observation, look(oracle).observation)
    assert outcomes <= set(OUTCOMES)
    assert {"checkmate", "max plies"} <= outcomes


def test_games_longer_than_the_first_memory_keep_their_history() -> None:
    game, oracle = (Shogi(2, max_plies=2000, declaration=False, kernel=kernel) for kernel in (True, False))
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(1200):
        mask = look(game).mask
        actions = (mask * rng.random(mask.shape)).argmax(axis=1)
        result = game.step(actions)
        oracle.step(actions)
        over = np.flatnonzero(result.terminated)
        assert (over == np.flatnonzero([oracle.outcome(index) != "" for index in range(2)])).all()
        for one in (game, oracle):
            one.reset(over)
        most = max(most, len(game._boards.played(0)))
    assert most > shogi_kernel._FIRST_CAPACITY
    assert game.history(0) == oracle.history(0)
    again = Shogi(1, max_plies=2000, declaration=False, kernel=True)
    again.set_history(0, game.history(0))
    np.testing.assert_array_equal(look(again).observation[0], look(game).observation[0])
    np.testing.assert_array_equal(look(again).mask[0], look(game).mask[0])


def test_repetitions_are_counted_on_through_a_history() -> None:
    game = Shogi(1, kernel=True)
    there_and_back = ("2h3h", "8b7b", "3h2h", "7b8b")
    play(game, *there_and_back, *there_and_back)
    again = Shogi(1, kernel=True)
    again.set_history(0, game.history(0))
    play(again, *there_and_back)
    assert again.outcome(0) == "repetition"


def test_a_board_that_was_asked_for_goes_on_with_its_game() -> None:
    game = Shogi(1, kernel=True)
    expected = Board()
    for move in ("7g7f", "3c3d", "8h2b+", "3a2b", "B*4e"):
        assert game.position(0) == expected.to_sfen()  # each time the rest of the moves is made
        play(game, move)
        expected.apply_usi(move)
    game.reset()
    assert game.position(0) == Board().to_sfen()


def test_boards_that_sit_out_or_are_over_stay_as_they_are() -> None:
    game = Shogi(3, max_plies=2, kernel=True)
    before = look(game)
    game.step(np.array([NO_MOVE, int(np.flatnonzero(before.mask[1])[0]), NO_MOVE]))
    after = look(game)
    for index in (0, 2):
        np.testing.assert_array_equal(after.observation[index], before.observation[index])
    game.step(np.array([NO_MOVE, int(np.flatnonzero(after.mask[1])[0]), NO_MOVE]))
    assert game.outcome(1) == "max plies"
    assert not look(game).mask[1].any()
    assert look(game).observation[1, HANDS_START : HANDS_START + 14].sum() == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "it was installed without a C compiler"), (b"no library", "it cannot be loaded: ")],
)
def test_without_a_library_shogi_is_played_by_rsshogi_and_a_demand_for_it_is_refused(
    content: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "kernel.c"
    if content is not None:
        library_of(source).write_bytes(content)
    monkeypatch.setattr(shogi_kernel, "_SOURCE", source)
    shogi_kernel.load_kernel.cache_clear()
    try:
        assert look(Shogi(1)).mask.sum() == 30
        with pytest.raises(ConfigError, match=rf"shogi: kernel=True, but there is no compiled library: {reason}"):
            game_factory("shogi", kernel=True)(1)
    finally:
        shogi_kernel.load_kernel.cache_clear()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler now")
@pytest.mark.slow
def test_random_games_show_no_undefined_behaviour_of_the_c_code(tmp_path: Path) -> None:
    library = tmp_path / "checked.so"
    digest = hashlib.sha256(shogi_kernel._SOURCE.read_bytes()).hexdigest()
    flags = ["-g", "-O1", "-fsanitize=undefined,bounds", "-fno-sanitize-recover=all", "-shared", "-fPIC"]
    command = ["cc", *flags, "-Wall", "-Wextra", "-Werror", f'-DSOURCE_SHA256="{digest}"']
    built = subprocess.run(
        [*command, "-o", str(library), str(shogi_kernel._SOURCE)], capture_output=True, text=True, check=False
    )
    if "sanitize" in built.stderr or "ubsan" in built.stderr:
        pytest.skip("the compiler has no sanitizer here")
    assert built.returncode == 0, built.stderr
    program = f"""
import sys
from pathlib import Path
import numpy as np
from keisei_lightning.system import compiled
compiled.library_of = lambda source: Path({str(library)!r})
sys.path.insert(0, {str(Path(__file__).parent)!r})
from game_helpers import look
from keisei_lightning.games.shogi.game import Shogi
rng, game = np.random.default_rng(0), Shogi(32, opening_plies=40, kernel=True)
for _ in range(300):
    mask = look(game).mask
    step = game.step((mask * rng.random(mask.shape)).argmax(axis=1))
    game.reset(np.flatnonzero(step.terminated))
print("played")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "played\n", done.stderr
