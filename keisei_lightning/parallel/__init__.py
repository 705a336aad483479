"""Parallel self-play: worker processes play rollouts into shared memory, behind a TorchRL collector.

::

    learner                                                        worker (one process each)
    ───────                                                        ─────────────────────────
    collector ── Play(slot, opponent) ──── pipe ─────────────────► waits for a grant
       │                                                           adopts the newest weights ◄── weights (shared memory)
       │                                                           plays T plies of G games ───► slot (shared memory)
       │◄────────────── pipe ───────── RolloutHeader ───────────── announces it: payload first, header last
       ▼
    batch: a TensorDict over the slots, valid until the next one is requested

With ``mode="central"`` the workers hold no weights. They send requests, and one more process, the inference process,
serves them::

    worker ── request (shared memory), token (pipe) ──► inference process: adopts the newest weights between rollouts,
       ▲                                                   serves all workers' requests with one forward pass
       └───── result (shared memory), token (pipe) ────────┘

What each process consumes, waits for, and is unblocked by:

- A worker consumes grants; it waits only on its pipe; a grant or the learner's death unblocks it.
- The collector consumes headers; it waits on all pipes and all process sentinels at once; a header or a death unblocks
  it. The supervisor replaces a dead worker, and the replacement gets its grants.
- The inference process consumes requests; it waits for the workers that are within a rollout, and the learner announces
  their deaths to it.
- Publishing weights never waits.

Where things are, from batches down to memory (each line imports only lines below it):

- ``collector``, ``session``, ``options``: the public class, the parts of a running one, its options.
- ``intake``, ``stats``: make batches of rollouts, and count them.
- ``backend``, ``serial_backend``, ``process_backend``, ``central/``, ``cluster/``: the four modes.
- ``playing/``: plays rollouts; the loop of a worker process.
- ``opponents/``: whom games are played against: snapshots, other policies, players.
- ``policy/``: inference requests, and servers for them.
- ``supervision/``: starts, watches and replaces processes.
- ``memory/``: shared memory: slots, weights, mailbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.parallel.collector import SelfPlayCollector
    from keisei_lightning.parallel.opponents.league import League, PolicyMember
    from keisei_lightning.parallel.opponents.players import PlayerMember
    from keisei_lightning.parallel.options import (
        BatchOptions,
        ClusterOptions,
        CollectorOptions,
        OpponentOptions,
        SupervisionOptions,
        WorkerOptions,
    )
    from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState

__all__ = [
    "BatchOptions",
    "ClusterOptions",
    "CollectorOptions",
    "League",
    "OpponentOptions",
    "PlayerMember",
    "PolicyMember",
    "RestartPolicy",
    "SelfPlayCollector",
    "SupervisionOptions",
    "WorkerOptions",
    "WorkerState",
]

_MODULE_OF = {
    "BatchOptions": "options",
    "ClusterOptions": "options",
    "CollectorOptions": "options",
    "League": "opponents.league",
    "OpponentOptions": "options",
    "PlayerMember": "opponents.players",
    "PolicyMember": "opponents.league",
    "RestartPolicy": "supervision.restarts",
    "SelfPlayCollector": "collector",
    "SupervisionOptions": "options",
    "WorkerOptions": "options",
    "WorkerState": "supervision.restarts",
}

# A worker that only plays moves needs no torch.
__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
