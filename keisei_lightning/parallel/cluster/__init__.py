"""``mode="ray"``: the workers of several machines. Imported only when asked for; nothing else imports Ray.

::

    learner                                                node agent (a Ray actor on each machine)
    ───────                                                ────────────────────────────────────────
    collector ── grant(Grant) ───── actor call ──────────► holds it until the weights and the snapshot are there
       │       ── weights, snapshots: object store ──────► its own shared memory ──► its workers, as everywhere
       │                                                    its own supervisor and slots
       │◄── Report (rollouts, health) ── object store ──── answers poll(accepted)
       ▼
    its own slots: one copy of each rollout, and then everything is as with workers of this machine

An agent runs the ``ProcessBackend`` of ``mode="workers"`` as it is. The learner supervises agents as a supervisor does
its workers: by the same restart policy, with a long poll in place of a pipe and a heartbeat board.

- ``messages``: what learner and agents tell each other.
- ``agent``: an agent, without Ray.
- ``weight_codec``: weights as they travel.
- ``placement``: which node an agent goes to.
- ``fleet``: starts, watches and replaces agents.
- ``deliveries``: brings weights and snapshots to the agents.
- ``backend``: the learner's end: a ``Backend`` as the others.
- ``guard``: ends a cluster that was started here when its learner was killed.
- ``ray_cluster``, ``actor``: Ray's end of the learner and of an agent; the only modules that import Ray.
"""
