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
    assert f"({most})" in error.detail
