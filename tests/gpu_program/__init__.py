"""``tests/gpu.py``: tests and measurements on an accelerator, each part in a process of its own.

::

    setup: PYTHONPATH, metadata, kernel --> parts: what is run --> processes: run one, bounded --> report: JSON, table

Nothing here imports torch: a machine whose torch is broken is told so by a part that fails, not by a program that does.
"""
