"""What `make test` leaves out: cases all of whose values other cases have. `make test-long` runs the full products."""

import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import pytest

LONG = "MASKSMITH_LONG_TESTS"
SIMPLE = (str, bytes, int, float, type(None))


def is_long_run() -> bool:
    """Whether slow tests run, too."""
    return LONG in os.environ


def note_lane(config: pytest.Config) -> None:
    """Note for generators of cases whether slow tests run."""
    if config.option.markexpr != "not slow":
        os.environ[LONG] = "1"


def mark_repeated_values(items: Iterable[Any]) -> None:
    """Mark a parametrized case as slow if earlier cases of its test have all of its values."""
    seen: defaultdict[str, set[Hashable]] = defaultdict(set)
    for item in items:
        if not hasattr(item, "callspec") or item.get_closest_marker("slow"):
            continue
        test, values = item.nodeid.partition("[")[0], set(_values(item))
        if values <= seen[test]:
            item.add_marker(pytest.mark.slow)
        seen[test] |= values


def _values(item: Any) -> Iterator[Hashable]:
    """Yield a case's value of each axis; arguments listed together are one axis unless the list is a product."""
    params, listed = item.callspec.params, set[str]()
    for mark in item.iter_markers("parametrize"):
        names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else [*mark.args[0]]
        listed.update(names)
        keys = [(name, _key(params[name])) for name in names]
        yield from keys if len(names) > 1 and _is_product(mark.args[1]) else [tuple(keys)]
    yield from ((name, _key(value)) for name, value in params.items() if name not in listed)


def _is_product(cases: Iterable[Any]) -> bool:
    """Whether a list of cases holds every combination of some values of its arguments."""
    rows = [getattr(case, "values", case) for case in cases]
    return len(rows) == math.prod(len({_key(value) for value in column}) for column in zip(*rows, strict=True))


def _key(value: object) -> Hashable:
    """What two equal values have in common; objects count as equal if they are the same one."""
    return (type(value).__name__, value) if isinstance(value, SIMPLE) else id(value)
