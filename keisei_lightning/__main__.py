"""``python -m keisei_lightning`` is the command ``keisei``."""

import sys

from keisei_lightning.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
