import copy

import cloudpickle
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from keisei_lightning.games import GameSpec
from keisei_lightning.models import ActorCritic, build_network, logits_actor, pack_mask, value_selector


def make_policy(spec: GameSpec, kind: str = "resnet") -> ActorCritic:
    """A small policy with an opinion (the first weights have none)."""
    actor_critic = ActorCritic(build_network(spec, kind=kind, num_blocks=1, channels=8))
    for parameter in actor_critic.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return actor_critic


def make_minibatch(spec: GameSpec, policy: ActorCritic, size: int = 24) -> TensorDict:
    observation = torch.randint(0, 2, (size, *spec.observation_shape), dtype=torch.uint8)
    mask = torch.rand(size, spec.num_actions) < 0.5
    mask[:, 0] = True
    with torch.no_grad():
        action, log_prob, value = policy.act(observation, pack_mask(mask))
    batch = {
        "observation": observation,
        "action_mask": pack_mask(mask),
        "action": action,
        "action_log_prob": log_prob + 0.1 * torch.randn(size),
        "state_value": value + 0.1 * torch.randn(size, 1),
        "advantage": torch.randn(size, 1),
        "value_target": torch.rand(size, 1),
    }
    return TensorDict(batch, batch_size=[size])


def test_act_plays_legal_moves_and_knows_their_probability(planes_spec):
    policy = make_policy(planes_spec)
    batch = make_minibatch(planes_spec, policy)
    with torch.inference_mode():
        action, log_prob, value = policy.act(batch["observation"], batch["action_mask"])
        actor = policy.as_actor().get_dist(batch)
    assert action.dtype == torch.int64
    assert (log_prob.dtype, value.dtype) == (torch.float32, torch.float32)
    assert (log_prob.shape, value.shape) == ((24,), (24, 1))
    torch.testing.assert_close(log_prob, actor.log_prob(action), atol=3e-6, rtol=0)
    assert log_prob.isfinite().all()
    assert torch.equal(value, policy.value(batch["observation"]))


def test_finished_games_sit_out(planes_spec):
    policy = make_policy(planes_spec)
    observation = torch.zeros(3, *planes_spec.observation_shape, dtype=torch.uint8)
    mask = torch.tensor([[0], [0b1000_0000], [0]], dtype=torch.uint8)
    for greedy in (False, True):
        action, log_prob, _ = policy.act(observation, mask, greedy=greedy)
        assert action.tolist() == [-1, 0, -1]
        assert log_prob.tolist() == [0.0, 0.0, 0.0]


def test_packed_and_plain_masks_give_the_same_move_from_the_same_generator(shogi_spec):
    policy = make_policy(shogi_spec)
    observation = torch.randint(0, 2, (16, 98), dtype=torch.uint8)
    mask = torch.rand(16, 2187) < 0.04
    plain, packed = (
        policy.act(observation, each, generator=torch.Generator().manual_seed(2))[0] for each in (mask, pack_mask(mask))
    )
    assert torch.equal(plain, packed)


def test_the_torchrl_policy_follows_the_exploration_type(planes_spec):
    policy = make_policy(planes_spec)
    batch = make_minibatch(planes_spec, policy, size=256)
    greedy = policy.act(batch["observation"], batch["action_mask"], greedy=True)[0]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        deterministic = policy.as_policy()(batch.clone())
    assert torch.equal(deterministic["action"], greedy)
    with set_exploration_type(ExplorationType.RANDOM):
        assert not torch.equal(policy.as_policy()(batch.clone())["action"], greedy)
    assert deterministic["action_log_prob"].shape == (256,)
    assert deterministic["state_value"].shape == (256, 1)


def test_actor_and_critic_write_torchrls_keys(planes_spec):
    policy = make_policy(planes_spec)
    batch = make_minibatch(planes_spec, policy).select("observation", "action_mask")
    acted = policy.as_actor()(batch.clone())
    assert set(acted.keys()) == {"observation", "action_mask", "logits", "action", "action_log_prob"}
    evaluated = policy.as_critic()(batch.clone())
    assert set(evaluated.keys()) == {"observation", "action_mask", "state_value"}
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        greedy = policy.as_actor()(batch.clone())["action"]
    assert torch.equal(greedy, policy.act(batch["observation"], batch["action_mask"], greedy=True)[0])


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
@pytest.mark.parametrize("clip_value", [None, 0.05])
def test_one_pass_of_the_trunk_gives_the_loss_and_gradients_of_two(kind, clip_value, shogi_spec):
    one, options = make_policy(shogi_spec, kind), {"clip_epsilon": 0.2, "entropy_coeff": 0.01, "clip_value": clip_value}
    two = copy.deepcopy(one)
    batch = make_minibatch(shogi_spec, one)
    two_passes = ClipPPOLoss(two.as_actor(), two.as_critic(), **options)
    one_pass = ClipPPOLoss(logits_actor(), value_selector(), functional=False, **options)
    expected, found = two_passes(batch.clone()), one_pass(one.as_evaluator()(batch.clone()))
    assert set(expected.keys()) == set(found.keys())
    for key in sorted(expected.keys()):
        torch.testing.assert_close(found[key], expected[key], atol=1e-6, rtol=1e-5)
    for losses in (expected, found):
        (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_one_pass_runs_the_network_once(planes_spec):
    policy = make_policy(planes_spec)
    passes = []
    policy.network.register_forward_hook(lambda *_: passes.append(1))
    loss = ClipPPOLoss(logits_actor(), value_selector(), functional=False)
    batch = make_minibatch(planes_spec, policy)
    passes.clear()
    loss(policy.as_evaluator()(batch))
    assert len(passes) == 1


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_the_first_minibatch_has_ratio_one(kind, shogi_spec):
    policy = make_policy(shogi_spec, kind)
    batch = make_minibatch(shogi_spec, policy, size=64)
    worker = copy.deepcopy(policy).eval()
    with torch.inference_mode():
        action, log_prob, _ = worker.act(batch["observation"], batch["action_mask"])
    batch.update({"action": action.clone(), "action_log_prob": log_prob.clone()})
    losses = ClipPPOLoss(logits_actor(), value_selector(), functional=False)(policy.train().as_evaluator()(batch))
    assert losses["max_ratio"].item() == pytest.approx(1.0, abs=5e-6)
    assert losses["clip_fraction"].item() == 0
    assert losses["kl_approx"].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
@pytest.mark.parametrize("value_head", ["scalar", "wdl"])
def test_structure_and_named_tensors_are_all_there_is(kind, value_head, shogi_spec):
    """A worker gets the pickled structure without values, then every parameter and buffer by name."""
    policy = ActorCritic(build_network(shogi_spec, kind=kind, num_blocks=2, channels=8, value_head=value_head))
    structure = cloudpickle.loads(cloudpickle.dumps(copy.deepcopy(policy).to("meta")))
    arrived = structure.to_empty(device="cpu")
    tensors = {**dict(policy.named_parameters()), **dict(policy.named_buffers())}
    with torch.no_grad():
        for name, target in (*arrived.named_parameters(), *arrived.named_buffers()):
            target.copy_(tensors[name])
    observation = torch.randint(0, 2, (4, 98), dtype=torch.uint8)
    for a, b in zip(policy(observation), arrived(observation), strict=True):
        assert torch.equal(a, b)
