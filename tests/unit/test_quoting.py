from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from keisei_lightning.quoting import quote_calls


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("env.game=hex(board_size=5)", 'env.game="hex(board_size=5)"'),
        ("+env.game=hex(board_size=5)", '+env.game="hex(board_size=5)"'),
        ("env.game=misere(game=tic_tac_toe())", 'env.game="misere(game=tic_tac_toe())"'),
        ("env.game=hex(board_size=5),shogi", 'env.game="hex(board_size=5)",shogi'),
        ("opponents=[random,alpha_beta(depth=5)]", 'opponents=[random,"alpha_beta(depth=5)"]'),
        ("evaluation.opponents=[a(b=1),c(d=2,e=3)]", 'evaluation.opponents=["a(b=1)","c(d=2,e=3)"]'),
    ],
)
def test_games_and_players_need_no_quotation_marks(word: str, quoted: str) -> None:
    assert quote_calls([word]) == [quoted]
    OverridesParser.create().parse_overrides([quoted])


@pytest.mark.parametrize(
    "word",
    [
        "env.game=choice(hex,chess)",
        "ppo.gamma=1",
        "-m",
        "output_dir=f(x)",
        'opponents=[random,"alpha_beta(depth=5)"]',
        "opponents=snapshots",
        "env.game=hex(board_size=5",
    ],
)
def test_other_words_stay_as_they_are(word: str) -> None:
    assert quote_calls([word]) == [word]
