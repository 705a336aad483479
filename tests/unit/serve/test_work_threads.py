"""Boards live on one thread each; what waits is bounded, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from keisei_lightning.serve.work_threads import BusyError, Stop, WorkThread, WorkThreads


@pytest.fixture
def thread() -> Iterator[WorkThread]:
    board_thread = WorkThread(max_waiting=2, name="boards of a test")
    yield board_thread
    board_thread.close()


def test_all_work_is_done_on_one_thread_in_order(thread: WorkThread) -> None:
    seen: list[tuple[int, int]] = []

    async def main() -> list[int]:
        def work(number: int) -> int:
            seen.append((number, threading.get_ident()))
            return number * number

        return [await thread.run(lambda _, number=number: work(number)) for number in range(5)]  # type: ignore[misc]

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert len({ident for _, ident in seen}) == 1
    assert seen[0][1] != threading.get_ident()


def test_what_the_work_raises_is_raised_to_who_waits(thread: WorkThread) -> None:
    def fail(_: Stop) -> None:
        raise ZeroDivisionError("on the thread")

    with pytest.raises(ZeroDivisionError, match="on the thread"):
        asyncio.run(thread.run(fail))
    assert asyncio.run(thread.run(lambda _: 7)) == 7


def test_work_whose_caller_is_cancelled_learns_of_it_and_waiting_work_is_never_begun(thread: WorkThread) -> None:
    begun, ended, never = threading.Event(), threading.Event(), list[int]()

    def search(stop: Stop) -> None:
        begun.set()
        while not stop():
            threading.Event().wait(0.005)
        ended.set()

    async def main() -> None:
        running = asyncio.create_task(thread.run(search))
        await asyncio.to_thread(begun.wait)
        waiting = asyncio.create_task(thread.run(lambda _: never.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        running.cancel()
        await asyncio.wait({running, waiting})
        assert running.cancelled()
        assert waiting.cancelled()

    asyncio.run(main())
    assert ended.wait(60)
    assert asyncio.run(thread.run(lambda _: "next")) == "next"
    assert never == []


def test_more_than_may_wait_is_refused_at_once_but_boards_are_always_let_go(thread: WorkThread) -> None:
    begun, go_on, let_go = threading.Event(), threading.Event(), threading.Event()

    def block(_: Stop) -> None:
        begun.set()
        go_on.wait()

    async def main() -> None:
        running = asyncio.create_task(thread.run(block))
        await asyncio.to_thread(begun.wait)
        waiting = [asyncio.create_task(thread.run(lambda _: 1)) for _ in range(2)]
        await asyncio.sleep(0)
        assert thread.load == 3
        with pytest.raises(BusyError):
            await thread.run(lambda _: 1)
        thread.release(let_go.set)
        go_on.set()
        await asyncio.gather(running, *waiting)

    asyncio.run(main())
    assert let_go.wait(60)


def test_closing_lets_boards_go_that_wait_for_it() -> None:
    thread = WorkThread(max_waiting=2, name="boards of a test")
    begun, let_go = threading.Event(), list[int]()

    def search(stop: Stop) -> None:
        begun.set()
        while not stop():
            threading.Event().wait(0.005)

    async def main() -> None:
        running = asyncio.create_task(thread.run(search))
        await asyncio.to_thread(begun.wait)
        thread.release(lambda: let_go.append(threading.get_ident()))
        await asyncio.to_thread(thread.close)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(main())
    assert len(let_go) == 1
    with pytest.raises(BusyError):
        asyncio.run(thread.run(lambda _: 1))


def test_a_new_game_goes_to_the_thread_that_has_least_to_do() -> None:
    threads = WorkThreads(2)
    begun, go_on = threading.Event(), threading.Event()

    def block(_: Stop) -> None:
        begun.set()
        go_on.wait()

    async def main() -> None:
        busy = threads.choose()
        running = asyncio.create_task(busy.run(block))
        await asyncio.to_thread(begun.wait)
        assert all(threads.choose() is not busy for _ in range(4))
        go_on.set()
        await running

    asyncio.run(main())
    threads.close()
