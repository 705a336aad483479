"""The words after ``keisei eval``: keys and values in Hydra's notation, all faults told at once.

This module imports no torch, so that ``--help`` and a mistyped command answer at once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from keisei_lightning.config.bounds import Bounds
from keisei_lightning.config.compose_errors import explain
from keisei_lightning.config.option_checks import no_path, one_line
from keisei_lightning.config.quoting import quote_texts
from keisei_lightning.errors import ConfigError

__all__ = ["CHECKPOINT_SUFFIX", "HELP", "Options", "read_options"]

CHECKPOINT_SUFFIX = ".ckpt"
"""What tells an opponent's checkpoint file from a player's name."""

HELP = """\
usage: keisei eval checkpoint=FILE [opponents=[PLAYER,...]] [KEY=VALUE ...]

Plays a trained policy against other players, each opening from both seats, and says how sure the result is.

keys, with their values as they stand:
  checkpoint=null        the policy: a checkpoint file of a training run
  opponents=[random]     players by name, and other checkpoints (files that end with .ckpt)
  games=400              of each match; an even number, since each opening is played from both seats
  opening_plies=null     openings are 0 to this many random plies; null: as in the training run
  seed=0                 of openings and players
  greedy=true            checkpoints play their most likely move; false: they sample
  temperature=1.0        of sampling: below 1 nearer to greedy play
  symmetric=false        checkpoints play the mean of their policies in a position and in its mirror images
  round_robin=false      everybody plays everybody (random too), and all are rated on the Elo scale with random at 0
  game=null              without a checkpoint: the game, by a name that `keisei games` lists
  model=null             the network of the checkpoints, where they do not tell it themselves
  records=true           keep all games (KIF and CSA for shogi, move lists for others)
  output_dir=null        null: results/eval/DATE-TIME; results.csv, results.json and records/ are written there
  device=auto            of the networks: cpu, cuda, cuda:N, or auto (cuda if there is one)

players known here:
  {players}

examples:
  keisei eval checkpoint=results/shogi/RUN/checkpoints/last.ckpt
  keisei eval checkpoint=last.ckpt 'opponents=[random,mate_in_one,fairy_stockfish(skill=-5,nodes=1000)]' games=200
  keisei eval checkpoint=new.ckpt opponents=[old.ckpt] greedy=false temperature=0.5
  keisei eval checkpoint=last.ckpt 'opponents=[tactics,alpha_beta(depth=5)]' round_robin=true
  keisei eval game=connect_four 'opponents=[tactics,mcts(simulations=100)]' round_robin=true
Brackets need quotation marks around the word, as the shell has a meaning of its own for them.
"""


@dataclass
class Options:
    """The keys of ``keisei eval``; their meaning is told by :data:`HELP`."""

    checkpoint: str | None = None
    opponents: list[str] = field(default_factory=lambda: ["random"])
    games: int = 400
    opening_plies: int | None = None
    seed: int = 0
    greedy: bool = True
    temperature: float = 1.0
    symmetric: bool = False
    round_robin: bool = False
    game: str | None = None
    model: dict[str, Any] | None = None
    records: bool = True
    output_dir: str | None = None
    device: str = "auto"

    @property
    def checkpoints(self) -> list[str]:
        """All checkpoint files: the policy that is asked about first, then those among the opponents."""
        own = [] if self.checkpoint is None else [self.checkpoint]
        return [*own, *(opponent for opponent in self.opponents if opponent.endswith(CHECKPOINT_SUFFIX))]


_LEGAL = {
    "checkpoint": "a checkpoint file, or null",
    "opponents": "a list in brackets, such as [random,other.ckpt]",
    "games": "an even number from 2 to 100000 (each opening is played from both seats)",
    "opening_plies": "a whole number, 0 or more, or null",
    "seed": "a whole number from 0 to 4294967295",
    "greedy": "true or false",
    "temperature": "a number, more than 0",
    "symmetric": "true or false",
    "round_robin": "true or false",
    "game": "the name of a game, or null",
    "model": "keys of a network, such as model={kind:resnet,num_blocks:2,channels:32}, or null",
    "records": "true or false",
    "output_dir": "a folder, or null",
    "device": "auto, cpu, cuda or cuda:N",
}
"""What each key may be, in a person's words."""

_BOUNDS = {
    "games": Bounds(low=2, high=100_000),
    "opening_plies": Bounds(low=0),
    "seed": Bounds(low=0, high=2**32 - 1),
    "temperature": Bounds(low=0, open_low=True),
}


def read_options(words: Sequence[str]) -> Options:
    """Read the words of a command line.

    Args:
        words: such as ``games=200``; the last of several with one key counts.

    Raises:
        ConfigError: with one line for each fault: words that cannot be read, keys that do not exist, and values that
            are out of range or do not go together.
    """
    faults: list[str] = []
    values = OmegaConf.structured(Options)
    for word, quoted in zip(words, quote_texts(words), strict=True):
        try:
            (override,) = OverridesParser.create().parse_overrides([quoted])
        except HydraException as error:
            faults.append(explain(error, words))
            continue
        if fault := _override_fault(override, word) or _set(values, override, word):
            faults.append(fault)
    options = OmegaConf.to_object(values)
    assert isinstance(options, Options)
    faults += _out_of_range(options)
    if not faults:  # else a word that was meant to be there might be told to be missing
        faults += [*_do_not_go_together(options), *_missing_files(options)]
    if faults:
        raise ConfigError(faults)
    return options


def _override_fault(override: Override, word: str) -> str | None:
    """Whether a word is KEY=VALUE with a key that exists."""
    known = [field.name for field in fields(Options)]
    name, _, rest = override.key_or_group.partition(".")
    if override.is_add() or override.is_delete() or override.package is not None:
        return f"{word}: cannot be read; write KEY=VALUE"
    if name not in known or (rest and name != "model"):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{word}: no such key{hint}; must be one of {', '.join(known)}"
    if override.is_sweep_override():
        return f"{word}: must be {_LEGAL[name]}"
    return None


def _set(values: Any, override: Override, word: str) -> str | None:
    """Set one value; the fault is that it is of another type."""
    key = override.key_or_group
    value = override.value()
    if key == "opponents":
        value = [str(item) for item in (value if isinstance(value, list) else [value])]
    if key.startswith("model.") and values.model is None:
        values.model = {}
    try:
        OmegaConf.update(values, key, value, merge=False, force_add=key.startswith("model."))
        OmegaConf.to_container(values, resolve=True)
    except InterpolationResolutionError as error:
        section = key.partition(".")[0]
        OmegaConf.update(values, section, getattr(Options(), section), merge=False)  # or all others would fail as well
        return f"{word}: cannot be resolved ({str(error).partition(chr(10))[0]})"
    except (OmegaConfBaseException, ValueError):
        return f"{word}: must be {_LEGAL[key.partition('.')[0]]}"
    return None


def _out_of_range(options: Options) -> Iterator[str]:
    for key, bounds in _BOUNDS.items():
        value = getattr(options, key)
        if value is not None and not (bounds.contain(value) and (key != "games" or value % 2 == 0)):
            yield f"{key}={value}: must be {_LEGAL[key]}"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        yield f"device={options.device}: must be {_LEGAL['device']}"
    for key in ("checkpoint", "game", "output_dir"):
        if getattr(options, key) == "":
            yield f"{key}=: must be {_LEGAL[key]}"
    if options.output_dir and (reason := no_path(Path(options.output_dir))):
        yield f"output_dir={one_line(options.output_dir)}: must be a folder that can be written to ({reason})"


def _do_not_go_together(options: Options) -> Iterator[str]:
    if options.greedy and options.temperature != 1.0:
        yield f"temperature={options.temperature}: must be 1 with greedy=true (nothing is sampled); add greedy=false"
    if not options.opponents:
        yield "opponents=[]: must hold one player or more"
    if options.checkpoint is None and not options.round_robin:
        yield "checkpoint: is missing; must be a checkpoint file (without one only round_robin=true plays)"
    if options.checkpoints and options.game is not None:
        yield f"game={options.game}: must be null where there is a checkpoint, which tells its own game"
    if not options.checkpoints and options.game is None and options.round_robin:
        yield "game: is missing; must be the name of a game where there is no checkpoint"
    for twice in sorted({path for path in options.checkpoints if options.checkpoints.count(path) > 1}):
        yield f"opponents: {twice} plays more than once; must be there once"


def _missing_files(options: Options) -> Iterator[str]:
    for number, path in enumerate(options.checkpoints):
        key = "checkpoint" if number == 0 and options.checkpoint is not None else "opponents"
        if not os.path.isfile(path):
            yield f"{key}={path}: there is no such file; must be a checkpoint file"
