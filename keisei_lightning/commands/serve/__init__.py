"""The command ``keisei serve``: the site of :mod:`keisei_lightning.serve`, at an address of this machine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.commands.serve.options import ServeOptions
from keisei_lightning.errors import ConfigError

__all__ = ["main"]

_ABOUT = """\
Shows a page in the browser: play any game against policies, and watch trainings while they run."""

_NOTES = """\
examples:
  keisei serve
  keisei serve folder=results port=9000 open=false
  keisei serve checkpoint=results/shogi/RUN/checkpoints/last.ckpt
  keisei serve host=0.0.0.0                  also for other machines: open the address that it prints
It ends with Ctrl-C. It needs starlette and uvicorn: pip install 'keisei-lightning[serve]'"""


def _serve(options: ServeOptions) -> None:
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise ConfigError(
            f"serve: {' and '.join(missing)} cannot be imported; install them by pip install 'keisei-lightning[serve]'"
        )
    from keisei_lightning.commands.serve.run import serve

    serve(options)


main: Final = OptionsCommand(
    name="serve",
    arguments="[KEY=VALUE ...]",
    about=_ABOUT,
    options=ServeOptions,
    run=_serve,
    notes=lambda: f"{_NOTES}\n",
)
