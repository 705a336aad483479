"""Where frozen policies lie, once per machine; workers use them in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from keisei_lightning.parallel.memory.fences import memory_fence
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer, aligned
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.opponents.boards import Seating, SnapshotVersions
from keisei_lightning.parallel.opponents.players import PlayerMember

__all__ = ["OpponentSetup", "SnapshotMemory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotMemory:
    """The snapshots' shared memory and its layout. Every worker receives it when it is started.

    Attributes:
        layout: of one set of weights.
        num_buffers: how many sets fit.
        shared: the memory, reserved by :meth:`reserve`: a version for each buffer, then the buffers.
    """

    layout: WeightLayout
    num_buffers: int
    shared: SharedBuffer

    @classmethod
    def reserve(cls, layout: WeightLayout, num_buffers: int) -> SnapshotMemory:
        """Reserve the memory.

        Raises:
            ConfigError: the machine cannot reserve this much.
        """
        head = aligned(8 * num_buffers)
        return cls(layout=layout, num_buffers=num_buffers, shared=SharedBuffer(head + num_buffers * layout.num_bytes))

    @property
    def versions(self) -> SnapshotVersions:
        """The version of the snapshot in each buffer."""
        return SnapshotVersions(shared=self.shared, num_buffers=self.num_buffers)

    @torch.no_grad()
    def write(self, buffer: int, tensors: Mapping[str, Any], version: int) -> None:
        """Write a snapshot into a buffer that no game uses.

        Args:
            buffer: which.
            tensors: all parameters and buffers by name, as the layout has them.
            version: of these weights.
        """
        versions = self.versions.array()
        versions[buffer] = -1
        memory_fence()  # a reader that sees any of the copy sees the -1 too (OpponentBoards.verify)
        for name, view in self.layout.views(self.buffers()[buffer]).items():
            view.copy_(tensors[name])
        memory_fence()
        versions[buffer] = version

    def buffers(self) -> list[Tensor]:
        """uint8 [layout.num_bytes] each."""
        size, start = self.layout.num_bytes, self.shared.num_bytes - self.num_buffers * self.layout.num_bytes
        array = self.shared.array()
        return [torch.from_numpy(array[start + i * size : start + (i + 1) * size]) for i in range(self.num_buffers)]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpponentSetup:
    """Everything that a worker needs to play against opponents.

    Attributes:
        memory: of the frozen policies.
        share: of the boards that meet an opponent.
        players: opponents that are no frozen policies.
        patience_s: how long they may take for one turn.
    """

    memory: SnapshotMemory
    share: float
    players: tuple[PlayerMember, ...] = ()
    patience_s: float = 0.0

    @property
    def seating(self) -> Seating:
        """The part that the boards need."""
        return Seating(
            versions=self.memory.versions, share=self.share, players=self.players, patience_s=self.patience_s
        )
