"""The command ``keisei engine``: a policy of any game behind a text protocol."""

from __future__ import annotations

from typing import Final

from keisei_lightning.commands.engine_options import EngineOptions
from keisei_lightning.commands.options_command import OptionsCommand

__all__ = ["main"]

_ABOUT = """\
Speaks a text protocol on standard input and output: GTP (hex, othello), or UGI, which is UCI for any game. For shogi
there is `keisei usi`."""

_NOTES = """\
examples:
  keisei engine checkpoint=published:hex protocol=gtp
  keisei engine checkpoint=published:connect_four simulations=200
  printf 'genmove b\\nshowboard\\n' | keisei engine checkpoint=published:othello protocol=gtp
"""


def _run(options: EngineOptions) -> None:
    from keisei_lightning.commands.engine_process import run_engine

    if options.protocol == "gtp":
        from keisei_lightning.engine.gtp import GtpProgram

        run_engine(GtpProgram, options)
        return
    from keisei_lightning.engine.ugi import UgiProgram

    run_engine(UgiProgram, options)


main: Final = OptionsCommand(
    name="engine",
    arguments="checkpoint=FILE [protocol=ugi|gtp] [KEY=VALUE ...]",
    about=_ABOUT,
    options=EngineOptions,
    run=_run,
    notes=lambda: _NOTES,
)
