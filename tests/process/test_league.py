"""A league: players and other policies beside snapshots, in every mode, with every result counted once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from collector_helpers import assert_same, collector_of
from fakes import MirrorGame, TinyNetwork, VersionNetwork
from league_players import FAILS, FIRST, LEFTMOST, QUITTER, RANDOM, UNSTARTABLE, VOID, hangs_once
from tensordict import TensorDictBase
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import League, OpponentOptions, PlayerMember, PolicyMember, SelfPlayCollector
from keisei_lightning.rl.advantages import batch_advantages

pytestmark = pytest.mark.process

GAMES, PLIES = 8, 6


def league_collector(
    policy: nn.Module | None = None,
    *,
    players: Sequence[PlayerMember] = (),
    policies: Sequence[PolicyMember] = (),
    share: float = 1.0,
    player_share: float | None = None,
    turn_timeout_s: float = 60.0,
    **options: Any,
) -> SelfPlayCollector:
    league = League(
        options=OpponentOptions(share=share, max_snapshots=2, player_share=player_share, turn_timeout_s=turn_timeout_s),
        players=tuple(players),
        policies=tuple(policies),
    )
    return collector_of(
        policy, opponents=league, **{"games_per_worker": GAMES, "plies_per_rollout": PLIES, "mode": "serial"} | options
    )


def versioned(version: float) -> ActorCritic:
    """A policy that values every position at its version."""
    policy = ActorCritic(VersionNetwork())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(version)
    return policy


def run(collector: SelfPlayCollector, policy: nn.Module, num_batches: int) -> list[TensorDictBase]:
    """Publish after each batch, and freeze every third version."""
    batches, taken = iter(collector), []
    for _ in range(num_batches):
        taken.append(next(batches).clone())
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.01
        collector.update_policy_weights_()
        if collector.policy_version % 3 == 0:
            assert collector.push_snapshot()
    return taken


@pytest.mark.parametrize("mode", ["serial", "central"])
def test_a_players_moves_are_its_own_and_none_of_them_is_learned_from(mode: str) -> None:
    with league_collector(versioned(0.25), players=[FIRST], mode=mode) as collector:
        batch = torch.cat([next(iter(collector)).clone() for _ in range(12)], 1)
    theirs = ~batch["trainable"]
    assert 0.3 < float(theirs.float().mean()) < 0.7
    assert (batch["action"][theirs] == 0).all()
    assert (batch["action_log_prob"][theirs] == 0).all()
    assert (batch["action_log_prob"][~theirs] <= 0).all()
    assert batch["action"][~theirs].unique().tolist() == [0, 1, 2]
    assert torch.allclose(batch["state_value"], torch.tensor(0.25))  # the learner's, for want of another one


def test_what_the_learner_thinks_of_a_players_position_changes_no_advantage() -> None:
    with league_collector(players=[RANDOM]) as collector:
        batch = next(iter(collector)).clone()
    advantage, _ = batch_advantages(batch, gamma=0.99, lmbda=0.9)
    theirs = ~batch["trainable"]
    assert theirs.any()
    batch["state_value"][theirs] += 7.0
    followed = torch.zeros_like(theirs)
    followed[:, :-1] = theirs[:, 1:] & ~batch["next", "done"][:, :-1, 0]
    batch["next", "state_value"][followed] += 7.0
    again, _ = batch_advantages(batch, gamma=0.99, lmbda=0.9)
    assert torch.allclose(advantage, again, atol=1e-5)


def batches_of(mode: str, **options: Any) -> tuple[list[TensorDictBase], dict[str, list[int]]]:
    torch.manual_seed(4)
    policy = ActorCritic(TinyNetwork())
    other = PolicyMember("other", ActorCritic(TinyNetwork()))
    with league_collector(policy, players=[FIRST, RANDOM], policies=[other], mode=mode, **options) as collector:
        batches = run(collector, policy, 14)
        assert collector.pool is not None
        return batches, collector.pool.totals


def test_workers_play_the_games_of_a_league_as_no_workers_do_to_the_last_bit() -> None:
    (serial, totals), (workers, others) = batches_of("serial"), batches_of("workers")
    assert_same(serial, workers)
    assert totals == others
    assert {"first", "random", "other"} < set(totals)
    assert any(name.startswith("snapshot ") for name in totals)


def test_so_does_an_inference_process() -> None:
    (serial, totals), (central, others) = (
        batches_of(mode, num_workers=1, groups_per_worker=1) for mode in ("serial", "central")
    )
    assert_same(serial, central)
    assert totals == others


def results_in(batch: TensorDictBase) -> list[int]:
    """The learner's wins, draws and losses, read off the plies of one row after the other."""
    counts = [0, 0, 0]
    for row in range(batch.shape[0]):
        for ply in batch["next", "done"][row, :, 0].nonzero().flatten().tolist():
            reward = float(batch["next", "reward"][row, ply, 0])
            points = reward if batch["trainable"][row, ply] else -reward
            counts[1 - int(points)] += 1
    return counts


@pytest.mark.parametrize("mode", ["serial", "workers", "central"])
def test_every_result_against_a_player_is_counted_once(mode: str) -> None:
    with league_collector(players=[RANDOM], mode=mode) as collector:
        batch = torch.cat([next(iter(collector)).clone() for _ in range(12)], 1)
        assert collector.pool is not None
        assert collector.pool.totals == {"random": [*results_in(batch), 0]}
        (member,) = collector.pool.members
        assert member.games == sum(results_in(batch)) == collector.games
        assert collector.stats()["void_games"] == 0


def test_a_player_who_resigns_has_lost() -> None:
    with league_collector(players=[QUITTER]) as collector:
        batch = next(iter(collector)).clone()
        assert collector.pool is not None
        theirs = ~batch["trainable"]
        assert theirs.any()
        assert batch["next", "terminated"][theirs].all()
        assert (batch["next", "reward"][theirs] == -1).all()
        assert (batch["next", "state_value"][theirs] == 0).all()
        wins, draws, losses, void = collector.pool.totals["quitter"]
        assert wins >= int(theirs.sum()) > 0
        assert (draws, void) == (0, 0)
        assert collector.stats()["outcome/resignation"] == pytest.approx(int(theirs.sum()) / (wins + losses))


@pytest.mark.parametrize("player", [VOID, FAILS], ids=["no move", "an engine that failed"])
@pytest.mark.parametrize("mode", ["serial", "workers", "central"])
def test_a_player_who_fails_costs_the_game_and_no_more(player: PlayerMember, mode: str) -> None:
    with league_collector(versioned(0.25), players=[player], share=0.5, mode=mode) as collector:
        batch = torch.cat([next(iter(collector)).clone() for _ in range(8)], 1)
        assert collector.pool is not None
        theirs = ~batch["trainable"]
        assert theirs.any()
        assert batch["next", "truncated"][theirs].all()  # it has no result; the learner's value stands for one
        assert torch.allclose(batch["next", "state_value"][theirs], torch.tensor(0.25))
        assert (batch["next", "mover"][theirs] == batch["mover"][theirs]).all()
        void = collector.pool.totals[player.name][3]
        assert void == int(theirs.sum()) == collector.stats()["void_games"]
        assert collector.stats()["restarts"] == collector.stats()["quarantined_batches"] == 0


def test_games_that_a_failed_player_would_have_met_in_this_rollout_are_self_play() -> None:
    with league_collector(players=[FAILS], num_workers=1) as collector:
        batch = next(iter(collector)).clone()
    assert int((~batch["trainable"]).sum()) == GAMES  # once on each board: half of them a ply later


def test_a_player_sees_the_board_as_it_is_where_the_policy_sees_its_mirror_image() -> None:
    with league_collector(
        ActorCritic(build_network(MirrorGame(1).spec, kind="mlp", num_blocks=1, channels=4)),
        game=MirrorGame,
        players=[LEFTMOST],
        augment_symmetry=True,
    ) as collector:
        batch = torch.cat([next(iter(collector)).clone() for _ in range(10)], 1)
    theirs = ~batch["trainable"]
    cells = batch["observation"][theirs].reshape(-1, 4)
    free = cells == 0
    action = batch["action"][theirs]
    leftmost, rightmost = free.int().argmax(1), 3 - free.flip(1).int().argmax(1)
    assert ((action == leftmost) | (action == rightmost)).all()
    both = leftmost != rightmost
    assert (action == leftmost)[both].any()
    assert (action == rightmost)[both].any()  # in the mirror image


def test_a_league_survives_a_resume_to_the_last_bit() -> None:
    game = game_factory("tic_tac_toe", opening_plies=1)

    def network(seed: int) -> ActorCritic:
        torch.manual_seed(seed)
        return ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=1, channels=16))

    other = PolicyMember("other", network(5))
    policy = network(4)
    with league_collector(policy, game=game, players=[RANDOM, LEFTMOST], policies=[other]) as collector:
        run(collector, policy, 7)
        weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        file = io.BytesIO()
        torch.save(collector.state_dict(), file)
        whole = run(collector, policy, 7)
        assert collector.pool is not None
        totals, members = collector.pool.totals, collector.pool.members
    file.seek(0)
    again = network(4)
    again.load_state_dict(weights)
    with league_collector(again, game=game, players=[RANDOM, LEFTMOST], policies=[other]) as resumed:
        resumed.load_state_dict(torch.load(file, weights_only=True))
        rest = run(resumed, again, 7)
        assert resumed.pool is not None
        assert (resumed.pool.totals, resumed.pool.members) == (totals, members)
    assert_same(rest, whole)


def test_another_policy_never_leaves_and_is_met_as_it_was_when_it_came() -> None:
    policy, other = versioned(0.0), versioned(0.875)
    with league_collector(policy, policies=[PolicyMember("other", other)], mode="workers") as collector:
        with torch.no_grad():
            for parameter in other.parameters():  # what becomes of it elsewhere does not matter, once it is in
                parameter.fill_(0.5)
        batches = run(collector, policy, 30)
        assert collector.pool is not None
        assert [each.name for each in collector.pool.members] == ["snapshot 27", "snapshot 30", "other"]
    values = torch.cat([batch["state_value"][~batch["trainable"]].flatten() for batch in batches[15:]])
    assert (values == 0.5).any()
    assert values.max() < 0.875


def test_the_share_of_games_against_players_is_kept() -> None:
    with league_collector(
        players=[FIRST, RANDOM], policies=[PolicyMember("other", ActorCritic(TinyNetwork()))]
    ) as plain:
        plain.start()
        assert plain.pool is not None
        assert plain.pool.probabilities().tolist() == pytest.approx([1 / 3] * 3)
    with league_collector(
        players=[FIRST, RANDOM], policies=[PolicyMember("other", ActorCritic(TinyNetwork()))], player_share=0.25
    ) as shared:
        shared.start()
        assert shared.pool is not None
        assert shared.pool.probabilities().tolist() == pytest.approx([0.75, 0.125, 0.125])


def test_a_policy_of_another_network_is_refused_before_anything_starts() -> None:
    other = ActorCritic(VersionNetwork())
    with pytest.raises(ConfigError, match=r"^league: other is no policy of the learner's network \(weights: unknown"):
        league_collector(policies=[PolicyMember("other", other)])


def test_a_name_stands_for_one_member() -> None:
    with pytest.raises(ConfigError, match="league: first is a member 2 times; must be one once"):
        league_collector(players=[FIRST, FIRST])


def test_a_player_who_cannot_be_started_is_told_before_any_worker_starts() -> None:
    collector = league_collector(players=[UNSTARTABLE], mode="workers")
    with collector, pytest.raises(ConfigError, match="player unstartable: command='nowhere'"):
        collector.start()
    assert all(worker["pid"] is None for worker in collector.health())


def test_a_player_who_hangs_costs_its_worker_which_is_replaced(tmp_path: Path) -> None:
    with league_collector(
        ActorCritic(build_network(game_factory("tic_tac_toe")(1).spec, kind="mlp", num_blocks=1, channels=4)),
        game=game_factory("tic_tac_toe"),
        players=[hangs_once(tmp_path / "mark")],
        mode="workers",
        num_workers=1,
        heartbeat_s=0.5,
        turn_timeout_s=0.5,
    ) as collector:
        batch = next(iter(collector)).clone()
        assert collector.stats()["restarts"] == 1
    assert (~batch["trainable"]).any()
