"""Junk in the queue and in the broker's records: it is set aside, and no process ends."""

import json

from support.fleet import bits, submit
from support.processes import poll

from masksmith_state.queue import CPU_QUEUE
from masksmith_state.unreadable import entries


def test_messages_that_cannot_be_read_end_no_worker(fleet, weights, undisturbed, table):
    titles = [worker.title for worker in fleet.workers]
    good = {"headers": {"task": "masksmith.solve_shard", "timelimit": ["a", "b"]}, "properties": {"delivery_tag": "x"}}
    poison = ["junk", "[]", "null", json.dumps(good)] * 5
    fleet.redis.delete("masksmith:unreadable")
    for item in poison:
        fleet.redis.lpush(CPU_QUEUE, item)
    with fleet.client() as client:
        found = bits(submit(client, weights))
    poll(lambda: len(entries(fleet.redis)) == len(poison))
    fleet.await_all()
    table["messages that cannot be read"].add(lost=int(found != undisturbed))
    assert found == undisturbed
    assert [worker.title for worker in fleet.workers] == titles
