"""What pictures of boards are made of: elements, colours for light and dark, and letters as outlines.

A picture must look the same in a browser, a notebook, an image viewer and a converter without a single font. So letters
are paths (``glyphs.json``, licence beside it), colours stand as plain attributes, and a style sheet only replaces them
where the viewer prefers dark; programs that read no style sheet show the light ones.

A picture of a board, as :func:`picture` makes it::

    <svg class="keisei">
      <title/> <style/> <defs/>
      <g class="board">            turned by half a turn where the svg element has the class "turned" too
        <g class="squares">        elements with data-part, data-x, data-y: what a person clicks, and its middle
        <g class="last">           marks of the last move
        <g class="pieces">         lets clicks through to the squares
        <g class="hands">
        <g class="coordinates">    each in a <g class="upright">, which stays upright when the board is turned
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from math import ceil
from typing import Any, Final

__all__ = ["INKS", "element", "group", "label", "letter", "picture"]

INKS: Final[Mapping[str, tuple[str, str]]] = {
    "paper": ("#fdfcf9", "#1c1d20"),
    "label": ("#57534b", "#bdb8ae"),
    "line": ("#5b4420", "#2b200f"),
    "wood": ("#efcf93", "#8d6d40"),
    "shade": ("#d3a76b", "#6f5330"),
    "last": ("#f09a2c", "#d08a2e"),
    "win": ("#12a150", "#3ddc84"),
    "piece": ("#fcefd2", "#e9d5a6"),
    "ink": ("#1c1712", "#15110c"),
    "promoted": ("#b3201a", "#a01812"),
    "black": ("#1f2933", "#101418"),
    "white": ("#f9f6ee", "#ece8de"),
    "rim": ("#1f2933", "#9aa3ab"),
    "felt": ("#2f8f5b", "#226b44"),
    "seam": ("#14532d", "#0d3a20"),
    "red": ("#cf3b2e", "#d1483b"),
    "blue": ("#2d68b8", "#3f76c4"),
    "yellow": ("#f4c430", "#e6b92f"),
    "frame": ("#2a5ea8", "#2b4f86"),
}
"""Colours by name, for light and for dark surroundings."""

_XMLNS: Final = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_TURNS: Final = (
    ".keisei.turned .board{transform:rotate(180deg);transform-origin:center;transform-box:view-box}"
    ".keisei.turned .upright{transform:rotate(180deg);transform-origin:center;transform-box:fill-box}"
)


def element(tag: str, *children: str, **attributes: object) -> str:
    """One element as text.

    Args:
        tag: its name.
        *children: elements as text.
        **attributes: by name, with ``_`` for ``-``; ``fill`` and ``stroke`` may name one of :data:`INKS`. None: left
            out.
    """
    classes = [str(attributes["class_"])] if "class_" in attributes else []
    words = []
    for key, value in attributes.items():
        if value is None or key == "class_":
            continue
        if key in ("fill", "stroke") and value in INKS:
            classes.append(f"{key}-{value}")
            value = INKS[str(value)][0]
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        name = "xlink:href" if key == "href" else key.replace("_", "-")  # older programs do not know a plain href
        words.append(f'{name}="{escape(text)}"')
    if classes:
        words.append(f'class="{escape(" ".join(classes))}"')
    head = " ".join([tag, *words])
    return f"<{head}>{''.join(children)}</{tag}>" if children else f"<{head}/>"


def group(name: str, children: Sequence[str], **attributes: object) -> str:
    """A layer of a picture, one element a line; nothing where it has none."""
    return element("g", "\n", "\n".join(children), "\n", class_=name, **attributes) if children else ""


@cache
def _outlines() -> dict[str, tuple[int, str]]:
    """Width, in 1000ths of the size, and path of each letter."""
    data: dict[str, Any] = json.loads(files(__package__).joinpath("glyphs.json").read_text(encoding="utf-8"))
    return {letter: (width, path) for letter, (width, path) in data["glyphs"].items()}


def letter(character: str, x: float, y: float, size: float, **attributes: object) -> str:
    """A letter whose middle is at a point.

    Args:
        character: one that ``glyphs.json`` has.
        x: to the right.
        y: downwards.
        size: of the em.
        **attributes: such as ``fill``.
    """
    assert character in _outlines(), character
    place = f"translate({x:.6g} {y:.6g}) scale({size / 1000:.4g})"
    return element("use", href=f"#letter-{ord(character):x}", transform=place, **attributes)


def label(text: str, x: float, y: float, size: float, **attributes: object) -> str:
    """A short text whose middle is at a point, which stays upright when the board is turned.

    Characters that ``glyphs.json`` lacks are left out.
    """
    known = [character for character in text if character in _outlines()]
    widths = [_outlines()[character][0] * size / 1000 for character in known]
    left, letters = x - sum(widths) / 2, []
    for character, width in zip(known, widths, strict=True):
        letters.append(letter(character, left + width / 2, y, size))
        left += width
    return element("g", *letters, class_="upright", **attributes) if letters else ""


def picture(layers: Sequence[str], *, width: float, height: float, title: str, shapes: Sequence[str] = ()) -> str:
    """A whole picture.

    Args:
        layers: what is on the board, the lowest first.
        width: of the view, which begins at 0, 0; rounded up.
        height: likewise.
        title: in words, for programs that read it aloud.
        shapes: elements with an ``id`` that layers use.
    """
    width, height = ceil(width), ceil(height)
    board = element("g", "\n", *(f"{layer}\n" for layer in layers if layer), class_="board")
    background = element("path", d=f"M0 0H{width}V{height}H0Z", fill="paper")
    codes = sorted(set(re.findall(r'"#letter-([0-9a-f]+)"', board + "".join(shapes))))
    letters = [element("path", id=f"letter-{code}", d=_outlines()[chr(int(code, 16))][1]) for code in codes]
    head = f'<svg {_XMLNS} class="keisei" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    defs = element("defs", "\n", *(f"{shape}\n" for shape in [*shapes, *letters]))
    style = element("style", _style())
    parts = [head, element("title", escape(title)), style, defs, background, board, "</svg>"]
    return "\n".join(part for part in parts if part)


@cache
def _style() -> str:
    """How a board is turned, and the colours for dark surroundings."""
    dark = "".join(
        f".keisei .{key}-{name}{{{key}:{ink}}}" for key in ("fill", "stroke") for name, (_, ink) in INKS.items()
    )
    return f"{_TURNS}@media (prefers-color-scheme:dark){{{dark}}}"
