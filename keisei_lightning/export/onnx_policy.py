"""A policy in an ONNX file, for players and for the search: NumPy and onnxruntime, and no torch.

::

    policy = load_onnx("shogi.onnx")
    search = TreeSearch(policy.evaluator(), policy.game, SearchOptions(simulations=64))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.export.card import INPUTS, OUTPUTS, ExportCard
from keisei_lightning.export.onnx_file import OnnxFile
from keisei_lightning.games.protocol import GameFactory, GameSpec, Symmetry
from keisei_lightning.system.machine import available_cpus

if TYPE_CHECKING:
    from keisei_lightning.search.cache import Evaluate

__all__ = ["INSTALL", "OnnxPolicy", "load_onnx", "missing_library"]

INSTALL: Final = "pip install 'keisei-lightning[export]'"

_ONLY_FATAL: Final = 4  # log severity of onnxruntime: what it raises, it need not print


def missing_library(*names: str) -> str | None:
    """An error line for the first library of the extra ``export`` that is not installed; None: all are.

    Args:
        names: such as ``"onnxruntime"``.
    """
    name = next((name for name in names if find_spec(name) is None), None)
    return None if name is None else f"{name} is not installed; {INSTALL}"


def load_onnx(path: str | os.PathLike[str]) -> OnnxPolicy:
    """Read an exported policy. The file may come from anybody: it is data.

    Args:
        path: of a file that ``keisei export`` wrote.

    Raises:
        ConfigError: there is no such file, it cannot be read, it asks for more than is in it (operators of other
            libraries, weights in other files), its game cannot be made, or onnxruntime is not installed.
    """
    file, name = Path(path), os.fspath(path)
    if not file.is_file():
        raise ConfigError(f"model={name}: there is no such file; must be an ONNX file")
    try:
        return OnnxPolicy(file.read_bytes(), path=name)
    except OSError as error:
        raise ConfigError(f"model={name}: cannot be read ({error.strerror})") from error


class OnnxPolicy:
    """A policy in an ONNX file.

    Args:
        content: of the file.
        path: for messages.
        card: what it says about itself; None: as the file has it.

    Attributes:
        card: what the file says about itself.
        game: makes the boards that it plays on.
        spec: of the game.

    Raises:
        ConfigError: see :func:`load_onnx`.
    """

    def __init__(self, content: bytes, *, path: str = "the model", card: ExportCard | None = None) -> None:
        self._path = path
        file = OnnxFile.read(content, path=path)
        if card is None:
            if not file.card:
                raise ConfigError(f"model={path}: is no exported policy (it has no card); `keisei export` writes one")
            card = ExportCard.from_json(file.card, path=path)
            if card.file.digest != file.digest:
                reason = "damaged, or changed since: its graph is not the one that its card is about"
                raise ConfigError(f"model={path}: cannot be read as an exported policy ({reason})")
        self.card = card
        self.game: GameFactory
        self.spec: GameSpec
        self.game, self.spec = card.game.make(path=path)
        self._session = _open(content, path=path)
        self._check_signature()

    def run(
        self, observation: NDArray[np.uint8], legal: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the graph computes.

        Args:
            observation: uint8 [n, *observation_shape], the mover's view.
            legal: bool [n, A].

        Returns:
            Log-probabilities float32 [n, A], -inf where a move is not legal, and values float32 [n] of the mover.

        Raises:
            GameError: the graph cannot be run.
        """
        given = dict(zip(INPUTS, (np.ascontiguousarray(observation), np.ascontiguousarray(legal)), strict=True))
        try:
            log_probs, values = self._session.run(list(OUTPUTS), given)
        except Exception as error:  # onnxruntime's own errors have no common class
            raise GameError(f"{self._path}: cannot be run ({_first_line(error)})") from error
        return log_probs, values

    def evaluator(self, mirror: bool = False) -> Evaluate:
        """What a search asks; see :data:`~keisei_lightning.search.cache.Evaluate`.

        Args:
            mirror: the mean is taken over each position and the game's images of it.
        """
        images = self.spec.symmetries if mirror else ()

        def evaluate(
            observation: NDArray[np.uint8], legal: NDArray[np.uint8]
        ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            return self._evaluate(observation, legal, images)

        return evaluate

    def _evaluate(
        self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], images: Sequence[Symmetry]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mask = np.unpackbits(legal, axis=1, count=self.spec.num_actions).view(np.bool_)
        seen = [observation, *(_image_of(observation, image) for image in images)]
        masks = [mask, *(mask[:, image.action_index] for image in images)]
        log_probs, values = self.run(np.concatenate(seen), np.concatenate(masks))
        plain, *mirrored = np.split(log_probs, len(seen))
        aligned = [plain, *(part[:, _inverse(image)] for part, image in zip(mirrored, images, strict=True))]
        parts = [part[mask] for part in aligned]
        mean = parts[0] if len(parts) == 1 else np.logaddexp.reduce(parts, axis=0) - np.float32(np.log(len(parts)))
        value = np.clip(values.reshape(len(seen), -1).mean(axis=0), -1.0, 1.0)
        if not (np.isfinite(mean).all() and np.isfinite(value).all()):
            raise GameError(f"{self._path}: log-probabilities of legal moves or values are not finite")
        return mean, value

    def _check_signature(self) -> None:
        """Refuse a graph that takes or gives something else than the game has.

        Raises:
            ConfigError: a line for the first difference.
        """
        shape, num_actions = self.spec.observation_shape, self.spec.num_actions
        wanted = {
            "takes": {INPUTS[0]: ("tensor(uint8)", list(shape)), INPUTS[1]: ("tensor(bool)", [num_actions])},
            "gives": {OUTPUTS[0]: ("tensor(float)", [num_actions]), OUTPUTS[1]: ("tensor(float)", [])},
        }
        found = {"takes": self._session.get_inputs(), "gives": self._session.get_outputs()}
        for what, ports in wanted.items():
            has = {port.name: (port.type, list(port.shape[1:])) for port in found[what]}
            if has != ports:
                raise ConfigError(f"model={self._path}: {what} {_ports(has)}; {self.spec.name} needs {_ports(ports)}")


def _ports(ports: dict[str, tuple[str, list[Any]]]) -> str:
    return ", ".join(f"{name} {kind}{['n', *shape]}" for name, (kind, shape) in ports.items()).replace("'", "")


def _open(content: bytes, *, path: str) -> Any:
    """The session of a file's graph."""
    if line := missing_library("onnxruntime"):
        raise ConfigError(f"model={path}: {line}")
    # From 1.29 on it reports its use to its maker, and writes a number for the machine into the home folder, unless
    # this is set before it is imported. Who wants that sets it to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # an extra, and only for who plays

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.intra_op_num_threads = available_cpus()
    # A thread that spins while it has nothing to do takes a CPU from workers and from other players.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=False)
    except Exception as error:  # onnxruntime's own errors have no common class
        raise ConfigError(f"model={path}: cannot be read as an ONNX file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _image_of(observation: NDArray[np.uint8], image: Symmetry) -> NDArray[np.uint8]:
    flat = observation.reshape(len(observation), -1)
    return flat[:, image.observation_index].reshape(observation.shape)


def _inverse(image: Symmetry) -> NDArray[np.int64]:
    """What each action of the original becomes."""
    inverse: NDArray[np.int64] = np.argsort(image.action_index)
    return inverse
