"""Pure tensor functions of reinforcement learning for two players."""

from keisei_lightning.rl.advantages import AdvantageMoments, batch_advantages, normalize_advantage, two_player_gae
from keisei_lightning.rl.outcomes import outcome_targets
from keisei_lightning.rl.staleness import StalenessBudget, policy_lag
from keisei_lightning.rl.symmetry import TensorSymmetry

__all__ = [
    "AdvantageMoments",
    "StalenessBudget",
    "TensorSymmetry",
    "batch_advantages",
    "normalize_advantage",
    "outcome_targets",
    "policy_lag",
    "two_player_gae",
]
