"""The choice among the games of the published policies."""

from __future__ import annotations

from collections.abc import Callable

from keisei_lightning.play.words import Line
from keisei_lightning.published import published_card, published_names

__all__ = ["choose_policy", "policy_of_game"]


def choose_policy(ask: Callable[[str], str | None], show: Callable[[list[Line]], None]) -> str | None:
    """The name of a published policy that a person chooses; None: nobody does.

    Args:
        ask: for a line.
        show: shows lines.
    """
    names = published_names()
    show([Line("Which game? A trained policy plays against you.", "title")])
    games = {name: str(published_card(name)["game"]) for name in names}
    for number, (name, game) in enumerate(games.items(), start=1):
        show([Line(f"  {number}  {game if game.startswith(name) else f'{name}: {game}'}")])
    while (text := ask("number or name, or quit> ")) is not None:
        typed = text.strip().lower()
        if typed in ("q", "quit", "exit"):
            return None
        found = [name for number, name in enumerate(names, start=1) if typed in (name, str(number))]
        found = found or [name for name in names if typed and name.startswith(typed)]
        if len(found) == 1:
            return found[0]
        show([Line(f"{text.strip()[:40]!a}: must be a number from 1 to {len(names)}, or a name of the list", "error")])
    return None


def policy_of_game(game: str) -> str | None:
    """The name of a published policy that plays a game; None: there is none.

    Args:
        game: its canonical name.
    """
    return next((name for name in published_names() if published_card(name)["game"] == game), None)
