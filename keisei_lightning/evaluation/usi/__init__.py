"""Players that are USI engines: external programs that implement the Universal Shogi Interface.

``options`` knows the engines' options, ``engine`` runs one process, ``players`` makes players of such processes.
"""
