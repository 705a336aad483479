"""One worker's rollouts against a slow and obvious replay of every game, move by move."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from fakes import COUNTING_GOAL, CountingGame, MirrorGame, TinyNetwork
from faults import EndlessGame, StuckGame
from numpy.typing import NDArray
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, RolloutError
from keisei_lightning.games import Game, make_game
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotLayout
from keisei_lightning.parallel.playing.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.playing.streams import RolloutStreams, rollout_seeds
from keisei_lightning.parallel.policy.acting import ActingPolicy, LocalPolicyServer, acting_policy

CPU = torch.device("cpu")
NUM_GAMES, NUM_PLIES = 5, 17
Slot = dict[ColumnKey, NDArray[Any]]


def value_of(count: int) -> float:
    return (count * 37 % 11) / 11 - 0.4


class Guesser:
    """Plays evenly; the value of a state is a fixed jumble of its count."""

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        legal = torch.from_numpy(np.unpackbits(action_mask.numpy(), axis=1, count=3)).float()
        action = torch.multinomial(legal, 1, generator=generator)[:, 0]
        return action, -legal.sum(1).log(), self.value(observation)

    def value(self, observation: Tensor) -> Tensor:
        return torch.tensor([[value_of(int(count))] for count in observation[:, 0, 0, 0]])


def player_of(
    game: Game,
    policy: ActingPolicy,
    *,
    num_plies: int = NUM_PLIES,
    seed: int = 5,
    start: int = 0,
    stride: int = 1,
    worker_id: int = 3,
    incarnation: int = 2,
    augment_symmetry: bool = False,
    stagger_games: bool = False,
) -> RolloutPlayer:
    return RolloutPlayer(
        game=game,
        server=LocalPolicyServer(policy, CPU),
        num_plies=num_plies,
        streams=RolloutStreams(worker_id=worker_id, incarnation=incarnation, seed=seed, position=start, stride=stride),
        augment_symmetry=augment_symmetry,
        stagger_games=stagger_games,
    )


def new_slot(game: Game, num_plies: int = NUM_PLIES, *, include_next_observation: bool = True) -> Slot:
    layout = SlotLayout.for_game(
        game.spec,
        num_slots=1,
        num_workers=1,
        num_games=game.num_games,
        num_plies=num_plies,
        include_next_observation=include_next_observation,
    )
    garbage = np.full(layout.num_bytes, 0xAB, np.uint8)  # a slot is never clean: nothing may be left as it was
    return layout.views(garbage, 0)


class Replay:
    """One game of the counting game, replayed from the stored moves."""

    def __init__(self, count: int) -> None:
        self.count = self.ply = count  # each random opening ply adds 1
        self.moves = 0

    def legal(self) -> list[int]:
        return [action for action in range(3) if self.count + action + 1 <= COUNTING_GOAL]

    def observation(self) -> list[int]:
        return [self.count, COUNTING_GOAL - self.count]


def assert_ply_is_right(slot: Slot, game: int, ply: int, replay: Replay, truncate_after: int) -> bool:
    """Check one cell of the rollout and play its move; returns whether the game is over."""

    def cell(*key: str) -> Any:
        value = slot[key if len(key) > 1 else key[0]][game, ply]
        return value.ravel().tolist() if value.size > 1 else value.item()

    assert cell("observation") == replay.observation()
    assert np.flatnonzero(np.unpackbits(slot["action_mask"][game, ply], count=3)).tolist() == replay.legal()
    assert cell("mover") == replay.ply % 2
    assert cell("action") in replay.legal()
    assert cell("action_log_prob") == pytest.approx(-np.log(len(replay.legal())))
    assert cell("state_value") == pytest.approx(value_of(replay.count))
    assert cell("trainable") is True
    replay.count += cell("action") + 1
    replay.ply += 1
    replay.moves += 1
    won = replay.count == COUNTING_GOAL
    cut = not won and replay.ply == truncate_after
    assert cell("next", "reward") == float(won)
    assert (cell("next", "terminated"), cell("next", "truncated"), cell("next", "done")) == (won, cut, won or cut)
    assert cell("next", "mover") == replay.ply % 2
    assert cell("next", "state_value") == pytest.approx(0.0 if won else value_of(replay.count))
    assert cell("next", "observation") == replay.observation()  # the last one of its own game, not of the next
    return won or cut


@pytest.mark.parametrize("truncate_after", [0, 4, 6])
@pytest.mark.parametrize("opening_plies", [0, 3])
def test_every_number_of_several_rollouts_is_that_of_a_move_by_move_replay(
    truncate_after: int, opening_plies: int
) -> None:
    game = CountingGame(NUM_GAMES, truncate_after=truncate_after, opening_plies=opening_plies)
    player = player_of(game, Guesser())
    replays = [Replay(0)] * NUM_GAMES
    begins = [True] * NUM_GAMES
    trajectories: list[int] = [0] * NUM_GAMES
    seen: set[int] = set()
    totals, lengths, firsts, cuts = RolloutResult(), [], 0, 0
    for version in range(4):  # games continue from one rollout to the next
        slot = new_slot(game)
        result = player.play(slot, version)
        totals.games += result.games
        totals.game_plies += result.game_plies
        totals.results += result.results
        totals.outcomes += result.outcomes
        assert (slot["collector", "policy_version"] == version).all()
        assert (slot["collector", "worker_id"] == 3).all()
        for row in range(NUM_GAMES):
            for ply in range(NUM_PLIES):
                trajectory = int(slot["collector", "traj_ids"][row, ply])
                if begins[row]:
                    replays[row] = Replay(int(slot["observation"][row, ply, 0, 0, 0]))
                    assert replays[row].count <= opening_plies
                    assert trajectory not in seen
                    seen.add(trajectory)
                    trajectories[row] = trajectory
                assert trajectory == trajectories[row]
                mover = replays[row].ply % 2
                begins[row] = assert_ply_is_right(slot, row, ply, replays[row], truncate_after)
                if begins[row]:
                    lengths.append(replays[row].moves)
                    won = replays[row].count == COUNTING_GOAL
                    firsts += won and mover == 0
                    cuts += not won
    assert totals.games == len(lengths) > 20
    assert totals.game_plies == sum(lengths)
    assert totals.results["first"] == firsts
    assert totals.results["draw"] == totals.outcomes["cut short"] == cuts
    assert totals.results["second"] == len(lengths) - firsts - cuts
    assert (cuts > 0) == (truncate_after > 0)
    assert totals.outcomes["goal"] == len(lengths) - cuts
    assert {trajectory >> 48 for trajectory in seen} == {3}  # worker
    assert {trajectory >> 32 & 0xFFFF for trajectory in seen} == {2}  # incarnation


def test_trajectory_ids_of_other_workers_and_incarnations_are_never_the_same() -> None:
    seen: list[int] = []
    for worker_id, incarnation in [(0, 0), (0, 1), (1, 0), (1, 1), (999, 65_535)]:
        game = CountingGame(NUM_GAMES)
        slot = new_slot(game)
        player_of(game, Guesser(), worker_id=worker_id, incarnation=incarnation).play(slot, 0)
        seen += np.unique(slot["collector", "traj_ids"]).tolist()
    assert len(seen) == len(set(seen))
    assert min(seen) >= 0


@pytest.mark.parametrize("truncate_after", [0, 4])
def test_next_observations_change_nothing_but_themselves(truncate_after: int) -> None:
    games = [CountingGame(NUM_GAMES, truncate_after=truncate_after) for _ in range(2)]
    slots = [new_slot(games[0]), new_slot(games[1], include_next_observation=False)]
    for game, slot in zip(games, slots, strict=True):
        player_of(game, Guesser()).play(slot, 0)
    assert set(slots[0]) - set(slots[1]) == {("next", "observation")}
    for key, column in slots[1].items():
        np.testing.assert_array_equal(column, slots[0][key], err_msg=str(key))


def test_reset_begins_new_games_on_every_board() -> None:
    game = CountingGame(NUM_GAMES)
    player = player_of(game, Guesser(), num_plies=2)
    before, after = new_slot(game, 2), new_slot(game, 2)
    player.play(before, 0)
    player.reset_games()
    player.play(after, 0)
    assert (after["observation"][:, 0, 0] == 0).all()
    assert not set(after["collector", "traj_ids"].ravel()) & set(before["collector", "traj_ids"].ravel())


def test_the_same_seed_gives_the_same_rollouts_and_another_does_not() -> None:
    def actions(seed: int) -> list[int]:
        game = CountingGame(NUM_GAMES, opening_plies=3)
        slot = new_slot(game)
        player_of(game, Guesser(), seed=seed).play(slot, 0)
        return slot["action"].ravel().tolist()  # type: ignore[no-any-return]

    assert actions(1) == actions(1)
    assert actions(1) != actions(2)


def test_every_rollout_of_every_incarnation_of_every_worker_has_its_own_seeds() -> None:
    lives = [(seed, w, i, start) for seed in range(3) for w in range(4) for i in range(3) for start in (0, 640, 1280)]
    seeds = [rollout_seeds(*life) for life in lives]
    assert len({number for pair in seeds for number in pair}) == 2 * len(lives)
    assert seeds == [rollout_seeds(*life) for life in lives]


@pytest.mark.parametrize("name", ["shogi", "connect_four"])
def test_games_in_flight_resume_in_another_player_to_the_last_bit(name: str) -> None:
    def player(start: int) -> tuple[Game, RolloutPlayer]:
        game = make_game(name, NUM_GAMES, opening_plies=4)
        return game, player_of(
            game,
            AnyLegal(game.spec.num_actions),
            start=start,
            stride=NUM_GAMES * NUM_PLIES,
            augment_symmetry=True,
            stagger_games=True,
        )

    game, uninterrupted = player(0)
    _, first = player(0)
    slots = [new_slot(game) for _ in range(4)]
    for slot in slots:
        uninterrupted.play(slot, 0)
    for expected in slots[:2]:
        first.play(slot := new_slot(game), 0)
        assert_equal_slots(slot, expected)
    state = json.loads(json.dumps(first.state_dict()))  # plain numbers and text
    _, second = player(2 * NUM_GAMES * NUM_PLIES)
    second.load_state_dict(state)
    for expected in slots[2:]:
        second.play(slot := new_slot(game), 0)
        assert_equal_slots(slot, expected)


def test_there_is_no_state_to_resume_from_before_the_first_rollout_or_without_histories() -> None:
    assert player_of(make_game("shogi", 2), AnyLegal(2187)).state_dict() is None
    game = MirrorGame(2)
    player = player_of(game, LowestLegal())
    player.play(new_slot(game), 0)
    assert player.state_dict() is None


class AnyLegal:
    """Plays any legal action; its values follow from the observation."""

    def __init__(self, num_actions: int) -> None:
        self._num_actions = num_actions

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        legal = torch.from_numpy(np.unpackbits(action_mask.numpy(), axis=1, count=self._num_actions)).float()
        action = torch.multinomial(legal, 1, generator=generator)[:, 0]
        return action, -legal.sum(1).log(), self.value(observation)

    def value(self, observation: Tensor) -> Tensor:
        return observation.flatten(1).float().mean(1, keepdim=True)


def assert_equal_slots(slot: Slot, expected: Slot) -> None:
    assert set(slot) == set(expected)
    for key, column in expected.items():
        np.testing.assert_array_equal(slot[key], column, err_msg=str(key))


def test_staggered_games_begin_at_all_plies_and_are_counted_from_their_real_start() -> None:
    def first_counts(stagger_games: bool) -> tuple[list[int], int]:
        game = CountingGame(64)
        beats: list[int] = []
        player = player_of(game, Guesser(), num_plies=1, stagger_games=stagger_games)
        slot = new_slot(game, 1)
        counts: list[list[int]] = []
        for _ in range(COUNTING_GOAL):
            result = player.play(slot, 0, lambda: beats.append(1))
            counts.append(slot["observation"][:, 0, 0].ravel().tolist())
            assert result.game_plies <= result.games * COUNTING_GOAL
            assert result.game_plies >= result.games * COUNTING_GOAL / 3  # no game is quicker than three a ply
        return counts[0], len(beats)

    counts, beats = first_counts(stagger_games=True)
    assert len(set(counts)) > COUNTING_GOAL / 2
    assert max(counts) < COUNTING_GOAL  # no game is over
    assert beats > COUNTING_GOAL  # a hang in these plies would be seen too
    assert first_counts(stagger_games=False) == ([0] * 64, COUNTING_GOAL)


def test_the_worker_sends_a_heartbeat_once_a_ply() -> None:
    beats = []
    game = CountingGame(NUM_GAMES)
    player_of(game, Guesser()).play(new_slot(game), 0, lambda: beats.append(0))
    assert len(beats) == NUM_PLIES


@pytest.mark.parametrize("bad", ["log-probability", "value"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_never_reach_the_learner(bad: str, number: float) -> None:
    class Broken(Guesser):
        def act(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
            action, log_prob, value = super().act(*args, **kwargs)
            (log_prob if bad == "log-probability" else value)[-1] = number
            return action, log_prob, value

    game = CountingGame(NUM_GAMES)
    with pytest.raises(RolloutError, match="policy version 8 gave a log-probability or value that is not finite"):
        player_of(game, Broken()).play(new_slot(game), 8)


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_logits_that_are_not_finite_give_no_skipped_turn(bias: float) -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.linear.bias[1] = bias
    game = CountingGame(NUM_GAMES)
    with pytest.raises(RolloutError, match=r"policy: action -1 in position 0 0; must be from 0 to 2 \(-1: its logits"):
        player_of(game, ActorCritic(network)).play(new_slot(game), 8)


@pytest.mark.parametrize("action", [-5, -1, 3])
def test_an_action_out_of_range_is_an_error_of_the_policy(action: int) -> None:
    class OutOfRange(Guesser):
        def act(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
            actions, log_prob, value = super().act(*args, **kwargs)
            actions[2] = action
            return actions, log_prob, value

    game = CountingGame(NUM_GAMES)
    with pytest.raises(RolloutError, match=rf"policy: action {action} in position 0 0; must be from 0 to 2"):
        player_of(game, OutOfRange()).play(new_slot(game), 0)


class BadShape(Guesser):
    def __init__(self, what: int) -> None:
        self._what = what

    def act(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        out = list(super().act(*args, **kwargs))
        out[self._what] = out[self._what][:1] if self._what < 2 else out[self._what][:, 0]
        return out[0], out[1], out[2]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (0, r"policy: action is \[1\], must be \[5\]"),
        (1, r"policy: action_log_prob is \[1\], must be \[5\]"),
        (2, r"policy: state_value is \[5\], must be \[5, 1\]"),
    ],
)
def test_numbers_of_a_wrong_shape_are_refused_and_never_broadcast(what: int, message: str) -> None:
    game = CountingGame(NUM_GAMES)
    with pytest.raises(RolloutError, match=message):
        player_of(game, BadShape(what)).play(new_slot(game), 0)


class BadDtype(Guesser):
    def __init__(self, what: int, dtype: torch.dtype) -> None:
        self._what, self._dtype = what, dtype

    def act(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        out = list(super().act(*args, **kwargs))
        out[self._what] = out[self._what].to(self._dtype)
        return out[0], out[1], out[2]


@pytest.mark.parametrize(
    ("what", "dtype", "message"),
    [
        (0, torch.float32, "policy: action is float32, must be integers"),
        (0, torch.bool, "policy: action is bool, must be integers"),
        (1, torch.int64, "policy: action_log_prob is int64, must be floating point"),
        (2, torch.bool, "policy: state_value is bool, must be floating point"),
    ],
)
def test_numbers_of_a_wrong_dtype_are_refused_and_never_converted(what: int, dtype: torch.dtype, message: str) -> None:
    game = CountingGame(NUM_GAMES)
    with pytest.raises(RolloutError, match=message):
        player_of(game, BadDtype(what, dtype)).play(new_slot(game), 0)


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (StuckGame(NUM_GAMES), r"counting: a game continues without a legal move, in position \d+ \d"),
        (EndlessGame(NUM_GAMES), "counting: a game continues after 10 plies, its max_plies is 10"),
    ],
)
def test_a_game_that_is_stuck_or_endless_is_an_error_and_no_endless_loop(game: CountingGame, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        player_of(game, Guesser()).play(new_slot(game), 0)


def test_after_an_error_the_player_continues_with_new_games() -> None:
    class OnceIllegal(Guesser):
        illegal = True

        def act(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
            action, log_prob, value = super().act(*args, **kwargs)
            if self.illegal:
                action[0] = 7
                self.illegal = False
            return action, log_prob, value

    game = CountingGame(NUM_GAMES)
    player = player_of(game, OnceIllegal())
    with pytest.raises(RolloutError, match=r"policy: action 7 in position \d+ \d; must be from 0 to 2"):
        player.play(new_slot(game), 0)
    player.reset_games()
    slot = new_slot(game)
    player.play(slot, 0)
    assert (slot["observation"][:, 0, 0, 0, 0] == 0).all()


# ---- symmetry


class LowestLegal:
    """Takes the lowest legal label, and remembers what it was shown."""

    def __init__(self) -> None:
        self.observations: list[Tensor] = []
        self.masks: list[Tensor] = []

    def act(
        self, observation: Tensor, action_mask: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        self.observations.append(observation.clone())
        self.masks.append(action_mask.clone())
        legal = np.unpackbits(action_mask.numpy(), axis=1, count=4)
        return torch.from_numpy(legal.argmax(1)), torch.zeros(len(legal)), self.value(observation)

    def value(self, observation: Tensor) -> Tensor:
        weights = torch.tensor([0.1, 0.02, 0.003, 0.0004])
        return (observation[:, 0, 0].float() * weights).sum(1, keepdim=True)


def test_a_mirrored_game_is_stored_as_the_policy_saw_it_and_played_as_the_game_means_it() -> None:
    game, policy = MirrorGame(64), LowestLegal()
    slot = new_slot(game, 8)
    player_of(game, policy, num_plies=8, augment_symmetry=True).play(slot, 0)
    np.testing.assert_array_equal(slot["observation"], torch.stack(policy.observations, 1).numpy())
    np.testing.assert_array_equal(slot["action_mask"], torch.stack(policy.masks, 1).numpy())
    stored, played = slot["action"], np.stack(game.played, 1)
    assert (stored == np.tile(np.arange(4), 2)).all()  # the policy always fills its own view from the left
    mirrored = played[:, ::4] == 3  # by game: two for each board
    assert 0.3 < mirrored.mean() < 0.7
    assert (mirrored[:, 0] != mirrored[:, 1]).any()  # drawn for each game
    for half in (0, 1):
        expected = np.where(mirrored[:, half, None], 3 - np.arange(4), np.arange(4))
        np.testing.assert_array_equal(played[:, 4 * half : 4 * half + 4], expected)
    next_values = policy.value(torch.from_numpy(slot["next", "observation"].reshape(-1, 1, 1, 4))).numpy()
    terminated = slot["next", "terminated"]
    np.testing.assert_allclose(slot["next", "state_value"], np.where(terminated, 0, next_values.reshape(64, 8, 1)))
    going_on = ~slot["next", "done"][:, :-1, 0]
    np.testing.assert_array_equal(slot["next", "observation"][:, :-1][going_on], slot["observation"][:, 1:][going_on])


def test_without_the_option_nothing_is_mirrored() -> None:
    game, policy = MirrorGame(16), LowestLegal()
    player_of(game, policy, num_plies=4).play(new_slot(game, 4), 0)
    assert (np.stack(game.played, 1) == np.arange(4)).all()


# ---- policies of TorchRL


def test_a_torchrl_policy_plays_by_its_own_stream_and_leaves_the_global_one_alone() -> None:
    module = ActorCritic(TinyNetwork()).as_policy()

    def actions(seed: int, disturb: int) -> list[int]:
        torch.manual_seed(disturb)
        before = torch.get_rng_state()
        game = CountingGame(NUM_GAMES)
        slot = new_slot(game)
        player_of(game, acting_policy(module, num_actions=3), seed=seed).play(slot, 0)
        assert torch.equal(torch.get_rng_state(), before)
        return slot["action"].ravel().tolist()  # type: ignore[no-any-return]

    assert actions(1, 100) == actions(1, 200)
    assert actions(1, 100) != actions(2, 100)


def test_a_torchrl_actor_and_critic_in_sequence_are_a_policy() -> None:
    from tensordict.nn import TensorDictSequential

    actor_critic = ActorCritic(TinyNetwork())
    module = TensorDictSequential(actor_critic.as_critic(), actor_critic.as_actor())
    game = CountingGame(NUM_GAMES)
    slot = new_slot(game)
    player_of(game, acting_policy(module, num_actions=3)).play(slot, 0)
    observation = torch.from_numpy(slot["observation"]).flatten(0, 1)
    np.testing.assert_allclose(
        slot["state_value"].ravel(), actor_critic.value(observation).detach().numpy().ravel(), rtol=1e-6
    )


def test_a_policy_that_cannot_choose_moves_or_evaluate_positions_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"policy: its out_keys lack \['state_value'\]"):
        acting_policy(ActorCritic(TinyNetwork()).as_actor(), num_actions=3)
    with pytest.raises(ConfigError, match=r"policy: Linear has neither act\(\) and value\(\)"):
        acting_policy(nn.Linear(1, 1), num_actions=3)
