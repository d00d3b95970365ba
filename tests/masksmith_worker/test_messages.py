"""Messages that cannot be read are set aside with their reason, and end no worker."""

import base64
import json

import kombu.transport
import pytest
from celery import Celery
from kombu import Queue as KombuQueue

from masksmith_service.jobs.queue import MessageProducer
from masksmith_state.queue import CASE_TASK, CPU_QUEUE, QUEUES, SHARD_TASK, celery_settings
from masksmith_state.unreadable import COPIES_KEPT_S, MAX_ENTRIES, UNREADABLE, entries, set_aside
from masksmith_worker import transport
from masksmith_worker.app import create_app, send_messages
from masksmith_worker.messages import UnreadableMessageError, validate_message
from masksmith_worker.settings import Settings

JOB = "0" * 27


@pytest.fixture
def good(records, valkey):
    """A message as the service writes it."""
    MessageProducer(valkey.url).send_messages(CPU_QUEUE, 1)
    return records.redis.rpop(CPU_QUEUE).encode()


@pytest.mark.parametrize("queue", QUEUES)
def test_messages_that_a_worker_enqueues_are_readable(records, valkey, queue):
    app = create_app(Settings(redis_url=valkey.url))

    def take_part():
        send_messages(app, queue, 1)

    tasks = [app.task(take_part, name=name, shared=False) for name in (SHARD_TASK, CASE_TASK)]
    app.finalize()  # As a worker does when it starts: its tasks get its time limit.
    send_messages(app, queue, 1)  # as its sweeper does
    tasks[0].apply(throw=True)  # as a task does that takes a shard
    for is_from_task in (False, True):
        headers = json.loads(validate_message(records.redis.rpop(queue).encode(), queue))["headers"]
        assert headers["timelimit"] == [None, None]
        assert (headers["parent_id"] is not None) == is_from_task


def body(content):
    return base64.b64encode(json.dumps(content).encode()).decode()


def changed(message, path, value):
    """A message with another value at a path; None of a value removes the member."""
    document = json.loads(message)
    *outer, last = path.split(".")
    at = document
    for name in outer:
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document).encode()


POISON = {
    "time limits that are texts": ("headers.timelimit", ["a", "b"]),
    "one time limit": ("headers.timelimit", [1]),
    "no time limits": ("headers.timelimit", None),
    "another task": ("headers.task", "masksmith.measure_case"),
    "an unknown task": ("headers.task", "os.system"),
    "a date": ("headers.eta", "tomorrow"),
    "an expiry": ("headers.expires", "1970"),
    "retries": ("headers.retries", "x"),
    "a group": ("headers.group", ["x"]),
    "no headers": ("headers", None),
    "headers of another type": ("headers", []),
    "no properties": ("properties", None),
    "no delivery tag": ("properties.delivery_tag", None),
    "a tag of another type": ("properties.delivery_tag", {}),
    "another exchange": ("properties.delivery_info.exchange", "x"),
    "pickle": ("content-type", "application/x-python-serialize"),
    "another encoding": ("properties.body_encoding", "rot13"),
    "a body that is no base64": ("body", "!"),
    "a body that is no JSON": ("body", "AAAA"),
    "a body of another shape": ("body", body({})),
    "arguments": ("body", body([[JOB, 0], {}, {}])),
    "named arguments": ("body", body([[], {"x": 1}, {}])),
    "callbacks": ("body", body([[], {}, {"callbacks": ["x"]}])),
    "a deep body": ("body", base64.b64encode(b"[" * 1000).decode()),
}
RAW = [b"", b"junk", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b"{", b"[" * 100_000]


@pytest.mark.parametrize(("path", "value"), POISON.values(), ids=POISON)
def test_a_message_with_a_wrong_member_is_refused(good, path, value):
    with pytest.raises(UnreadableMessageError) as caught:
        validate_message(changed(good, path, value), CPU_QUEUE)
    assert path.partition(".")[0] in str(caught.value)


@pytest.mark.parametrize("item", RAW)
def test_junk_is_refused(item):
    with pytest.raises(UnreadableMessageError):
        validate_message(item, CPU_QUEUE)


def test_a_good_message_is_read_and_unknown_members_are_dropped(good):
    message = validate_message(changed(good, "headers.stamps", {"x": object.__name__}), CPU_QUEUE)
    expected_body = body([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    assert json.loads(message)["body"] == expected_body
    assert b"stamps" not in validate_message(changed(good, "headers.stamps", {"x": 1}), CPU_QUEUE)


@pytest.fixture
def worker_connection(valkey, good, monkeypatch):
    """A connection as a worker has it, whose process has no other."""
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    monkeypatch.setattr(kombu.transport, "TRANSPORT_ALIASES", dict(kombu.transport.TRANSPORT_ALIASES))
    transport.install()
    app = Celery("reader", set_as_current=False)
    app.conf.update(celery_settings(valkey.url))
    with app.connection_for_read() as connection:
        yield connection


@pytest.fixture
def consume(worker_connection):
    """Read messages as a worker does; gives their bodies."""

    def consume(until):
        received = []

        def on_message(message):
            received.append(json.loads(message.body))
            message.ack()

        with worker_connection.Consumer(KombuQueue(CPU_QUEUE), on_message=on_message, accept=["json"]):
            while len(received) < until:
                worker_connection.drain_events(timeout=120)
        return received

    return consume


def test_unreadable_messages_are_set_aside_and_later_ones_are_read(records, good, consume):
    poison = [*RAW, *(changed(good, *case) for case in POISON.values())]
    for item in poison:
        records.redis.lpush(CPU_QUEUE, item)
    records.redis.lpush(CPU_QUEUE, good)
    assert [content[0] for content in consume(1)] == [[]]
    found = entries(records.redis)
    assert len(found) == len(poison)
    assert all(entry["kind"] == "message" and entry["name"] == CPU_QUEUE and entry["reason"] for entry in found)
    assert records.counts()["unreadable|message"] == str(len(poison))


@pytest.mark.parametrize("kept", ["junk", "[]", '{"a": 1}', "null"])
def test_a_delivery_that_cannot_be_restored_is_set_aside(records, good, worker_connection, kept):
    """What a dead worker had not acknowledged lies in `unacked` until its visibility timeout."""
    records.redis.hset("unacked", mapping={"tag": kept, "other": json.dumps([json.loads(good), "", CPU_QUEUE])})
    records.redis.zadd("unacked_index", {"tag": 1.0, "other": 1.0})
    worker_connection.default_channel.qos.restore_visible(interval=1)
    assert not records.redis.exists("unacked", "unacked_index")
    assert records.redis.llen(CPU_QUEUE) == 1
    (entry,) = entries(records.redis)
    assert (entry["kind"], entry["name"], entry["text"]) == ("delivery", "tag", kept)


def test_the_list_of_what_was_set_aside_is_bounded(records):
    for number in range(MAX_ENTRIES + 10):
        set_aside(records.redis, "message", "queue", "reason", "x" * 100_000 if number == 0 else str(number))
    assert records.redis.llen(UNREADABLE) == MAX_ENTRIES
    assert entries(records.redis)[0]["text"] == str(MAX_ENTRIES + 9)
    assert records.counts()["unreadable|message"] == str(MAX_ENTRIES + 10)


def test_a_key_of_another_type_in_the_place_of_the_list_costs_no_entry(records, caplog):
    records.redis.set(UNREADABLE, "junk")
    (damage,) = entries(records.redis)
    assert (damage["kind"], damage["name"]) == ("list", UNREADABLE)
    assert "is damaged" in damage["reason"]
    set_aside(records.redis, "message", "queue", "reason", "text")
    (entry,) = entries(records.redis)
    assert (entry["kind"], entry["text"]) == ("message", "text")
    (copy,) = records.redis.keys(f"masksmith:aside:{UNREADABLE}:*")
    assert records.redis.get(copy) == "junk"
    assert 0 < records.redis.ttl(copy) <= COPIES_KEPT_S
    assert copy in caplog.text
    assert records.counts()["unreadable|message"] == "1"


@pytest.mark.parametrize("text", ["junk", "[]", '{"kind": 1}', "[" * 100_000])
def test_an_entry_that_cannot_be_read_hides_no_other(records, text):
    set_aside(records.redis, "message", "queue", "reason", "text")
    records.redis.lpush(UNREADABLE, text)
    damage, entry = entries(records.redis)
    assert (damage["kind"], damage["text"]) == ("entry", text)
    assert "cannot be read" in damage["reason"]
    assert entry["text"] == "text"
