"""Parallel self-play: worker processes that play rollouts into shared memory, behind a TorchRL collector.

::

    learner                                                        worker (one process each)
    ───────                                                        ─────────────────────────
    collector ── Play(slot, opponent) ──── pipe ─────────────────► waits for a grant
       │                                                           adopts the newest weights ◄── weights (shared memory)
       │                                                           plays T plies of G games ───► slot (shared memory)
       │◄────────────── pipe ───────── RolloutHeader ───────────── announces it: payload first, header last
       ▼
    batch: a TensorDict over the slots, handed back when the next one is asked for

With ``mode="central"`` the workers hold no weights. They ask, and one more process answers::

    worker ── question (shared memory), token (pipe) ──► inference process: adopts the newest weights between rollouts,
       ▲                                                    answers all workers' questions with one forward pass
       └───── answer (shared memory), token (pipe) ──────────┘

What each side consumes, waits for and is unblocked by:

- A worker consumes grants; it waits on its pipe only; a grant or the learner's death unblocks it.
- The collector consumes headers; it waits on all pipes and all process sentinels at once; a header or a death unblocks
  it. A dead worker is replaced by the supervisor, and its grants are given to its replacement.
- The inference process consumes questions; it waits for the workers that are in a rollout, and hears of their deaths.
- Publishing weights waits for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.parallel.collector import SelfPlayCollector
    from keisei_lightning.parallel.options import (
        BatchOptions,
        CollectorOptions,
        OpponentOptions,
        SupervisionOptions,
        WorkerOptions,
    )
    from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState

__all__ = [
    "BatchOptions",
    "CollectorOptions",
    "OpponentOptions",
    "RestartPolicy",
    "SelfPlayCollector",
    "SupervisionOptions",
    "WorkerOptions",
    "WorkerState",
]

_MODULE_OF = {
    "BatchOptions": "options",
    "CollectorOptions": "options",
    "OpponentOptions": "options",
    "RestartPolicy": "supervision.restarts",
    "SelfPlayCollector": "collector",
    "SupervisionOptions": "options",
    "WorkerOptions": "options",
    "WorkerState": "supervision.restarts",
}

# A worker that only plays moves needs no torch.
__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
