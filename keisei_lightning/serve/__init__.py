r"""A local web site: play against policies, and watch trainings.

::

    browser --HTTP--> Guard (host, origin, token, size) --> routes --> Games --> WorkThreads (boards, searches)
                                                               \-----> Runs  (files of the results folder, read only)

The event loop never plays a move and never reads a run: a board belongs to one thread of :class:`WorkThreads`, from
its first move to its last, and files are read in threads of their own. Nothing is done unless a client asks for it and
waits for it: who goes takes the search along. Whatever grows is bounded: games, waiting jobs, bodies, points of a
curve.
"""

from keisei_lightning.serve.site import make_site

__all__ = ["make_site"]
