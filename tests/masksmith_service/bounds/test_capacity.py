"""A key holds half of a capacity at most; requests without a key, where none are used, all of it."""

import anyio
import pytest

from masksmith_service.bounds.capacity import Capacity
from masksmith_service.errors import RequestError


@pytest.mark.parametrize(("key", "most", "status"), [("ann", 4, 429), ("", 8, 503)])
def test_how_much_a_key_can_hold(key, most, status):
    async def hold():
        capacity = Capacity("streams", 8)
        for _ in range(most):
            await capacity.acquire(key, 1)
        with pytest.raises(RequestError) as refused:
            await capacity.acquire(key, 1)
        return refused.value

    error = anyio.run(hold)
    assert (error.status, error.code) == (status, "overloaded")
    assert f"needs 1 of streams, and requests{' of this key' * bool(key)} that are being " in error.detail
    assert f"leave 0 of {most}; try again" in error.detail


def test_a_refusal_says_what_is_needed_and_what_is_left():
    async def refused():
        capacity = Capacity("memory", 8)
        await capacity.acquire("ann", 1)
        with pytest.raises(RequestError, match=r"needs 4 of memory, .* of this key .* leave 3 of 4;"):
            await capacity.acquire("ann", 4)
        await capacity.acquire("bob", 4)
        with pytest.raises(RequestError, match=r"needs 4 of memory, and requests that .* leave 3 of 8;"):
            await capacity.acquire("eve", 4)

    anyio.run(refused)


@pytest.mark.parametrize(("key", "others"), [("ann", 0), ("", 0), ("ann", 4)])
def test_what_is_released_just_as_the_wait_ends_is_acquired(monkeypatch, key, others):
    """Or refused with 503 if others hold the rest, but never for a share that is free."""

    async def acquire():
        capacity = Capacity("memory", 8, wait_s=60)
        await capacity.acquire(key, capacity.share_of(key))

        async def end_wait():
            capacity.release(key, capacity.share_of(key))
            capacity.held_by_key["others"] += 2 * others
            raise TimeoutError

        monkeypatch.setattr(capacity._changed, "wait", end_wait)
        await capacity.acquire(key, 2)
        return capacity.held_by_key[key]

    if others:
        with pytest.raises(RequestError, match="requests that are being answered leave 0 of 8") as refused:
            anyio.run(acquire)
        assert refused.value.status == 503
    else:
        assert anyio.run(acquire) == 2
