"""What was computed before is found again, and never more is kept than there is room for."""

from __future__ import annotations

import weakref

import torch

from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.limits import BLOCK_TOKENS
from app.engine.decoding.prefix_cache import LEAST_TOKENS, PrefixCache

LAYERS = 2


def computed(tokens: int) -> KeyValues:
    """Keys and values that tell their place."""
    kv = KeyValues(LAYERS)
    kv.reserve(tokens)
    places = torch.arange(float(tokens)).view(1, tokens, 1)
    for layer in range(LAYERS):
        kv.write(layer, 0, places, -places)
    kv.length = tokens
    return kv


def acquire(cache: PrefixCache, ids: list[int], running: object = (), room: int = 0) -> KeyValues:
    return cache.acquire(ids, running, layers=LAYERS, reserve_tokens=room or len(ids))  # type: ignore[arg-type]


def test_an_unknown_beginning_is_computed() -> None:
    cache = PrefixCache(2048)
    cache.store(list(range(100)), computed(100))
    assert acquire(cache, [500, *range(99)]).length == 0
    assert acquire(cache, list(range(LEAST_TOKENS - 1)) + [999] * 50).length == 0


def test_a_sequence_is_handed_over_and_its_last_token_computed_again() -> None:
    """Its logits are wanted, and they are not kept."""
    cache = PrefixCache(2048)
    kv = computed(100)
    cache.store(list(range(100)), kv)
    assert acquire(cache, list(range(100))) is kv
    assert kv.length == 99
    assert acquire(cache, list(range(100))).length == 0


def test_a_short_common_beginning_is_copied_and_the_rest_stays() -> None:
    """A system prompt in front of another article."""
    cache = PrefixCache(2048)
    kv = computed(200)
    cache.store(list(range(200)), kv)
    other = acquire(cache, [*range(40), *range(900, 1000)])
    assert other is not kv
    assert other.length == 40
    for layer in range(LAYERS):
        keys, values = other.layer(layer)
        assert keys[0, :40, 0].tolist() == list(range(40))
        assert values[0, :40, 0].tolist() == [-place for place in range(40)]
    assert acquire(cache, list(range(200))) is kv


def test_what_runs_is_copied_never_taken() -> None:
    running = computed(80)
    found = acquire(PrefixCache(2048), list(range(120)), [(list(range(80)), running)])
    assert found is not running
    assert found.length == running.length == 80


def test_the_oldest_goes_when_there_is_no_room() -> None:
    """C12: kept sequences never take more memory than was counted for them."""
    cache = PrefixCache(4 * BLOCK_TOKENS)
    for start in (0, 1000, 2000, 3000, 4000):
        cache.store(list(range(start, start + 200)), computed(200))
        assert cache.held_tokens <= 4 * BLOCK_TOKENS
    assert acquire(cache, list(range(200))).length == 0
    assert acquire(cache, list(range(4000, 4200))).length == 199


def test_one_that_was_copied_from_is_not_the_oldest() -> None:
    """A system prompt that everybody shares stays, whoever brought it."""
    cache = PrefixCache(2 * BLOCK_TOKENS)
    for start in (0, 1000):
        cache.store(list(range(start, start + 200)), computed(200))
    assert acquire(cache, [*range(40), *range(500, 600)]).length == 40
    cache.store(list(range(2000, 2200)), computed(200))
    assert acquire(cache, list(range(1000, 1200))).length == 0
    assert acquire(cache, list(range(200))).length == 199


def test_what_runs_takes_no_room_from_what_is_kept() -> None:
    """C12: the memory of running sequences is counted for itself."""
    cache = PrefixCache(BLOCK_TOKENS)
    cache.store(list(range(200)), computed(200))
    assert acquire(cache, [7] * 50, room=2048).capacity == 2048
    assert acquire(cache, list(range(200))).length == 199


def test_of_a_sequence_without_room_the_beginning_is_kept() -> None:
    """C12: with little memory the system prompt at least is not computed again."""
    cache = PrefixCache(2 * BLOCK_TOKENS + 100)
    cache.store(list(range(2000)), computed(2000))
    assert cache.held_tokens == 2 * BLOCK_TOKENS
    found = acquire(cache, list(range(2000)))
    assert found.length == 2 * BLOCK_TOKENS
    assert found.layer(1)[0][0, : found.length, 0].tolist() == list(range(found.length))


def test_without_room_nothing_is_kept() -> None:
    """C12: keeping is worth less than a larger weight format."""
    for most in (0, BLOCK_TOKENS - 1):
        cache = PrefixCache(most)
        cache.store(list(range(200)), computed(200))
        assert cache.held_tokens == 0
        assert acquire(cache, list(range(200))).length == 0


def test_buffers_have_their_room_from_the_start() -> None:
    """Growing copies all that is there; found, copied or new, it happens once at most."""
    cache = PrefixCache(2048)
    cache.store(list(range(200)), computed(200))
    for ids in ([7] * 50, [*range(40), *[7] * 50], list(range(200))):
        assert acquire(cache, ids, room=700).capacity == 3 * BLOCK_TOKENS


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_ended_too_long_ago_is_not_found_and_not_held() -> None:
    """SESSIONS_TTL_SECONDS: it is what users sent. To the second, and each by its own end."""
    clock = Clock()
    cache = PrefixCache(2048, ttl_s=600.0, clock=clock)
    cache.store(list(range(200)), computed(200))
    clock.now_s += 300.0
    kv = computed(200)
    kept = weakref.ref(kv)
    cache.store(list(range(3000, 3200)), kv)
    del kv
    clock.now_s += 299.0
    assert acquire(cache, [*range(40), *[7] * 99]).length == 40, "looking does not prolong it"
    clock.now_s += 1.0
    assert acquire(cache, list(range(200))).length == 0
    clock.now_s += 300.0
    cache.store([7] * 20, computed(20))
    assert kept() is None
    assert cache.held_tokens == BLOCK_TOKENS


def test_what_nobody_asks_for_is_let_go_too() -> None:
    """SESSIONS_TTL_SECONDS: whoever keeps house hands it over to be freed."""
    clock = Clock()
    cache = PrefixCache(2048, ttl_s=600.0, clock=clock)
    kv = computed(200)
    cache.store(list(range(200)), kv)
    assert cache.forget_expired() == []
    clock.now_s += 600.0
    assert cache.forget_expired() == [kv]
    assert cache.held_tokens == 0
    assert cache.forget_expired() == []


def test_a_time_of_nothing_keeps_nothing() -> None:
    """SESSIONS_TTL_SECONDS=0."""
    cache = PrefixCache(2048, ttl_s=0.0, clock=Clock())
    cache.store(list(range(200)), computed(200))
    assert cache.held_tokens == 0
