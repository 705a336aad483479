"""The command ``keisei export``: a policy from a checkpoint as a file for other programs.

::

    words --> options --> checks --> export (keisei_lightning.export) --> file and card
              errors: exit code 2, torch was not imported
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from typing import Final

from keisei_lightning.commands.export.options import ExportOptions
from keisei_lightning.commands.options_command import OptionsCommand
from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.published import checkpoint_file

__all__ = ["main"]

_ABOUT = """\
Writes a trained policy for other programs: ONNX, torch.export or safetensors, with a card that says what it is. The
file is compared with the checkpoint on positions of random games first; one that differs is not written."""

_NOTES = """\
examples:
  keisei export checkpoint=published:shogi to=shogi.onnx
  keisei export checkpoint=results/shogi/RUN/checkpoints/last.ckpt to=shogi.pt2 positions=10000
  keisei export checkpoint=last.ckpt to=weights.safetensors overwrite=true
  keisei eval game=shogi 'opponents=["onnx(model=shogi.onnx,simulations=64)"]' round_robin=true games=20
"""


def _export(options: ExportOptions) -> None:
    """Check, export, and say what was written.

    Raises:
        ConfigError: with one line for each error; nothing was written.
        KeiseiError: the file cannot be written, or does not compute what the checkpoint does.
    """
    if errors := list(_errors(options)):
        raise ConfigError(errors)
    assert options.checkpoint is not None
    assert options.to is not None
    from keisei_lightning.export.writing import export_policy  # torch: a mistyped command answers without it
    from keisei_lightning.system.console import print_table, quiet_libraries

    quiet_libraries()
    try:
        card = export_policy(
            options.checkpoint,
            options.to,
            file_format=options.format,
            positions=options.positions,
            tolerance=options.tolerance,
            seed=options.seed,
            model=options.model or None,
            overwrite=options.overwrite,
        )
    except ConfigError as error:
        raise ConfigError([line.replace("ckpt_path=", "checkpoint=", 1) for line in error.errors]) from error
    except OSError as error:
        raise KeiseiError(f"to={options.to}: {error.strerror}") from error
    check = card.check
    print_table(
        f"{card.game.name}, {options.checkpoint}",
        {
            "file": f"{options.to} ({os.path.getsize(options.to):,} bytes; {card.file.kind})",
            "card": f"{options.to}.json",
            "positions": f"{check['positions']:,} of {check['games']} random games (seed {check['seed']})",
            "log-probabilities": f"differ by {check['max_log_prob_difference']:.2g} or less",
            "values": f"differ by {check['max_value_difference']:.2g} or less",
            "masks": f"{check['wrong_masks']} wrong",
        },
    )


def _errors(options: ExportOptions) -> Iterator[str]:
    """What is wrong with the command, as far as it can be said without torch."""
    if options.checkpoint is None:
        yield "checkpoint: is missing; must be a checkpoint file"
    else:
        yield from _checkpoint_errors(options.checkpoint)
    if options.to is None:
        yield "to: is missing; must be a file to write, such as policy.onnx"
        return
    from keisei_lightning.export.target import Target

    try:
        Target.of(options.to, options.format, overwrite=options.overwrite)
    except ConfigError as error:
        yield from error.errors


def _checkpoint_errors(checkpoint: str) -> Iterator[str]:
    try:
        file = checkpoint_file(checkpoint)
    except ConfigError as error:
        yield error.errors[0].replace("ckpt_path=", "checkpoint=", 1)
        return
    if not os.path.isfile(file):  # which also tells a name that is too long
        yield f"checkpoint={checkpoint}: there is no such file; must be a checkpoint file"
    elif not zipfile.is_zipfile(file):
        yield f"checkpoint={checkpoint}: cannot be read as a checkpoint (corrupt or truncated: it is no zip file)"


main: Final = OptionsCommand(
    name="export",
    arguments="checkpoint=FILE to=FILE [KEY=VALUE ...]",
    about=_ABOUT,
    options=ExportOptions,
    run=_export,
    notes=lambda: _NOTES,
)
