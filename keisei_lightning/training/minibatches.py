"""From one rollout to the minibatches of one PPO iteration.

Advantages are computed once, on the CPU, where the rollout is (their checks read values, which would wait for an
accelerator). The plies stay there (in shared memory, not copied), or are moved to the accelerator as a whole; a
minibatch gathers only the rows and keys that the loss reads, without waiting for the accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from keisei_lightning.models import LegalCategorical
from keisei_lightning.models.compiling import Evaluator
from keisei_lightning.models.transfers import to_device, to_host
from keisei_lightning.rl.advantages import AdvantageMoments, batch_advantages, normalize_advantage
from keisei_lightning.rl.outcomes import outcome_targets
from keisei_lightning.training.ppo_loss import OUTCOME_TARGET, PROXIMAL_LOG_PROB
from keisei_lightning.training.ranks import Ranks

__all__ = [
    "MINIBATCH_KEYS",
    "add_advantages",
    "add_advantages_of_all",
    "add_outcomes",
    "decouple",
    "largest_advantages",
    "minibatches",
    "shuffle_generator",
]

MINIBATCH_KEYS = (
    "observation",
    "action_mask",
    "action",
    "action_log_prob",
    "state_value",
    "advantage",
    "value_target",
)
"""Keys of a minibatch: what ``ClipPPOLoss`` reads; :func:`decouple` and :func:`add_outcomes` add one each."""


def add_advantages(
    rollout: TensorDictBase, *, gamma: float, lmbda: float, normalize: bool
) -> tuple[TensorDict, Tensor]:
    """Compute the advantages of a rollout and flatten it.

    Args:
        rollout: [G, T] with the keys of the batch table. It is not written to.
        gamma: discount per ply.
        lmbda: GAE's lambda.
        normalize: give the trainable plies' advantages mean 0 and standard deviation 1, over the whole rollout.

    Returns:
        ``plies``: TensorDict [G * T] with :data:`MINIBATCH_KEYS` (``advantage`` and ``value_target`` are float32
        [G * T, 1]), views of the rollout where its strides allow; ``trainable``: int64 [N], the rows to learn from.
    """
    trainable = rollout.get("trainable")
    with torch.no_grad():
        advantage, value_target = batch_advantages(rollout, gamma=gamma, lmbda=lmbda)
        if normalize:
            advantage = normalize_advantage(advantage, trainable)
    values = {"advantage": advantage, "value_target": value_target}
    columns = {key: values[key] if key in values else rollout.get(key) for key in MINIBATCH_KEYS}
    plies = TensorDict({key: column.flatten(0, 1) for key, column in columns.items()}, batch_size=rollout.numel())
    return plies, trainable.flatten().nonzero().squeeze(-1)


def add_advantages_of_all(
    rollout: TensorDictBase, ranks: Ranks, *, gamma: float, lmbda: float, normalize: bool
) -> tuple[TensorDict, Tensor, list[int]]:
    """As :func:`add_advantages`, but normalise the advantages of all ranks' rollouts together.

    Args:
        rollout: [G, T] of this rank.
        ranks: the learners, all of which call this.
        gamma: discount per ply.
        lmbda: GAE's lambda.
        normalize: give the trainable plies' advantages, of all ranks, mean 0 and standard deviation 1.

    Returns:
        ``plies`` and ``trainable`` of this rank, and the number of trainable plies of each.
    """
    if ranks.size == 1:
        plies, trainable = add_advantages(rollout, gamma=gamma, lmbda=lmbda, normalize=normalize)
        return plies, trainable, [len(trainable)]
    plies, trainable = add_advantages(rollout, gamma=gamma, lmbda=lmbda, normalize=False)
    advantage = plies.get("advantage")
    own = advantage[trainable]
    moments = ranks.collect("computing advantages", lambda: AdvantageMoments.of(own))
    if normalize:
        normal = AdvantageMoments.combined(moments).normalize(own)
        plies.set("advantage", torch.zeros_like(advantage).index_copy_(0, trainable, normal))
    return plies, trainable, [part.count for part in moments]


def largest_advantages(plies: TensorDict, trainable: Tensor, count: int) -> Tensor:
    """The plies of which most is to be learned: those whose results differ most from what was expected.

    What is left out would hardly move the policy, and costs as much time (A. Jiang et al., "Accelerating Deep Learning
    by Focusing on the Biggest Losers", arXiv:1910.00762, do the same with losses).

    Args:
        plies: TensorDict [M] with ``advantage`` float32 [M, 1].
        trainable: int64 [N], rows of it, on the CPU.
        count: how many of them, N at most.

    Returns:
        int64 [count], in the order of ``trainable``; of equal advantages those of the first rows.
    """
    if count >= len(trainable):
        return trainable
    sizes = plies.get("advantage").squeeze(-1)[trainable].abs()
    return trainable[sizes.argsort(descending=True, stable=True)[:count].sort().values]


@torch.no_grad()
def decouple(plies: TensorDict, trainable: Tensor, evaluate: Evaluator, *, num_minibatches: int) -> TensorDict:
    """Centre the trust region on the learner's present policy instead of the older one that played.

    The objective is that of :class:`~keisei_lightning.training.ppo_loss.LegalMovesPPOLoss`. The policy is evaluated in
    batches of a minibatch's size, so that kernels round as in the loss: the first minibatch's ratio is 1.

    Args:
        plies: TensorDict [M] of :func:`add_advantages`, where the network is; it is not written to.
        trainable: int64 [N], rows of it to learn from, on the CPU.
        evaluate: the present policy, in the precision of the loss (the caller enters the trainer's autocast).
        num_minibatches: parts of a pass, as for :func:`minibatches`.

    Returns:
        TensorDict [M] with one more column, ``proximal_log_prob`` float32 [M]: the logarithm of the present policy's
        probability of each action; the behaviour policy's in rows that are not learned from.
    """
    decoupled = plies.clone(recurse=False)
    proximal = plies.get("action_log_prob").clone()
    if len(trainable):
        for rows in to_device(trainable, proximal.device).tensor_split(min(num_minibatches, len(trainable))):
            logits, _ = evaluate(plies.get("observation").index_select(0, rows))
            legal = LegalCategorical(logits, plies.get("action_mask").index_select(0, rows))
            proximal.index_copy_(0, rows, legal.log_prob(plies.get("action").index_select(0, rows)))
    return decoupled.set(PROXIMAL_LOG_PROB, proximal)


@torch.no_grad()
def add_outcomes(
    plies: TensorDict, rollout: TensorDictBase, evaluate: Evaluator, *, gamma: float, lmbda: float, num_minibatches: int
) -> TensorDict:
    """Add the targets of a win-draw-loss head; it costs a forward pass of every ply.

    Args:
        plies: TensorDict [G * T] of :func:`add_advantages`, where the network is; it is not written to.
        rollout: [G, T], from which they come, on the CPU.
        evaluate: observations [B, *obs] to logits and log-probabilities [B, 3].
        gamma: discount per ply.
        lmbda: GAE's lambda.
        num_minibatches: the plies are evaluated in this many parts.

    Returns:
        TensorDict [G * T] with one more column, ``outcome_target`` float32 [G * T, 3]
        (:func:`~keisei_lightning.rl.outcome_targets`).
    """
    parts = plies.get("observation").tensor_split(num_minibatches)
    decisive = 1.0 - torch.cat([evaluate(part)[1][:, 1:2].float().exp() for part in parts])
    shape = (*rollout.batch_size, 1)
    value_target = to_host(plies.get("value_target")).view(shape)
    targets = outcome_targets(rollout, to_host(decisive).view(shape), value_target, gamma=gamma, lmbda=lmbda)
    with_outcomes = plies.clone(recurse=False)
    return with_outcomes.set(OUTCOME_TARGET, to_device(targets.flatten(0, 1), decisive.device))


def shuffle_generator(seed: int, iteration: int, rank: int = 0) -> torch.Generator:
    """The random stream that shuffles one iteration: a resumed run shuffles as one that never stopped.

    Args:
        seed: of all shuffling.
        iteration: number of the PPO iteration.
        rank: the learner whose plies are shuffled.
    """
    state = np.random.SeedSequence((seed, iteration, *([rank] if rank else []))).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def minibatches(
    plies: TensorDict,
    trainable: Tensor,
    *,
    num_epochs: int,
    num_minibatches: int,
    generator: torch.Generator,
    skip: int = 0,
) -> Iterator[TensorDict]:
    """Shuffled passes over the trainable plies.

    Each pass covers every trainable ply exactly once, in ``num_minibatches`` parts whose sizes differ by at most one,
    so that no step is taken on a tiny remainder. A pass has fewer parts only if there are fewer plies than parts.

    Args:
        plies: TensorDict [M].
        trainable: int64 [N], rows of ``plies`` to learn from, on the CPU.
        num_epochs: number of passes.
        num_minibatches: parts of a pass.
        generator: shuffles.
        skip: leave out this many minibatches at the start; the others are the same as without it.

    Yields:
        TensorDict [b], copies (rows of ``plies``), on the device of ``plies``.
    """
    parts = min(num_minibatches, len(trainable))
    if parts == 0:
        return
    columns = dict(plies.items())
    device = next(iter(columns.values())).device
    for epoch in range(num_epochs):
        # On the CPU, where a permutation needs no device's random stream; the whole pass in one transfer.
        order = to_device(trainable[torch.randperm(len(trainable), generator=generator)], device)
        for rows in order.tensor_split(parts)[max(0, skip - epoch * parts) :]:
            picked = {key: column.index_select(0, rows) for key, column in columns.items()}
            yield TensorDict(picked, batch_size=len(rows))
