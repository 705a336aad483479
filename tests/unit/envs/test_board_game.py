from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchrl.collectors
from fakes import CountingGame, TinyNetwork, counting_game
from tensordict import TensorDict
from torchrl.envs import (
    ActionMask,
    Compose,
    DTypeCastTransform,
    RewardSum,
    SerialEnv,
    StepCounter,
    TransformedEnv,
)
from torchrl.envs.utils import check_env_specs
from torchrl.modules import MaskedCategorical, ProbabilisticActor

from keisei_lightning.envs import BoardGameEnv, random_policy
from keisei_lightning.errors import ConfigError, GameError, IllegalActionError
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.models import ActorCritic, build_network, unpack_mask

GAMES: dict[str, Callable[[], GameFactory]] = {
    "counting": lambda: counting_game(opening_plies=2),
    "tic_tac_toe": lambda: game_factory("tic_tac_toe"),
    "connect_four": lambda: game_factory("connect_four", opening_plies=4),
    "shogi": lambda: game_factory("shogi", max_plies=12),
}


def step(env: BoardGameEnv, actions: list[int], **more: torch.Tensor) -> TensorDict:
    """Play one ply on every board; the result is what stands under "next"."""
    batch = TensorDict({"action": torch.tensor(actions), **more}, batch_size=env.batch_size)
    return env.step(batch)["next"]


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_torchrl_accepts_the_environment(game, packed):
    env = BoardGameEnv(GAMES[game](), 3, packed_action_mask=packed, seed=0)
    check_env_specs(env, break_when_any_done="both")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "transform",
    [
        lambda: None,
        StepCounter,
        RewardSum,
        lambda: DTypeCastTransform(torch.uint8, torch.float32, in_keys=["observation"]),
        lambda: Compose(StepCounter(), RewardSum()),
    ],
)
def test_torchrl_accepts_the_environment_with_transforms_around_it(transform, packed):
    env = TransformedEnv(BoardGameEnv(GAMES["tic_tac_toe"](), 3, packed_action_mask=packed, seed=0), transform())
    check_env_specs(env, break_when_any_done="both")


@pytest.mark.parametrize("several", [False, True])
def test_torchrl_accepts_the_environment_with_its_own_action_mask(several):
    def make():
        return BoardGameEnv(GAMES["tic_tac_toe"](), 3, seed=0)

    env = TransformedEnv(SerialEnv(2, make) if several else make(), ActionMask())
    try:
        check_env_specs(env, break_when_any_done="both")
    finally:
        env.close()


def test_an_older_copy_of_the_action_specification_knows_the_present_legal_moves():
    env = BoardGameEnv(counting_game(goal=3), 2)
    copy = env.input_spec.clone()["full_action_spec", "action"]
    env.reset()
    step(env, [0, 1])
    assert copy.mask.tolist() == [[True, True, False], [True, False, False]]
    assert copy == env.action_spec


@pytest.mark.parametrize("game", GAMES)
def test_games_are_restarted_one_by_one(game):
    env = BoardGameEnv(GAMES[game](), 4, seed=0)
    played = env.rollout(40, break_when_any_done=False)
    assert played.shape == (4, 40)
    done = played["next", "done"].squeeze(-1)
    assert done.any(dim=1).all()
    assert not played["done"].any()
    mask = played["action_mask"]
    assert mask.gather(-1, played["action"].unsqueeze(-1)).all()
    assert mask.any(dim=-1).all()
    assert not played["next", "action_mask"][done].any()


@pytest.mark.parametrize("game", GAMES)
def test_finished_boards_wait_for_the_last_one(game):
    env = BoardGameEnv(GAMES[game](), 4, seed=1)
    played = env.rollout(100, break_when_any_done=False, break_when_all_done=True)
    done = played["next", "done"].squeeze(-1)
    assert done[:, -1].all()
    assert not done[:, :-1].all(dim=0).any()
    for board in range(4):
        end = int(done[board].int().argmax())
        last = played["next", "observation"][board, end:]
        assert torch.equal(last, last[:1].expand_as(last))


def test_a_game_goes_its_way():
    env = BoardGameEnv(counting_game(goal=5), 2)
    start = env.reset()
    assert start["observation"].flatten(1).tolist() == [[0, 5], [0, 5]]
    assert start["mover"].tolist() == [0, 0]
    first = step(env, [2, 0])
    assert first["observation"].flatten(1).tolist() == [[3, 2], [1, 4]]
    assert first["action_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert first["mover"].tolist() == [1, 1]
    second = step(env, [1, 2])
    assert second["reward"].tolist() == [[1.0], [0.0]]
    assert second["terminated"].tolist() == second["done"].tolist() == [[True], [False]]
    assert second["truncated"].tolist() == [[False], [False]]
    third = step(env, [0, 0])  # the finished board takes any action and stays as it is
    assert third["reward"].tolist() == [[0.0], [1.0]]
    assert third["done"].tolist() == [[True], [True]]
    assert env.position(0) == "5 0"


def test_a_game_cut_short_is_truncated_and_not_terminated():
    env = BoardGameEnv(counting_game(truncate_after=1), 1)
    env.reset()
    after = step(env, [0])
    assert (after["done"].item(), after["truncated"].item(), after["terminated"].item()) == (True, True, False)


def test_a_partial_reset_leaves_the_other_boards_alone():
    env = BoardGameEnv(counting_game(goal=3), 3)
    env.reset()
    played = step(env, [2, 0, 2])
    state = env.reset(played.set("_reset", torch.tensor([[True], [False], [False]])))
    assert state["observation"].flatten(1).tolist() == [[0, 3], [1, 2], [3, 0]]
    assert state["done"].flatten().tolist() == [False, False, True]
    assert state["mover"].tolist() == [0, 1, 1]


def test_a_partial_step_moves_only_the_boards_it_names():
    env = BoardGameEnv(counting_game(), 3)
    env.reset()
    after = step(env, [2, 2, 2], _step=torch.tensor([True, False, True]))
    assert after["observation"][:, 0].flatten().tolist() == [3, 0, 3]


def test_an_illegal_action_is_named():
    env = BoardGameEnv(counting_game(goal=2), 1)
    env.reset()
    with pytest.raises(IllegalActionError, match="counting: illegal move 2 at ply 0"):
        step(env, [2])


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_policy_whose_logits_are_not_finite_does_not_sit_out(fault):
    env, network = BoardGameEnv(counting_game(), 2, packed_action_mask=True), TinyNetwork()
    with torch.no_grad():
        network.linear.bias[1] = fault
    with pytest.raises(
        GameError, match="counting: action -1 on a board that is not over, in position 0 0; must be from 0"
    ):
        env.rollout(3, ActorCritic(network).as_policy())


def test_packed_and_plain_masks_say_the_same():
    plain, packed = (BoardGameEnv(GAMES["shogi"](), 2, packed_action_mask=each) for each in (False, True))
    bits = packed.reset()["action_mask"]
    assert (bits.shape, bits.dtype) == ((2, 274), torch.uint8)
    assert torch.equal(unpack_mask(bits, 2187), plain.reset()["action_mask"])
    assert plain.reset()["action_mask"].sum(dim=-1).tolist() == [30, 30]


def test_an_older_batch_is_not_changed_by_later_plies():
    env = BoardGameEnv(GAMES["connect_four"](), 2, seed=0)
    before = env.reset()
    kept = before.clone()
    env.rollout(20, auto_reset=False, tensordict=before.clone(), break_when_any_done=False)
    assert (before == kept).all()


def test_the_same_seed_gives_the_same_openings():
    def openings(seed: int) -> list[int]:
        env = BoardGameEnv(counting_game(opening_plies=5), 20)
        env.set_seed(seed)
        counts: list[int] = env.reset()["observation"][:, 0].flatten().tolist()
        return counts

    assert openings(3) == openings(3)
    assert openings(3) != openings(4)


def policy_for(env: BoardGameEnv, how: str) -> torch.nn.Module | None:
    if how == "none":
        return None
    if how == "random":
        return random_policy(env.spec_of_game.num_actions)
    if how == "MaskedCategorical":
        actor = ActorCritic(build_network(env.spec_of_game, kind="mlp", num_blocks=1, channels=8)).as_actor()
        return ProbabilisticActor(
            actor[0],
            in_keys={"logits": "logits", "mask": "action_mask"},
            distribution_class=MaskedCategorical,
            return_log_prob=True,
        )
    policy = ActorCritic(build_network(env.spec_of_game, num_blocks=1, channels=8))
    return policy.as_policy() if how == "as_policy" else policy.as_actor()


@pytest.mark.parametrize("game", ["connect_four", "shogi"])
@pytest.mark.parametrize("how", ["MaskedCategorical", "as_actor", "as_policy", "random", "none"])
@pytest.mark.slow
def test_torchrls_collector_plays_it(game, how):
    env = BoardGameEnv(GAMES[game](), 4, seed=0)
    collector = torchrl.collectors.Collector(
        env, policy_for(env, how), frames_per_batch=120, total_frames=240, auto_register_policy_transforms=False
    )
    try:
        batches = list(collector)
    finally:
        collector.shutdown()
    assert [batch.shape for batch in batches] == [(4, 30), (4, 30)]
    for batch in batches:
        assert batch["action_mask"].gather(-1, batch["action"].unsqueeze(-1)).all()
        goes_on = ~batch["next", "done"].squeeze(-1)[:, :-1]
        assert torch.equal(batch["next", "observation"][:, :-1][goes_on], batch["observation"][:, 1:][goes_on])
        assert (batch["mover"][:, 1:] != batch["mover"][:, :-1])[goes_on].all()


def test_the_random_policy_draws_every_legal_move_alike():
    mask = torch.tensor([True, False, True, True]).expand(9000, 4)
    batch = random_policy(4)(TensorDict({"action_mask": mask}, batch_size=[9000]))
    share = torch.bincount(batch["action"], minlength=4) / 9000
    assert share[1] == 0
    np.testing.assert_allclose(share[[0, 2, 3]], 1 / 3, atol=0.02)


def test_a_foreign_network_plays_through_the_same_policy():
    env = BoardGameEnv(counting_game(), 3)
    played = env.rollout(20, ActorCritic(TinyNetwork()).as_policy(), break_when_any_done=False)
    assert played["action_log_prob"].shape == (3, 20)
    assert played["state_value"].shape == (3, 20, 1)


def test_rendering_is_the_games():
    env = BoardGameEnv(CountingGame, 2)
    env.reset()
    assert env.render(1) == env.position(1) == "0 0"
    assert env.render(0, "svg").startswith("<svg>")


def test_no_boards_are_no_environment():
    with pytest.raises(ConfigError, match="num_games=0: must be 1 or more"):
        BoardGameEnv(CountingGame, 0)
