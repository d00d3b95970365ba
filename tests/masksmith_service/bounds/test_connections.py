"""Which connections are closed beyond the limit."""

from masksmith_service.bounds.connections import RESERVE, Connections


class Connection:
    def __init__(self):
        self.is_idle, self.was_closed = False, False

    def abort(self):
        self.was_closed = True


def test_all_idle_connections_beyond_the_limit_make_room_for_a_new_one():
    """Two connections beyond the limit, which were busy when they came, are idle by now."""
    connections = Connections(2)
    first, second, third, fourth = opened = [Connection() for _ in range(4)]
    assert [connections.add(each) for each in opened] == [True, True, False, False]
    for each in opened:
        each.is_idle = True
    assert connections.add(Connection())
    assert [each.was_closed for each in (first, second, third, fourth)] == [True, True, True, False]
    assert len(connections) == 2


def test_a_new_connection_is_closed_if_the_reserve_is_full_and_none_is_idle():
    connections = Connections(1)
    opened = [Connection() for _ in range(1 + RESERVE)]
    assert [connections.add(each) for each in opened] == [True] + [False] * RESERVE
    last = Connection()
    assert not connections.add(last)
    assert last.was_closed
    assert not any(each.was_closed for each in opened)
    assert len(connections) == 1 + RESERVE
