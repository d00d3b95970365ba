import kombu
import pytest
import redis
from kombu.transport import redis as kombu_redis
from pydantic import ValidationError

from masksmith_state.queue import broker_url
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import JobState, MasksRequest

INPUT = {"name": "w", "digest": "0" * 64, "key": "w"}
GOOD = {"pattern": "2:4", "tensors": [INPUT]}


def test_defaults():
    request = MasksRequest.model_validate(GOOD)
    assert (request.kind, str(request.scores), request.solver, request.axis, request.ragged) == (
        "masks", "magnitude", "auto", "in", "pad",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "benchmark"}, {"pattern": 3}, {"pattern": "x" * 101}, {"solver": "best"}, {"scores": "taken"},
        {"axis": "up"}, {"ragged": "x"}, {"tensors": []}, {"tensors": None}, {"time_limit_s": 0},
        {"time_limit_s": float("nan")}, {"time_limit_s": float("inf")}, {"n": 2},
        {"time_limit_s": "5"}, {"spectrum": "yes"}, {"spectrum": "false"}, {"spectrum": 1}, {"spectrum": 0.0},
        {"tensors": [INPUT | {"digest": "0" * 63}]}, {"tensors": [INPUT | {"digest": "A" * 64}]},
        {"tensors": [INPUT | {"digest": "0" * 64 + "\n"}]}, {"tensors": [INPUT | {"name": ""}]},
        {"tensors": [INPUT | {"name": "n" * 513}]}, {"tensors": [INPUT | {"name": "__metadata__"}]},
        {"tensors": [INPUT | {"name": "\ud800"}]}, {"tensors": [INPUT | {"extra": 1}]},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_documents_are_refused(change):
    with pytest.raises(ValidationError):
        MasksRequest.model_validate(GOOD | change)


@pytest.mark.parametrize("value", ["yes", "off", 1, 0.0])
def test_a_flag_of_a_benchmark_is_true_or_false(value):
    document = {"kind": "benchmark", "layers": [{"name": "a", "rows": 64, "cols": 64}], "patterns": ["2:4"]}
    assert BenchmarkRequest.model_validate(document | {"curves": False}).curves is False
    with pytest.raises(ValidationError, match=r"curves\n.*true or false"):
        BenchmarkRequest.model_validate(document | {"curves": value})


def test_terminal_states():
    assert [state for state in JobState if state.is_terminal] == ["succeeded", "failed", "canceled"]


def test_broker_urls():
    assert broker_url("unix:///a/b.sock") == "redis+socket:///a/b.sock"
    assert broker_url("redis://host:1/0") == "redis://host:1/0"


@pytest.mark.parametrize("url", ["unix:///a.sock?username=u&password=p%2F%40&db=2", "unix://u@/a.sock?password=p%2F%40&db=2",
                                 "unix://u:p%2F%40@/a.sock?db=2"])  # fmt: skip
def test_celery_uses_the_password_of_a_socket_url(url):
    with kombu.Connection(broker_url(url)) as connection:
        channel = object.__new__(kombu_redis.Channel)
        channel.connection = connection.transport
        channel.__dict__["global_keyprefix"] = ""
        parameters = kombu_redis.Channel._connparams(channel)
    expected = redis.Redis.from_url(url).connection_pool.connection_kwargs
    names = ("path", "username", "password", "db")
    assert [parameters[name] for name in names] == [expected[name] for name in names] == ["/a.sock", "u", "p/@", 2]


@pytest.mark.parametrize(("query", "database"), [("", 0), ("?db=3", 3), ("?db=0", 0)])
def test_celery_uses_the_database_of_a_socket_url(query, database):
    with kombu.Connection(broker_url(f"unix:///a/b.sock{query}")) as connection:
        channel = object.__new__(kombu_redis.Channel)
        channel.connection = connection.transport
        channel.__dict__["global_keyprefix"] = ""
        parameters = kombu_redis.Channel._connparams(channel)
    assert (parameters["path"], parameters["db"]) == ("/a/b.sock", database)
