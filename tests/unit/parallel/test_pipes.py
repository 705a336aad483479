"""Messages are read from a pipe however they were split, without a wait for the rest of one."""

from __future__ import annotations

import os
import pickle
import struct
from multiprocessing import Pipe

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei_lightning.parallel.supervision.messages import LogRecord, Play
from keisei_lightning.parallel.supervision.pipes import MessageReader


def test_everything_that_was_sent_is_read_at_once_and_in_order() -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        reader = MessageReader(ours)
        assert reader.read() == []
        messages = [Play(slot=slot) for slot in range(50)]
        for message in messages:
            theirs.send(message)
        assert reader.read() == messages
        assert reader.read() == []


@given(texts=st.lists(st.text(max_size=300), min_size=1, max_size=6), data=st.data())
def test_messages_arrive_whole_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    wire = b"".join(struct.pack("!i", len(body)) + body for body in map(pickle.dumps, texts))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    ours, theirs = Pipe()
    with ours, theirs:
        reader, received = MessageReader(ours), []
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            os.write(theirs.fileno(), wire[start:end])
            received += reader.read()
        assert received == texts


def test_half_a_message_is_kept_and_not_waited_for_and_dropped_with_its_sender() -> None:
    ours, theirs = Pipe()
    with ours:
        reader = MessageReader(ours)
        theirs.send(Play(slot=1))
        body = pickle.dumps(Play(slot=2))
        os.write(theirs.fileno(), struct.pack("!i", len(body)) + body[:5])
        assert reader.read() == [Play(slot=1)]
        assert reader.read() == []  # the rest never comes: a reader that waited for it would wait for ever
        theirs.close()
        with pytest.raises(EOFError):
            reader.read()


def test_the_last_words_come_before_the_end() -> None:
    ours, theirs = Pipe()
    with ours:
        reader = MessageReader(ours)
        theirs.send("last words")
        theirs.close()
        assert reader.read() == ["last words"]
        with pytest.raises(EOFError):
            reader.read()


def test_the_last_messages_are_read_of_a_sender_that_ended_without_reading() -> None:
    ours, theirs = Pipe()
    with ours:
        reader = MessageReader(ours)
        ours.send("an order that it never reads")
        theirs.send("last words")
        theirs.close()
        assert reader.read() == ["last words"]
        with pytest.raises(EOFError):
            reader.read()


def test_a_message_of_any_size_that_is_sent_as_one_is_read() -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        message = LogRecord(level=20, name="x", message="y" * 100_000)  # more than one chunk, and sent in two pieces
        assert MessageReader(ours).read() == []
        theirs.send(message)
        assert MessageReader(ours).read() == [message]


def test_what_is_no_message_is_named() -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        os.write(theirs.fileno(), b"\xff\xff\xff\xff and so on")
        with pytest.raises(pickle.UnpicklingError, match="impossible length"):
            MessageReader(ours).read()
