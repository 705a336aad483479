import pytest

from keisei_lightning.games import GameSpec


@pytest.fixture
def shogi_spec() -> GameSpec:
    return GameSpec(
        name="shogi",
        num_actions=2187,
        observation_shape=(98,),
        max_plies=256,
        encoding="shogi",
        board_shape=(9, 9),
        actions_by_square=True,
    )


@pytest.fixture
def planes_spec() -> GameSpec:
    return GameSpec(name="connect_four", num_actions=7, observation_shape=(2, 6, 7), max_plies=42, board_shape=(6, 7))
