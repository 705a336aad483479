"""General rooms ask a game what it can do, and never which game it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import keisei_lightning
from keisei_lightning.evaluation.registry import PLAYERS
from keisei_lightning.games import game_names
from keisei_lightning.models.encoder import ENCODERS

ROOT = Path(keisei_lightning.__file__).parent
ABOUT_A_GAME = (
    *("games/open_spiel", "games/shogi", "evaluation/usi", "engine/usi.py"),
    *("evaluation/search.py", "evaluation/solvers.py", "evaluation/connect_four_solver.py"),
)
NAMES = {*game_names(), "open_spiel", "usi"}


def general_modules() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(ABOUT_A_GAME) and not path.name.startswith("shogi_"):
            yield path


def branches_on_a_game(source: str) -> Iterator[int]:
    """Lines that compare with a game's name, look one up or match it."""
    for node in ast.walk(ast.parse(source)):
        compared: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        elif isinstance(node, ast.Subscript):
            compared = [node.slice]
        elif isinstance(node, ast.Dict):
            compared = list(node.keys)
        words = (part for each in compared if each is not None for part in ast.walk(each))
        if any(isinstance(word, ast.Constant) and word.value in NAMES for word in words):
            yield node.lineno  # type: ignore[attr-defined]


REGISTRIES = {
    **dict.fromkeys(["games/registry.py", "evaluation/registry.py", "models/encoder.py", "analysis/mistakes.py"], 1),
    "commands/table.py": 1,  # usi is a command
}
"""Modules that list what is ours by name: one dictionary each."""


@pytest.mark.parametrize("path", list(general_modules()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_branch_depends_on_a_games_name(path: Path) -> None:
    expected = REGISTRIES.get(path.relative_to(ROOT).as_posix(), 0)
    assert len(list(branches_on_a_game(path.read_text(encoding="utf-8")))) == expected


@pytest.mark.parametrize(
    "source",
    [
        'if spec.name == "shogi": pass',
        'x = 1 if name in ("hex", "go") else 2',
        'suffix = {"shogi": ".kifu"}[name]',
        'match name:\n    case "connect_four": pass',
    ],
)
def test_a_branch_is_found(source: str) -> None:
    assert list(branches_on_a_game(source)) != []


def test_what_is_about_a_game_is_reached_by_its_name() -> None:
    modules = {*PLAYERS.built_in_modules(), *ENCODERS.built_in_modules()}
    assert {"keisei_lightning.models.shogi_encoder", "keisei_lightning.evaluation.shogi_players"} <= modules
