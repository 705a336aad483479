"""The state of a running training as a file: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei_lightning.training.live_file import LiveBoard, LiveState, LiveWorker

STATE = LiveState(
    time_s=1_700_000_000.5,
    epoch=3,
    plies=4096,
    workers=(
        LiveWorker(name="worker 0", state="running", restarts=2, policy_lag=1, plies_per_s=512.5, last_rollout_s=0.25),
        LiveWorker(name="worker 1", state="starting", paused=True),
    ),
    boards=(LiveBoard(worker=0, board=1, ply=7, mover=1, svg="<svg>é</svg>"),),
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed(path: str, value: Any) -> str:
    """The state's text with one field replaced, such as ``workers.0.name``."""
    content = json.loads(STATE.to_json())
    names: list[Any] = [int(name) if name.isdigit() else name for name in path.split(".")]
    place = content
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    return json.dumps(content)


def test_what_is_written_is_read_again() -> None:
    assert LiveState.parse(STATE.to_json()) == STATE


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert LiveState.parse(changed("workers.0.colour", "red")) == STATE


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "{}", "{", "[" * 100_000, "\x00", '{"time_s":1}', "NaN"])
def test_a_text_that_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        LiveState.parse(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("time_s", -1),
        ("time_s", float("nan")),
        ("time_s", float("inf")),
        ("time_s", True),
        ("epoch", 1.5),
        ("plies", "many"),
        ("plies", 10**400),
        ("workers", {}),
        ("workers", [{"name": "worker 0"}]),
        ("workers", [None] * 5000),
        ("workers.0.name", "x" * 201),
        ("workers.0.name", "\ud800"),
        ("workers.0.state", None),
        ("workers.0.restarts", None),
        ("workers.0.policy_lag", -1),
        ("workers.0.plies_per_s", []),
        ("workers.0.last_rollout_s", "1"),
        ("boards", None),
        ("boards", [{}] * 65),
        ("boards.0.mover", 2),
        ("boards.0.ply", -1),
        ("boards.0.worker", "0"),
        ("boards.0.svg", "x" * 65_537),
        ("boards.0.svg", 3),
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        LiveState.parse(changed(path, value))


@given(
    path=st.sampled_from(["time_s", "epoch", "workers", "workers.0", "workers.1.state", "boards", "boards.0.svg"]),
    value=anything,
)
def test_whatever_stands_in_a_field_it_is_a_state_or_refused(path: str, value: Any) -> None:
    try:
        state = LiveState.parse(changed(path, value))
    except ValueError:
        return
    assert LiveState.parse(state.to_json()) == state


@given(st.binary(max_size=200))
def test_whatever_bytes_a_file_has_it_is_a_state_or_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        LiveState.parse(content.decode("utf-8", "replace"))


@given(st.integers(0, len(STATE.to_json()) - 1))
def test_a_file_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        LiveState.parse(STATE.to_json()[:length])
