"""What an ONNX file asks for is known before any library acts on it, wherever in the file it stands."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from keisei_lightning.errors import ConfigError
from keisei_lightning.export.onnx_file import FIELDS, OnnxFile

EXTERNAL = "asks for weights in another file; only those in the file itself are taken"
CUSTOM = "asks for operators of 'com.example'; only those of ONNX itself are taken"


def elsewhere() -> onnx.TensorProto:
    """A tensor whose numbers are in another file."""
    tensor = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.FLOAT, dims=[3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def model_of(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph([*nodes], "graph", [], [], [*initializers])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def harmless() -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.arange(3, dtype=np.float32), "weights")
    return model_of(helper.make_node("Relu", ["weights"], ["out"]), initializers=(weights,))


def in_a_branch(node: onnx.NodeProto, *initializers: onnx.TensorProto) -> onnx.ModelProto:
    branch = helper.make_graph([node], "branch", [], [], [*initializers])
    return model_of(helper.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch))


def named_only_by_its_data() -> onnx.ModelProto:
    tensor = elsewhere()
    tensor.ClearField("data_location")
    return model_of(initializers=(tensor,))


def in_a_sparse_tensor() -> onnx.ModelProto:
    model = harmless()
    model.graph.sparse_initializer.add().values.CopyFrom(elsewhere())
    return model


def in_training_information() -> onnx.ModelProto:
    model = harmless()
    model.training_info.add().algorithm.initializer.append(elsewhere())
    return model


def in_a_function() -> onnx.ModelProto:
    model = harmless()
    model.functions.add(name="f").node.append(helper.make_node("Constant", [], ["c"], value=elsewhere()))
    return model


def an_opset_alone() -> onnx.ModelProto:
    model = harmless()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


RELU = helper.make_node("Relu", ["x"], ["y"])
OWN = helper.make_node("Run", ["x"], ["y"], domain="com.example")
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an initializer": (lambda: model_of(initializers=(elsewhere(),)), EXTERNAL),
    "an initializer that does not say where it is": (named_only_by_its_data, EXTERNAL),
    "an attribute": (lambda: model_of(helper.make_node("Constant", [], ["c"], value=elsewhere())), EXTERNAL),
    "a branch": (lambda: in_a_branch(RELU, elsewhere()), EXTERNAL),
    "a sparse tensor": (in_a_sparse_tensor, EXTERNAL),
    "training information": (in_training_information, EXTERNAL),
    "a function": (in_a_function, EXTERNAL),
    "an operator": (lambda: model_of(OWN), CUSTOM),
    "an operator in a branch": (lambda: in_a_branch(OWN), CUSTOM),
    "an opset": (an_opset_alone, CUSTOM),
}


def test_the_table_of_fields_is_that_of_onnx_itself() -> None:
    """All of its fields that lead to a message of the table; entries count at the top alone, where cards are."""
    for message, known in FIELDS.items():
        fields = {
            field.number: field.message_type.name
            for field in getattr(onnx, message).DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in FIELDS
        }
        if message != "ModelProto":
            fields = {number: name for number, name in fields.items() if name != "StringStringEntryProto"}
        assert known == fields, message


def test_no_other_message_of_onnx_leads_to_a_tensor_or_an_operator() -> None:
    for name, message in onnx.onnx_ml_pb2.DESCRIPTOR.message_types_by_name.items():
        if name not in FIELDS:
            inner = {field.message_type.name for field in message.fields if field.message_type is not None}
            assert not inner & (FIELDS.keys() - {"StringStringEntryProto"}), name


def test_a_files_opset_card_and_digest_are_read() -> None:
    model = harmless()
    before = OnnxFile.read(model.SerializeToString(), path="a.onnx")
    model.metadata_props.add(key="keisei_card", value='{"of": "将棋"}')
    model.metadata_props.add(key="other", value="x")
    file = OnnxFile.read(model.SerializeToString(), path="a.onnx")
    assert (file.opset, file.card, before.card) == (18, '{"of": "将棋"}', "")
    assert file.digest == before.digest
    model.graph.initializer[0].raw_data = bytes(12)
    assert OnnxFile.read(model.SerializeToString(), path="a.onnx").digest != before.digest


@pytest.mark.parametrize("where", REFUSED)
def test_what_is_not_in_the_file_is_refused_wherever_it_is_asked_for(where: str) -> None:
    make, reason = REFUSED[where]
    with pytest.raises(ConfigError) as caught:
        OnnxFile.read(make().SerializeToString(), path="theirs.onnx")
    assert caught.value.errors == (f"model=theirs.onnx: {reason}",)


def test_graphs_in_graphs_without_end_are_refused() -> None:
    node = RELU
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([node], "g", [], []))
    with pytest.raises(ConfigError, match=r"^model=deep.onnx: cannot be read as an ONNX file \(graphs in graphs, more"):
        OnnxFile.read(model_of(node).SerializeToString(), path="deep.onnx")


@pytest.mark.slow
def test_a_damaged_file_is_one_line_wherever_the_damage_is(exported: Callable[[str, str], Path]) -> None:
    whole = exported("hex", ".onnx").read_bytes()
    rng = random.Random(0)
    cut = [whole[: rng.randrange(1, len(whole))] for _ in range(100)]
    flipped = []
    for _ in range(300):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        flipped.append(bytes(content))
    digest, noticed = OnnxFile.read(whole, path="").digest, 0
    for content in [*cut, *flipped, b"", b"no model", bytes(1000), b"\xff" * 1000]:
        try:
            file = OnnxFile.read(content, path="damaged.onnx")
        except ConfigError as error:
            (line,) = error.errors
            assert line.startswith("model=damaged.onnx: ")
            noticed += 1
        else:
            noticed += file.digest != digest or file.card != OnnxFile.read(whole, path="").card
    assert noticed > 390  # the rest are bits of the card's key, of its neighbour, or of unused space
