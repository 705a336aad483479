"""Two programs that have nothing in common draw the pictures of boards alike: librsvg and Chromium."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keisei_lightning.games import game_factory, make_game
from keisei_lightning.games.svg_animation import animate_game

RSVG = shutil.which("rsvg-convert")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(RSVG is None, reason="rsvg-convert (Debian's librsvg2-bin) is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

# Every kind of promoted piece, and pieces in both hands.
SHOGI = "l3k4/2+R2s1g1/3p1p+Sp1/p1p1p1p1p/1n5P1/P1P1P1P1P/1P1P1+p3/1KS2+n+b2/L+N1G3+s+l b BGPrgnl 81"
POSITIONS = {
    "shogi": SHOGI,
    "tic_tac_toe": "4 0 8",
    "connect_four": "3 3 2 4 4 4",
    "othello": "19 18",
    "breakthrough": "98 584",
    "hex(board_size=5)": "7 11 12 3",
    "go(board_size=5)": "12 7 13",
    "havannah(board_size=3)": "2 7 10",
    "checkers": "322 140",
    "dots_and_boxes": "0 4 6",
}
Pixels = NDArray[np.float64]


def by_rsvg(svg: str) -> Pixels:
    assert RSVG is not None
    done = subprocess.run([RSVG], input=svg.encode(), capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB"), dtype=np.float64)


def by_chromium(svgs: Sequence[str], folder: Path, *, dark: bool = False, script: str = "") -> list[Pixels]:
    """All pictures on one page, below one another, cut out of one screenshot."""
    assert CHROMIUM is not None
    sizes = [
        (int(float(root.get("width", ""))), int(float(root.get("height", ""))))
        for root in map(ElementTree.fromstring, svgs)
    ]
    page = "".join(f'<div style="height:{height}px">{svg}</div>' for svg, (_, height) in zip(svgs, sizes, strict=True))
    file, shot = folder / "page.html", folder / "shot.png"
    file.write_text(f'<meta charset="utf-8"><body style="margin:0">{page}<script>{script}</script>', encoding="utf-8")
    width, height = max(width for width, _ in sizes), sum(height for _, height in sizes)
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--force-device-scale-factor=1"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += [f"--window-size={max(600, width)},{height + 200}", f"--screenshot={shot}", file.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    whole = np.asarray(Image.open(shot).convert("RGB"), dtype=np.float64)
    tops = np.cumsum([0, *(height for _, height in sizes)])
    return [whole[top : top + height, :width] for top, (width, height) in zip(tops, sizes, strict=False)]


def difference(one: Pixels, other: Pixels) -> float:
    """The largest difference of the mean colours of squares of 12 x 12 pixels, of 255."""
    height, width = (size // 12 * 12 for size in one.shape[:2])
    cells = [
        image[:height, :width].reshape(height // 12, 12, width // 12, 12, 3).mean((1, 3)) for image in (one, other)
    ]
    return float(abs(cells[0] - cells[1]).max())


@pytest.fixture(scope="module")
def pictures() -> list[str]:
    drawn = []
    for name, position in POSITIONS.items():
        game = make_game(name, 1)
        game.reset()
        game.set_position(0, position)
        drawn.append(game.render(0, "svg"))
    return drawn


def test_two_programs_draw_every_board_alike(pictures: list[str], tmp_path: Path) -> None:
    for svg, shot in zip(pictures, by_chromium(pictures, tmp_path), strict=True):
        image = by_rsvg(svg)
        assert image.shape == shot.shape
        assert difference(image, shot) < 15
        assert difference(image, shot[::-1]) > 60  # so much do other pictures differ


def test_dark_pictures_are_dark(pictures: list[str], tmp_path: Path) -> None:
    light, dark = by_chromium(pictures, tmp_path), by_chromium(pictures, tmp_path, dark=True)
    for one, other in zip(light, dark, strict=True):
        assert one[1, 1].min() > 240
        assert other[1, 1].max() < 40
        assert other.mean() < one.mean() - 60


def test_a_turned_board_is_the_board_turned_but_for_its_coordinates(pictures: list[str], tmp_path: Path) -> None:
    root = ElementTree.fromstring(pictures[0])
    upright = [group for group in root.iter() if group.get("class", "").startswith("upright")]
    assert len(upright) >= 27
    turned = [svg.replace('class="keisei"', 'class="keisei turned"', 1) for svg in pictures]
    as_it_is, shots = by_chromium(pictures, tmp_path), by_chromium(turned, tmp_path)
    board = (slice(40, -40), slice(100, -100))  # of shogi, without coordinates and hands
    assert difference(as_it_is[0][::-1, ::-1][board], shots[0][board]) < 15
    assert difference(as_it_is[0][board], shots[0][board]) > 60


def test_an_animation_shows_each_position_in_its_second_and_without_animation_the_last_one(tmp_path: Path) -> None:
    factory = game_factory("connect_four")
    svg = animate_game(factory, "-", [3, 3, 2, 4])
    game = factory(1)
    game.reset()
    expected = [game.render(0, "svg")]
    for action in (3, 3, 2, 4):
        game.step(np.array([action]))
        expected.append(game.render(0, "svg"))
    assert difference(by_rsvg(svg), by_rsvg(expected[-1])) == 0
    moments = {0.5: 0, 1.5: 1, 3.5: 3, 8.5: 4, 9.5: 0, 12.5: 3}  # seconds, with the pause and the second time
    script = "".join(
        f"s=document.querySelectorAll('svg')[{at}];s.pauseAnimations();s.setCurrentTime({moment});"
        for at, moment in enumerate(moments)
    )
    shots = by_chromium([svg] * len(moments), tmp_path, script=script)
    for shot, (moment, ply) in zip(shots, moments.items(), strict=True):
        differences = [difference(shot, by_rsvg(picture)) for picture in expected]
        assert np.argmin(differences) == ply, moment
        assert differences[ply] < 15
