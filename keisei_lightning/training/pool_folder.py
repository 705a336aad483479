"""A folder in which several runs share their snapshots, such as a run and those that look for its weaknesses.

Each run writes its snapshots there, each file whole, and removes its older ones. What others wrote may be anybody's:
it is read with ``weights_only=True``, and taken only if it is of this game and has the tensors of this network, all of
them finite. A file that is not is told once and left alone; whatever else lies in the folder is left alone too.
"""

from __future__ import annotations

import io
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, WeightsError
from keisei_lightning.models.transfers import to_host
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.training.checkpoint_header import load_checked
from keisei_lightning.training.files import write_whole

__all__ = ["PoolFolder"]

log = logging.getLogger(__name__)

_SUFFIX: Final = ".snapshot"
_FILE: Final = re.compile(r"(?P<run>[A-Za-z0-9._-]+)\.v(?P<version>\d{1,12})\.snapshot")
_FORMAT: Final = 1
_OTHER_BYTES: Final = 1 << 20
"""What a file may hold beside the weights: names, shapes, padding."""


class PoolFolder:
    """The folder, as one run uses it.

    Args:
        folder: where it is; made with the first snapshot.
        name: of this run, for its files' names; letters, digits, ``.``, ``_`` and ``-``.
        game: name of the game.
        kept: of this run's snapshots so many stay.

    Attributes:
        run: this run's name in the folder, which no other run has.
    """

    def __init__(self, folder: str | Path, *, name: str, game: str, kept: int) -> None:
        self._folder, self._game, self._kept = Path(folder), game, kept
        self.run = f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name) or 'run'}-{uuid.uuid4().hex[:8]}"
        self._taken: dict[str, int] = {}  # by run: the newest version that was taken, or refused

    def publish(self, policy: nn.Module, version: int) -> None:
        """Write a snapshot, and remove those of this run that are too old.

        Args:
            policy: its present weights.
            version: of them.

        Raises:
            OSError: it cannot be written.
        """
        weights = {name: to_host(tensor.detach(), copy=True) for name, tensor in named_weights(policy).items()}
        content = io.BytesIO()
        torch.save({"format": _FORMAT, "game": self._game, "weights": weights}, content)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._folder / f"{self.run}.v{version}{_SUFFIX}", content.getvalue())
        own = sorted((each, path) for run, each, path in self._files() if run == self.run)
        for _, path in own[: -self._kept]:
            path.unlink(missing_ok=True)

    def take(self, layout: WeightLayout) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The newest snapshot of each other run that has not been taken yet; it counts as taken when it was used.

        Args:
            layout: of this run's network.

        Yields:
            Its name, and its tensors by name.
        """
        newest: dict[str, tuple[int, Path]] = {}
        for run, version, path in self._files():
            if run != self.run and version > max(self._taken.get(run, -1), newest.get(run, (-1, path))[0]):
                newest[run] = (version, path)
        for run, (version, path) in sorted(newest.items()):
            try:
                weights = self._read(path, layout)
            except FileNotFoundError:  # its run has just removed it
                continue
            except (ConfigError, WeightsError, OSError) as error:
                reason = " ".join(str(error).split()).removeprefix(f"ckpt_path={path}: ")
                log.warning("%s is not taken into the league: %s", path, reason)
                self._taken[run] = version
                continue
            yield f"{run} {version}", weights
            self._taken[run] = version

    def _files(self) -> Iterator[tuple[str, int, Path]]:
        """Run, version and path of every file that is named as a snapshot."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if found := _FILE.fullmatch(path.name):
                yield found["run"], int(found["version"]), path

    def _read(self, path: Path, layout: WeightLayout) -> dict[str, Tensor]:
        """The tensors of a snapshot.

        Raises:
            ConfigError: it is no snapshot, or of another game.
            WeightsError: it is of another network, or not finite.
            OSError: it cannot be read.
        """
        if path.stat().st_size > layout.num_bytes + _OTHER_BYTES:
            raise WeightsError("it is larger than a snapshot of this network")
        content = load_checked(path, map_location="cpu")
        if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
            raise ConfigError("it is no snapshot")
        if content.get("game") != self._game:
            raise ConfigError(f"it is of another game ({content.get('game')})")
        weights = content.get("weights")
        if not isinstance(weights, Mapping) or set(weights) != {leaf.name for leaf in layout.leaves}:
            raise WeightsError("it is of another network")
        layout.check(weights)
        return dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """Plain text and numbers: the run's name in the folder, and what it has taken."""
        return {"run": self.run, "taken": dict(self._taken)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`: the run keeps its name."""
        self.run, self._taken = str(state["run"]), dict(state["taken"])
