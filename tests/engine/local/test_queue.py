"""The line in front of the model."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.core.client import current_client
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


def entered(queue: GenerationQueue, client: str) -> Ticket:
    token = current_client.set(client)
    try:
        return queue.enter()
    finally:
        current_client.reset(token)


async def served(queue: GenerationQueue, tickets: list[Ticket]) -> list[str]:
    """Release whoever runs, until nobody is left; return the clients as they were served."""
    order: list[str] = []
    while running := [t for t in tickets if t in queue._running]:
        order.append(running[0].client)
        running[0].release()
    return order


async def test_clients_are_served_in_turn() -> None:
    """C34: one with many requests holds up another's first one by what runs already only."""
    queue = GenerationQueue()
    tickets = [entered(queue, "a") for _ in range(5)]
    tickets += [entered(queue, "b") for _ in range(2)]
    tickets += [entered(queue, "c")]
    assert await served(queue, tickets) == ["a", "b", "c", "a", "b", "a", "a", "a"]


async def test_positions_are_those_in_which_clients_are_served() -> None:
    """C25: a position is honest, also when somebody is let in before."""
    queue = GenerationQueue()
    entered(queue, "a")
    own = [entered(queue, "a") for _ in range(3)]
    assert [await position(t) for t in own] == [1, 2, 3]
    other = entered(queue, "b")
    assert await position(other) == 1
    assert [await position(t) for t in own] == [2, 3, 4]


async def test_newcomers_do_not_hold_up_one_who_waits_for_ever() -> None:
    queue = GenerationQueue()
    tickets = [entered(queue, "a") for _ in range(3)]
    for number in range(20):
        tickets.append(entered(queue, f"new {number}"))
        next(t for t in tickets if t in queue._running).release()
    assert [t.position for t in tickets[:3]] == [None, None, None]


async def test_who_leaves_the_line_has_lost_no_turn() -> None:
    queue = GenerationQueue()
    running = entered(queue, "x")
    left = [entered(queue, "a") for _ in range(3)]
    for ticket in left:
        ticket.release()
    first, second = entered(queue, "b"), entered(queue, "b")
    again = entered(queue, "a")
    assert await served(queue, [running, first, second, again]) == ["x", "b", "a", "b"]
