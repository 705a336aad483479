"""Train a two-player game by self-play: ``python train.py experiment=smoke``; ``python train.py --help`` tells more.

Compose the configuration, validate it, run it; the same as ``keisei train``. A sweep (``-m``) optimises the score that
each run returns.
"""

import sys

from keisei_lightning.commands.train import main

if __name__ == "__main__":  # worker processes may import this file: they must not train
    sys.exit(main())
