"""What a client sends is read field by field, and refused in one line."""

from __future__ import annotations

import pytest

from keisei_lightning.serve.fields import Fields, RequestError


def refusal(body: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        Fields.parse(body)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
        b'{"a": 1' + b"0" * 5000 + b"}",
    ],
    ids=["half", "no UTF-8", "NaN", "infinity", "deep", "half a surrogate pair", "too many digits"],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("the body cannot be read as JSON")


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body).endswith("must be a JSON object")


def test_fields_of_the_right_type_and_range_are_read() -> None:
    fields = Fields.parse(b'{"name": "7g7f", "ply": 3, "temperature": 1, "side": "first", "position": ""}')
    assert fields.text("name") == "7g7f"
    assert fields.whole("ply", low=0, high=9) == 3
    assert fields.number("temperature", low=0, high=2) == 1.0
    assert fields.choice("side", choices=("first", "second")) == "first"
    assert fields.optional_text("position") is None
    assert fields.optional_text("record") is None
    fields.done()


@pytest.mark.parametrize("value", ["true", "1.5", '"3"', "null", "-1", "10", "[]"])
def test_a_number_of_another_type_or_out_of_range_is_refused_with_what_is_legal(value: str) -> None:
    with pytest.raises(RequestError, match=r"ply=.*: must be a whole number from 0 to 9"):
        Fields.parse(f'{{"ply": {value}}}'.encode()).whole("ply", low=0, high=9)


@pytest.mark.parametrize("value", ["true", '"3"', "null", "-0.1", "2.1", "1e999"])
def test_a_fraction_likewise(value: str) -> None:
    with pytest.raises(RequestError, match=r"t=.*: must be a number from 0 to 2"):
        Fields.parse(f'{{"t": {value}}}'.encode()).number("t", low=0, high=2)


def test_a_text_that_is_too_long_and_an_unknown_field_are_refused() -> None:
    fields = Fields.parse(b'{"name": "abcdef", "more": 1}')
    with pytest.raises(RequestError, match=r"name=.*at most 5 characters"):
        fields.text("name", longest=5)
    with pytest.raises(RequestError, match="more: there is no such field"):
        fields.done()
