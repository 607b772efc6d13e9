"""The line in front of the model."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.core.errors import Overloaded
from app.engine.local.queue import GenerationQueue, Ticket


async def position(ticket: Ticket) -> int | None:
    return await asyncio.wait_for(ticket.next_position(), 5)


async def test_the_first_gets_a_slot_and_the_others_their_positions_in_order() -> None:
    """C25: clients are told their position, 1 is next."""
    queue = GenerationQueue(slots=1, max_waiting=8)
    first, second, third = queue.enter(), queue.enter(), queue.enter()
    assert [await position(t) for t in (first, second, third)] == [None, 1, 2]
    first.release()
    assert await position(second) is None
    assert await position(third) == 1
    second.release()
    assert await position(third) is None
    third.release()
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_waiter_that_leaves_moves_the_others_up() -> None:
    """C25."""
    queue = GenerationQueue()
    first, second, third = queue.enter(), queue.enter(), queue.enter()
    assert (await position(second), await position(third)) == (1, 2)
    second.release()
    assert await position(third) == 1
    first.release()
    assert await position(third) is None


async def test_a_full_line_refuses_at_once() -> None:
    """S1.26, contract 8: over MAX_QUEUE it is 429 before any work."""
    queue = GenerationQueue(slots=1, max_waiting=1)
    queue.enter()
    queue.enter()
    with pytest.raises(Overloaded) as caught:
        queue.enter()
    assert caught.value.code == "overloaded"
    assert caught.value.retry_after_s
    assert queue.waiting == 1


async def test_releasing_twice_frees_one_slot() -> None:
    """C25: two generations never overlap."""
    queue = GenerationQueue()
    first, second, third = queue.enter(), queue.enter(), queue.enter()
    first.release()
    first.release()
    assert queue.running == 1
    assert (second.position, third.position) == (None, 1)


async def test_a_slot_released_in_a_thread_wakes_the_next_one() -> None:
    """C25: the model's thread gives the slot back."""
    queue = GenerationQueue()
    first, second = queue.enter(), queue.enter()
    assert await position(second) == 1
    thread = threading.Thread(target=first.release)
    thread.start()
    assert await position(second) is None
    thread.join(5)


def test_the_queue_serves_one_event_loop_after_another() -> None:
    """A waiter whose loop was closed under it does not block the line."""
    queue = GenerationQueue()

    async def hold() -> Ticket:
        return queue.enter()

    running = asyncio.run(hold())
    asyncio.run(hold())

    async def wait_behind() -> None:
        ticket = queue.enter()
        assert await position(ticket) == 2
        running.release()
        assert await position(ticket) is None
        ticket.release()

    asyncio.run(wait_behind())
    assert (queue.running, queue.waiting) == (0, 0)
