"""A game as one SVG that plays by itself, made of the pictures of its positions.

Each element of the pictures is in the file once, with the times at which it is shown: a game of a hundred plies takes
a few times the size of one picture. Programs that do not animate (converters, most image viewers) show the last
position.

References:
    W3C, "SVG Animations Level 2", the element ``animate``: https://svgwg.org/specs/animations/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import GameFactory

__all__ = ["animate_game", "animate_pictures"]

_SVG: Final = "http://www.w3.org/2000/svg"
_FOR_CLICKS: Final = ("data-part", "data-x", "data-y", "pointer-events")


def animate_game(
    game: GameFactory, start: str, actions: Sequence[int], *, ply_s: float = 1.0, pause_s: float = 4.0
) -> str:
    """Play a game again, and draw it as one SVG that plays by itself.

    Args:
        game: makes the board.
        start: the position in which the game began, as :meth:`~keisei_lightning.games.protocol.Game.position` tells it.
        actions: labels of all moves.
        ply_s: how long each position is shown, in seconds.
        pause_s: how much longer the last one is shown, in seconds.

    Raises:
        GameError: the position cannot be read, or a time is out of range.
        IllegalActionError: an action is not legal in its position.
    """
    board = game(1)
    board.reset()
    board.set_position(0, start)
    pictures = [board.render(0, "svg")]
    for action in actions:
        board.step(np.array([action]))
        pictures.append(board.render(0, "svg"))
    return animate_pictures(pictures, ply_s=ply_s, pause_s=pause_s)


def animate_pictures(pictures: Sequence[str], *, ply_s: float = 1.0, pause_s: float = 4.0) -> str:
    """One SVG that shows pictures one after another, pauses on the last one, and begins anew.

    Args:
        pictures: SVG elements of one size, such as those of :meth:`~keisei_lightning.games.protocol.Game.render`.
        ply_s: how long each is shown, in seconds.
        pause_s: how much longer the last one is shown, in seconds.

    Raises:
        GameError: there is no picture, two differ in size, or a time is out of range.
    """
    if ply_s <= 0 or pause_s < 0:
        raise GameError(f"an animation needs ply_s above 0 and pause_s of at least 0, not {ply_s:g} and {pause_s:g}")
    roots = [ElementTree.fromstring(picture) for picture in pictures]
    if not roots or any(root.attrib != roots[0].attrib for root in roots):
        raise GameError("an animation needs pictures of one size")
    for prefix, name in (("", _SVG), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, name)
    merged = _merged(dict(enumerate(roots)), _Clock(len(roots), ply_s, pause_s))
    return ElementTree.tostring(merged, encoding="unicode")


class _Clock:
    """When each of a number of frames is shown.

    Args:
        num_frames: how many.
        ply_s: for how long each.
        pause_s: how much longer the last one.
    """

    def __init__(self, num_frames: int, ply_s: float, pause_s: float) -> None:
        self.num_frames = num_frames
        self._total_s = num_frames * ply_s + pause_s
        self._ply = ply_s / self._total_s

    def show(self, drawn: Element, frames: Sequence[int]) -> None:
        """Show an element in some frames only; without animation, if the last one is among them."""
        shown = np.isin(np.arange(self.num_frames), frames).astype(int)
        changes = [0, *(np.flatnonzero(np.diff(shown)) + 1).tolist()]
        if len(changes) == 1:
            return
        drawn.set("opacity", str(shown[-1]))
        times = {
            "values": ";".join(str(shown[frame]) for frame in changes),
            "keyTimes": ";".join(f"{frame * self._ply:.5f}".strip("0").rstrip(".") or "0" for frame in changes),
            "dur": f"{self._total_s:g}s",
        }
        attributes = {"attributeName": "opacity", "calcMode": "discrete", "repeatCount": "indefinite", **times}
        drawn.append(Element(f"{{{_SVG}}}animate", attributes))


def _merged(frames: dict[int, Element], clock: _Clock | None) -> Element:
    """One element with all children that an element has in some frames.

    Args:
        frames: the element in each frame in which it is.
        clock: when children are shown; None: all the time that their parent is.
    """
    last = frames[max(frames)]
    merged = Element(last.tag, {key: value for key, value in last.attrib.items() if key not in _FOR_CLICKS})
    merged.text, merged.tail = last.text, last.tail
    order: list[tuple[str, int]] = []
    found: dict[tuple[str, int], dict[int, Element]] = {}
    for frame, parent in frames.items():
        at, seen = 0, Counter[str]()
        for child in parent:
            key = _key(child)
            numbered = key, seen[key]
            seen[key] += 1
            if numbered not in found:
                found[numbered] = {}
                order.insert(at, numbered)  # after what is below it in this frame
            # Nearly always it is the next one; where two pictures differ in their order it may be before.
            at = order.index(numbered, at if numbered in order[at : at + 8] else 0) + 1
            found[numbered][frame] = child
    for children in (found[numbered] for numbered in order):
        drawn = next(iter(children.values()))
        changes = clock is not None and _tag(drawn) not in ("defs", "style", "title")
        child = _merged(children, clock if changes and _is_layer(drawn) else None)
        if clock is not None and changes and not _is_layer(drawn):
            clock.show(child, list(children))
        merged.append(child)
    return merged


def _key(child: Element) -> str:
    """What tells a child from others: all of it, or of a layer, which gathers what it has in all frames, its name."""
    if _is_layer(child):
        return f"{child.tag} {sorted(child.attrib.items())}"
    if _tag(child) in ("defs", "title"):
        return child.tag
    return ElementTree.tostring(child, encoding="unicode").strip()


def _is_layer(drawn: Element) -> bool:
    return _tag(drawn) == "g" and drawn.get("class", "upright") != "upright"


def _tag(drawn: Element) -> str:
    return drawn.tag.rpartition("}")[2]
