"""Networks, the distribution over legal moves, and the actor-critic that workers and learner share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.models.actor_critic import NEW_STATE_VALUE, ActorCritic, logits_actor, value_selector
    from keisei_lightning.models.bitmask import pack_mask, unpack_mask
    from keisei_lightning.models.build import build_network, build_recorded_network, num_parameters
    from keisei_lightning.models.distribution import LegalCategorical
    from keisei_lightning.models.encoder import Encoder, PlanesEncoder, build_encoder, register_encoder
    from keisei_lightning.models.mlp import MLPNetwork
    from keisei_lightning.models.modes import evaluation_mode
    from keisei_lightning.models.options import NetworkKind, NetworkOptions, ValueKind
    from keisei_lightning.models.registry import register_network
    from keisei_lightning.models.resnet import ResidualNetwork

__all__ = [
    "NEW_STATE_VALUE",
    "ActorCritic",
    "Encoder",
    "LegalCategorical",
    "MLPNetwork",
    "NetworkKind",
    "NetworkOptions",
    "PlanesEncoder",
    "ResidualNetwork",
    "ValueKind",
    "build_encoder",
    "build_network",
    "build_recorded_network",
    "evaluation_mode",
    "logits_actor",
    "num_parameters",
    "pack_mask",
    "register_encoder",
    "register_network",
    "unpack_mask",
    "value_selector",
]

_MODULE_OF = {
    "NEW_STATE_VALUE": "actor_critic",
    "ActorCritic": "actor_critic",
    "Encoder": "encoder",
    "LegalCategorical": "distribution",
    "MLPNetwork": "mlp",
    "NetworkKind": "options",
    "NetworkOptions": "options",
    "PlanesEncoder": "encoder",
    "ResidualNetwork": "resnet",
    "ValueKind": "options",
    "build_encoder": "encoder",
    "build_network": "build",
    "build_recorded_network": "build",
    "evaluation_mode": "modes",
    "logits_actor": "actor_critic",
    "num_parameters": "build",
    "pack_mask": "bitmask",
    "register_encoder": "encoder",
    "register_network": "registry",
    "unpack_mask": "bitmask",
    "value_selector": "actor_critic",
}

# ``equivariance.py`` checks whether a network fits a game, without torch.
__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
