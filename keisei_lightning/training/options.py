"""Options of training: the loss, its minibatches, evaluation, checkpoints and publishing. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from keisei_lightning.system.compile_modes import CompileMode
from keisei_lightning.system.options import Options, option

__all__ = [
    "CheckpointOptions",
    "EvaluationOptions",
    "LeagueOptions",
    "MinibatchOptions",
    "PPOOptions",
    "SearchTargetOptions",
    "SnapshotOptions",
    "WeightSyncOptions",
]


@dataclass(frozen=True, kw_only=True)
class PPOOptions(Options):
    """Loss and optimiser of :class:`~keisei_lightning.training.PPOModule`."""

    clip_epsilon: float = option(
        0.2, "The new policy's probability ratio is clipped to 1 - epsilon and 1 + epsilon.", above=0, below=1
    )
    entropy_coeff: float = option(0.01, "Weight of the policy's entropy at the start.", low=0)
    final_entropy_coeff: float | None = option(
        None, "Weight of the entropy at the end, reached linearly; null: constant.", low=0
    )
    critic_coeff: float = option(0.5, "Weight of the value loss.", above=0)
    critic_loss: Literal["l2", "smooth_l1", "l1"] = option("l2", "Distance of the value from its target.")
    clip_value: float | None = option(None, "Limit of the value's change in one update; null: no limit.", above=0)
    learning_rate: float = option(1e-3, "Adam's step size at the start.", above=0, high=1)
    final_learning_rate: float | None = option(
        None, "Adam's step size at the end, reached linearly over the training; null: constant.", low=0, high=1
    )
    # It is divided by 1.5 after an iteration above twice the target and multiplied by 1.5 after one below half of it,
    # within a factor of 100 of what the schedule says. (Schulman et al. 2017, section 4, adapts a penalty by this rule;
    # Rudin et al. 2022, arXiv:2109.11978, the learning rate.)
    kl_target: float | None = option(
        None,
        "Adapt the learning rate so that an iteration changes the policy by about this KL divergence (nats); null: the "
        "schedule alone.",
        above=0,
    )
    adam_eps: float = option(1e-5, "Adam's epsilon.", above=0)
    weight_decay: float = option(0.0, "Decoupled weight decay, as in AdamW.", low=0)
    compile_mode: CompileMode | None = option(
        None,
        "Mode of torch.compile for the learner's network, for which the first minibatch waits; null: not compiled.",
    )


@dataclass(frozen=True, kw_only=True)
class MinibatchOptions(Options):
    """How :class:`~keisei_lightning.training.SelfPlayDataModule` makes minibatches of a rollout."""

    gamma: float = option(0.995, "Discount of a ply.", low=0, high=1)
    lmbda: float = option(0.95, "Lambda of generalised advantage estimation (GAE).", low=0, high=1)
    epochs: int = option(2, "Shuffled passes over each batch.", low=1, high=100)
    minibatch_size: int = option(
        1024,
        "Plies of a minibatch of each learner, at most; a pass is split evenly, so that no part is tiny.",
        low=1,
    )
    normalize_advantage: bool = option(True, "Give the advantages of a batch mean 0 and standard deviation 1.")
    advantage_share: float = option(
        1.0, "Share of a batch's plies that are learned from: those with the largest advantages.", above=0, high=1
    )
    decoupled: bool = option(
        False, "Keep the behaviour policy apart from the proximal one, for batches some versions old (async)."
    )

    def learned(self, plies: int) -> int:
        """How many of so many plies are learned from."""
        return math.ceil(self.advantage_share * plies * (1 - 1e-12))  # 0.1 x 30 is a little more than 3


@dataclass(frozen=True, kw_only=True)
class SearchTargetOptions(Options):
    """Learning from searches beside PPO (:class:`~keisei_lightning.training.SearchTargets`)."""

    enabled: bool = option(False, "Also learn from games that the learner plays by a tree search.")
    from_fraction: float = option(0.0, "Searches begin after this part of the training.", low=0, below=1)
    share: float = option(
        0.2, "Positions searched in an iteration for each ply of its rollout, in whole plies of all games.", above=0
    )
    games: int = option(64, "Games played side by side; all are searched together.", low=1, high=65_536)
    simulations: int = option(32, "Positions that a search adds to its tree for a move.", low=1)
    value_scale: float = option(1.0, "Weight of a search's values beside the policy in what is learned.", above=0)
    window: int = option(10_000, "Newest searched positions that are kept to learn from.", low=1, high=10_000_000)
    minibatch_size: int = option(
        64, "Searched positions that each minibatch learns from, drawn from all that are kept.", low=1
    )
    policy_coeff: float = option(1.0, "Weight of the policy's cross-entropy with what the searches prefer.", low=0)
    value_coeff: float = option(0.5, "Weight of the value's squared distance from the searches' values.", low=0)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """Matches of the policy, greedy, while it trains (:class:`~keisei_lightning.training.EvaluationCallback`)."""

    opponents: list[str] = option(
        factory=lambda: ["random"],
        sentence="Players by name, such as random or alpha_beta(depth=3). The final score against the first one is the "
        "objective of a sweep.",
    )
    every_n_epochs: int = option(
        10, "PPO iterations between evaluations; 0: only at the end. The last one is always played.", low=0
    )
    num_games: int = option(
        100,
        "Games against each opponent; each opening is played from both seats.",
        low=2,
        high=100_000,
        is_even=True,
    )
    opening_plies: int | None = option(
        None, "Each opening has 0 to this many random plies; null: as the game's own options say.", low=0
    )
    simulations: int = option(
        0, "The policy searches: positions that a tree search looks at for a move; 0: the policy alone.", low=0
    )
    at_start: bool = option(False, "Also evaluate the weights that training starts from.")
    against_epochs_ago: int | None = option(
        None, "Also play the policy of so many iterations ago (a multiple of every_n_epochs); null: do not.", low=1
    )
    ladder: str | None = option(
        None,
        "Opponents whose games against each other are known, so that eval/rating (Elo) can be computed: a ladder's "
        "name, such as shogi, or the path of a results.json of `keisei eval round_robin=true`.",
    )
    max_time_share: float | None = option(
        None,
        "Share of the time that evaluations may take; one that would exceed it is left out (the first and the last are "
        "always played). null: no limit.",
        above=0,
        high=1,
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(Options):
    """What is kept of a run."""

    every_n_epochs: int = option(10, "PPO iterations between checkpoints; last.ckpt is always the newest one.", low=1)
    keep: int = option(1, "Older checkpoints that stay beside last.ckpt; -1: all of them.", low=-1)
    keep_best: bool = option(
        False,
        "Also keep best.ckpt, the evaluated policy with the highest score against the first of evaluation.opponents.",
    )


@dataclass(frozen=True, kw_only=True)
class WeightSyncOptions(Options):
    """When :class:`~keisei_lightning.training.WeightSyncCallback` publishes new weights to the workers."""

    every_n_steps: int | None = option(
        None, "Publish whenever the optimiser steps are a multiple of this; null: once per PPO iteration.", low=1
    )


@dataclass(frozen=True, kw_only=True)
class SnapshotOptions(Options):
    """When :class:`~keisei_lightning.training.SnapshotCallback` freezes the policy."""

    every_n_epochs: int = option(20, "PPO iterations between two snapshots of the policy.", low=1)


@dataclass(frozen=True, kw_only=True)
class LeagueOptions(Options):
    """Members of a league beside snapshots, and when these join (:class:`LeagueCallback`)."""

    members: list[str] = option(
        factory=list,
        sentence="With a league: players by name, such as mate_in_one, alpha_beta(depth=3) or usi(command=engine,"
        "nodes=100), and checkpoint files of the same network, such as results/shogi/RUN/checkpoints/last.ckpt.",
    )
    # Vinyals et al. 2019, "Grandmaster level in StarCraft II", let a main exploiter join when it beats all of the
    # league's main agents in 70 % of the games, or after a time.
    join_score: float | None = option(
        None,
        "With a league: a snapshot that is due joins only if the learner's mean score against the frozen policies is "
        "at least this; otherwise it is asked again an iteration later. null: it joins always.",
        low=0,
        below=1,
    )
    folder: str | None = option(
        None,
        "With a league: a folder that several runs share. This run puts its snapshots there, and takes those of the "
        "others into its ring. null: it shares none.",
    )
    own_snapshots: bool = option(
        True,
        "With a league: this run's snapshots join its own ring; false: only opponents.folder has them, and the run "
        "plays against others alone, as one that looks for their weaknesses (an exploiter) does.",
    )
