"""A policy as the bytes of a file, by format, and these bytes as something that computes again, for the comparison."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim, ExportedProgram

from keisei_lightning.errors import ConfigError
from keisei_lightning.export.card import CARD_KEY, INPUTS, OUTPUTS, ExportCard, ExportFormat
from keisei_lightning.export.comparison import Run
from keisei_lightning.export.module import ExportedModule
from keisei_lightning.export.onnx_file import OnnxFile
from keisei_lightning.export.onnx_policy import OnnxPolicy
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import ActorCritic

__all__ = ["FILE_FORMATS", "OPSET", "FileFormat"]

OPSET: Final = 18
"""Version of the ONNX operators in exported files: of 2022, which onnxruntime has since 1.14, in browsers too."""

_CARD_FILE: Final = f"{CARD_KEY}.json"
"""The card's name among the extra files of torch.export."""

_TRACED: Final = 3  # positions: torch.export takes one and two for special


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """One format.

    Attributes:
        opset: see :class:`~keisei_lightning.export.card.FileFacts`.
        export: a module and its game to what ``to_bytes`` takes.
        to_bytes: that, with a card, to the content of a file.
        digest: the content of a file to what its card has of it.
        to_run: the content of a file to what it computes; with the module, for its structure, and the card.
    """

    opset: int | None
    export: Callable[[ActorCritic, GameSpec], Any]
    to_bytes: Callable[[Any, str], bytes]
    digest: Callable[[bytes], str | None]
    to_run: Callable[[bytes, ActorCritic, ExportCard], Run]


def _traced(actor_critic: ActorCritic, spec: GameSpec) -> ExportedProgram:
    """The graph of a policy, for batches of any size.

    Raises:
        ConfigError: torch.export cannot follow the network.
    """
    module = ExportedModule(actor_critic).eval()
    observation = torch.zeros(_TRACED, *spec.observation_shape, dtype=torch.uint8)
    legal = torch.ones(_TRACED, spec.num_actions, dtype=torch.bool)
    shapes = {name: {0: Dim("n", min=1)} for name in INPUTS}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, (observation, legal), dynamic_shapes=shapes)
    except Exception as error:  # whatever an own network does that cannot be followed
        raise _not_exportable(actor_critic, error) from error
    for graph_module in program.graph_module.modules():
        if isinstance(graph_module, torch.fx.GraphModule):
            for node in graph_module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _onnx_model(actor_critic: ActorCritic, spec: GameSpec) -> Any:
    """An ``onnx.ModelProto``.

    Raises:
        ConfigError: an operation of the network has no counterpart in ONNX.
    """
    program = _traced(actor_critic, spec)
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                verbose=False,
            )
        assert exported is not None
        model = exported.model_proto
    except Exception as error:  # as above
        raise _not_exportable(actor_critic, error) from error
    _tidy(model)
    return model


def _tidy(model: Any) -> None:
    """Take out what tells of this machine and of torch's inside, and name the size of the batch."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "n"
    model.producer_name, graph.name = "keisei-lightning", "policy"


def _onnx_bytes(model: Any, card: str) -> bytes:
    del model.metadata_props[:]
    if card:
        model.metadata_props.add(key=CARD_KEY, value=card)
    content: bytes = model.SerializeToString()
    return content


def _onnx_digest(content: bytes) -> str:
    return OnnxFile.read(content, path="the exported model").digest


def _no_digest(content: bytes) -> None:
    """The zip archive of torch.export has checksums of its own; nothing here reads safetensors again."""


def _run_onnx(content: bytes, actor_critic: ActorCritic, card: ExportCard) -> Run:
    return OnnxPolicy(content, card=card).run


def _torch_export_bytes(program: ExportedProgram, card: str) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={_CARD_FILE: card})
    return buffer.getvalue()


def _run_torch_export(content: bytes, actor_critic: ActorCritic, card: ExportCard) -> Run:
    with _quiet():
        return _run_module(torch.export.load(io.BytesIO(content)).module())


def _weights(actor_critic: ActorCritic, spec: GameSpec) -> dict[str, torch.Tensor]:
    # Each with memory of its own, in the order of its shape: safetensors takes no other.
    return {name: weight.detach().clone(memory_format=torch.contiguous_format) for name, weight in _state(actor_critic)}


def _state(actor_critic: ActorCritic) -> Iterator[tuple[str, torch.Tensor]]:
    yield from actor_critic.state_dict().items()


def _safetensors_bytes(weights: Mapping[str, torch.Tensor], card: str) -> bytes:
    from safetensors.torch import save  # an extra

    return save(dict(weights), metadata={"format": "pt", CARD_KEY: card})


def _run_safetensors(content: bytes, actor_critic: ActorCritic, card: ExportCard) -> Run:
    from safetensors.torch import load

    loaded = copy.deepcopy(actor_critic)
    with torch.no_grad():
        for _, weight in _state(loaded):
            weight.zero_()  # what the file does not hold is missed
    loaded.load_state_dict(load(content))
    return _run_module(ExportedModule(loaded))


def _run_module(module: nn.Module) -> Run:
    def run(
        observation: NDArray[np.uint8], legal: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.no_grad():
            log_probs, values = module(torch.from_numpy(observation), torch.from_numpy(legal))
        return log_probs.numpy(), values.numpy()

    return run


def _not_exportable(actor_critic: ActorCritic, error: Exception) -> ConfigError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ConfigError(f"its network {type(actor_critic.network).__name__} cannot be exported ({reason})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself (operators of torchvision, its own deprecations)."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


FILE_FORMATS: Final[dict[ExportFormat, FileFormat]] = {
    "onnx": FileFormat(
        opset=OPSET,
        export=_onnx_model,
        to_bytes=_onnx_bytes,
        digest=_onnx_digest,
        to_run=_run_onnx,
    ),
    "torch_export": FileFormat(
        opset=None,
        export=_traced,
        to_bytes=_torch_export_bytes,
        digest=_no_digest,
        to_run=_run_torch_export,
    ),
    "safetensors": FileFormat(
        opset=None,
        export=_weights,
        to_bytes=_safetensors_bytes,
        digest=_no_digest,
        to_run=_run_safetensors,
    ),
}
