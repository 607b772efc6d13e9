"""What was computed before is found again, and never more is kept than there is room for."""

from __future__ import annotations

import torch

from app.engine.kv_cache import KeyValues
from app.engine.prefixes import LEAST_TOKENS, Prefixes

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


def take(prefixes: Prefixes, ids: list[int], running: object = (), room: int = 0) -> KeyValues:
    return prefixes.take(ids, running, layers=LAYERS, room_tokens=room or len(ids))  # type: ignore[arg-type]


def test_an_unknown_beginning_is_computed() -> None:
    prefixes = Prefixes(2048)
    prefixes.keep(list(range(100)), computed(100))
    assert take(prefixes, [500, *range(99)]).length == 0
    assert take(prefixes, list(range(LEAST_TOKENS - 1)) + [999] * 50).length == 0


def test_a_sequence_is_handed_over_and_its_last_token_computed_again() -> None:
    """Its logits are wanted, and they are not kept."""
    prefixes = Prefixes(2048)
    kv = computed(100)
    prefixes.keep(list(range(100)), kv)
    assert take(prefixes, list(range(100))) is kv
    assert kv.length == 99
    assert take(prefixes, list(range(100))).length == 0


def test_a_short_common_beginning_is_copied_and_the_rest_stays() -> None:
    """A system prompt in front of another article."""
    prefixes = Prefixes(2048)
    kv = computed(200)
    prefixes.keep(list(range(200)), kv)
    other = take(prefixes, [*range(40), *range(900, 1000)])
    assert other is not kv
    assert other.length == 40
    for layer in range(LAYERS):
        keys, values = other.layer(layer)
        assert keys[0, :40, 0].tolist() == list(range(40))
        assert values[0, :40, 0].tolist() == [-place for place in range(40)]
    assert take(prefixes, list(range(200))) is kv


def test_what_runs_is_copied_never_taken() -> None:
    running = computed(80)
    found = take(Prefixes(2048), list(range(120)), [(list(range(80)), running)])
    assert found is not running
    assert found.length == running.length == 80


def test_the_oldest_goes_when_there_is_no_room() -> None:
    """Kept sequences never take more than the context's worth of memory."""
    prefixes = Prefixes(1024)
    for start in (0, 1000, 2000, 3000, 4000):
        prefixes.keep(list(range(start, start + 200)), computed(200))
    assert take(prefixes, list(range(200))).length == 0
    assert take(prefixes, list(range(4000, 4200))).length == 199
    take(prefixes, [7] * 50, room=1024)
    assert take(prefixes, list(range(3000, 3200))).length == 0
