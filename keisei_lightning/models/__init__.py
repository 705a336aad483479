"""Networks, their legal-moves-only policy, and the actor-critic that workers and learner share."""

from keisei_lightning.models.actor_critic import NEW_STATE_VALUE, ActorCritic, logits_actor, value_selector
from keisei_lightning.models.bitmask import pack_mask, unpack_mask
from keisei_lightning.models.build import NetworkKind, build_network, num_parameters
from keisei_lightning.models.distribution import LegalCategorical
from keisei_lightning.models.encoder import Encoder, PlanesEncoder, ShogiEncoder, build_encoder
from keisei_lightning.models.heads import ValueKind
from keisei_lightning.models.mlp import MLPNetwork
from keisei_lightning.models.modes import evaluation_mode
from keisei_lightning.models.resnet import ResidualNetwork

__all__ = [
    "NEW_STATE_VALUE",
    "ActorCritic",
    "Encoder",
    "LegalCategorical",
    "MLPNetwork",
    "NetworkKind",
    "PlanesEncoder",
    "ResidualNetwork",
    "ShogiEncoder",
    "ValueKind",
    "build_encoder",
    "build_network",
    "evaluation_mode",
    "logits_actor",
    "num_parameters",
    "pack_mask",
    "unpack_mask",
    "value_selector",
]
