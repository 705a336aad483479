"""What an ONNX file asks for, read from its bytes before any library acts on them: neither onnx nor torch is needed.

An ONNX model is a protocol buffer, and may name two things that are not in it: operators of other libraries, and
weights in other files. Neither is wanted from a file that comes from anybody. This module looks at every field that can
hold one, at any depth (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the encoding:
https://protobuf.dev/programming-guides/encoding). Fields that it does not know are skipped, as every reader skips them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keisei_lightning.errors import ConfigError
from keisei_lightning.export.card import CARD_KEY

__all__ = ["FIELDS", "OnnxFile"]

FIELDS: Final[dict[str, dict[int, str]]] = {
    "ModelProto": {
        7: "GraphProto",
        8: "OperatorSetIdProto",
        14: "StringStringEntryProto",
        20: "TrainingInfoProto",
        25: "FunctionProto",
    },
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 9: "OperatorSetIdProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "OperatorSetIdProto": {},
    "StringStringEntryProto": {},
    "TensorProto": {},
}
"""Messages inside of messages, by the numbers of their fields: the ways to a node, a tensor, an opset and an entry."""

_METADATA = 14
_NODE_DOMAIN, _OPSET_DOMAIN, _OPSET_VERSION = 7, 1, 2
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_OWN_DOMAINS: Final = ("", "ai.onnx")
_MAX_DEPTH: Final = 32

_Value = int | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
    """What a file asks for.

    Attributes:
        opset: version of ONNX's own operators; 0: it names none.
        card: the text of its card; empty: it has none.
        digest: SHA-256 of all but the metadata, in hexadecimal digits.
    """

    opset: int
    card: str
    digest: str

    @classmethod
    def read(cls, content: bytes, *, path: str) -> OnnxFile:
        """Look through a file.

        Args:
            content: of the file.
            path: for the message.

        Raises:
            ConfigError: it is damaged, or asks for operators or weights that are not in it.
        """
        opset, card = 0, ""
        try:
            for kind, fields in _messages(memoryview(content), "ModelProto", 0):
                if refused := _refused(kind, fields):
                    raise ConfigError(f"model={path}: {refused}")
                if kind == "OperatorSetIdProto":
                    opset = max([opset, *(value for value in fields.get(_OPSET_VERSION, []) if isinstance(value, int))])
                elif kind == "StringStringEntryProto" and _texts(fields, _ENTRY_KEY) == [CARD_KEY]:
                    card = "".join(_texts(fields, _ENTRY_VALUE))
            digest = _digest(memoryview(content))
        except ValueError as error:
            raise ConfigError(f"model={path}: cannot be read as an ONNX file ({error})") from error
        return cls(opset=opset, card=card, digest=digest)


def _digest(content: memoryview) -> str:
    """Of a model without its metadata, in which the digest itself stands: a protocol buffer has no checksums."""
    digest = hashlib.sha256()
    for number, value in _fields(content):
        if number != _METADATA:
            size = len(value) if isinstance(value, memoryview) else -1
            digest.update(f"{number}:{size}:".encode() + (str(value).encode() if isinstance(value, int) else value))
    return digest.hexdigest()


def _refused(kind: str, fields: dict[int, list[_Value]]) -> str:
    """Why a message may not be in a file; empty where it may."""
    domains = [
        domain
        for number in {"NodeProto": [_NODE_DOMAIN], "OperatorSetIdProto": [_OPSET_DOMAIN]}.get(kind, [])
        for domain in _texts(fields, number)
        if domain not in _OWN_DOMAINS
    ]
    if domains:
        return f"asks for operators of {domains[0][:60]!r}; only those of ONNX itself are taken"
    if kind == "TensorProto" and (_EXTERNAL_DATA in fields or any(fields.get(_DATA_LOCATION, []))):
        return "asks for weights in another file; only those in the file itself are taken"
    return ""


def _texts(fields: dict[int, list[_Value]], number: int) -> list[str]:
    values = fields.get(number, [])
    return [bytes(value).decode("utf-8") for value in values if isinstance(value, memoryview)]


def _messages(data: memoryview, kind: str, depth: int) -> Iterator[tuple[str, dict[int, list[_Value]]]]:
    """A message and all inside of it, each with its values by the number of their field.

    Raises:
        ValueError: it is no protocol buffer.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"graphs in graphs, more than {_MAX_DEPTH} deep")
    inner, fields = FIELDS[kind], dict[int, list[_Value]]()
    for number, value in _fields(data):
        if number in inner and isinstance(value, memoryview):
            yield from _messages(value, inner[number], depth + 1)
        else:
            fields.setdefault(number, []).append(value)
    yield kind, fields


def _fields(data: memoryview) -> Iterator[tuple[int, _Value]]:
    """Numbers and values of a message's fields.

    Raises:
        ValueError: it is cut off, or holds what no ONNX file holds.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"damaged: no field of an ONNX file is of wire type {wire}")
        if number == 0 or at + size > end:
            raise ValueError("damaged or cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where the next one begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("damaged or cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("damaged: a number of more than ten bytes")
