"""A game as one SVG that plays by itself."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from game_helpers import look, random_actions

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games import game_factory
from keisei_lightning.games.svg_animation import animate_game, animate_pictures


def picture(*inner: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{"".join(inner)}</svg>'


def elements(svg: str, tag: str) -> list[Element]:
    return [each for each in ElementTree.fromstring(svg).iter() if each.tag.endswith(f"}}{tag}")]


def times_of(drawn: Element) -> tuple[str, ...]:
    """Values and times of the animation in an element."""
    (animate,) = drawn
    keys = ("attributeName", "calcMode", "repeatCount", "values", "keyTimes", "dur")
    return tuple(animate.get(key, "") for key in keys)


def test_what_is_in_every_picture_is_drawn_once_and_not_animated() -> None:
    svg = animate_pictures([picture("<rect/>", f'<circle r="{ply}"/>') for ply in range(3)])
    assert len(elements(svg, "rect")) == 1
    assert list(elements(svg, "rect")[0]) == []
    assert sorted(circle.get("r", "") for circle in elements(svg, "circle")) == ["0", "1", "2"]


def test_an_element_is_shown_in_its_frames_and_the_last_ones_without_animation() -> None:
    frames = [picture("<circle/>"), picture(), picture("<circle/>"), picture("<circle/>", "<rect/>")]
    svg = animate_pictures(frames, ply_s=2, pause_s=8)
    ((circle,), (rect,)) = elements(svg, "circle"), elements(svg, "rect")
    always = ("opacity", "discrete", "indefinite")
    assert times_of(circle) == (*always, "1;0;1", "0;.125;.25", "16s")
    assert times_of(rect) == (*always, "0;1", "0;.375", "16s")
    assert (circle.get("opacity"), rect.get("opacity")) == ("1", "1")
    svg = animate_pictures(frames[:2], ply_s=1, pause_s=0)
    assert elements(svg, "circle")[0].get("opacity") == "0"


def test_what_lies_above_another_thing_stays_above_it() -> None:
    below, above, later = "<a/>", "<b/>", "<c/>"
    svg = animate_pictures([picture(below, above), picture(below, later, above)])
    assert [child.tag[-1] for child in ElementTree.fromstring(svg)] == ["a", "c", "b"]


def test_layers_gather_their_elements_and_definitions_are_always_there() -> None:
    one = picture("<defs><path id='p'/></defs>", "<g class='pieces'><use x='1'/></g>", "<title>one</title>")
    two = picture("<defs><path id='q'/></defs>", "<g class='pieces'><use x='2'/></g>", "<title>two</title>")
    svg = animate_pictures([one, two])
    (layer,) = elements(svg, "g")
    assert sorted(use.get("x", "") for use in layer) == ["1", "2"]
    assert sorted((path.get("id"), len(path)) for path in elements(svg, "path")) == [("p", 0), ("q", 0)]
    assert [title.text for title in elements(svg, "title")] == ["two"]


@pytest.mark.parametrize(
    ("pictures", "options", "reason"),
    [
        ([], {}, "pictures of one size"),
        ([picture(), picture().replace("9 9", "8 8")], {}, "pictures of one size"),
        ([picture()], {"ply_s": 0}, "ply_s above 0 and pause_s of at least 0, not 0 and 4"),
        ([picture()], {"pause_s": -1}, "not 1 and -1"),
    ],
)
def test_what_cannot_be_animated_is_refused(pictures: list[str], options: dict[str, float], reason: str) -> None:
    with pytest.raises(GameError, match=reason):
        animate_pictures(pictures, **options)


@pytest.mark.parametrize("name", ["shogi", "othello"])
def test_every_position_of_a_game_is_in_its_frame(name: str) -> None:
    """What an animation shows in a frame is what the position's own picture draws."""
    factory = game_factory(name)
    game, rng, actions = factory(1), np.random.default_rng(1), []
    game.reset()
    start, pictures = game.position(0), [game.render(0, "svg")]
    for _ in range(40):
        actions.append(int(random_actions(look(game).mask, rng)[0]))
        game.step(np.array(actions[-1:]))
        pictures.append(game.render(0, "svg"))
    svg = animate_game(factory, start, actions, ply_s=1, pause_s=0)
    assert len(svg) < 4 * len(pictures[-1])
    for frame, drawn in enumerate(pictures):
        moment = frame / len(pictures) + 1e-4
        assert shown(svg, moment) == shown(drawn, moment)


def shown(svg: str, moment: float) -> list[str]:
    """Pieces and marks that are seen at a moment, a share of the whole."""
    seen = []
    for group in elements(svg, "g"):
        for child in group if group.get("class") in ("pieces", "last", "hands", "mover") else ():
            values = ["1"]
            for animate in [each for each in child if each.tag.endswith("animate")]:
                times = [float(time) for time in animate.get("keyTimes", "").split(";")]
                values = animate.get("values", "").split(";")[: sum(time <= moment for time in times)]
                child.remove(animate)
            if values[-1] == "1":
                for key in ("opacity", "data-part", "data-x", "data-y", "pointer-events"):
                    for each in child.iter():
                        each.attrib.pop(key, None)
                seen.append(ElementTree.tostring(child, encoding="unicode").strip())
    return sorted(seen)


def test_a_move_that_is_not_legal_is_refused() -> None:
    with pytest.raises(IllegalActionError):
        animate_game(game_factory("connect_four"), "-", [3, 9])
