import time
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest

from masksmith_client import (
    BadRequest,
    Client,
    ConnectError,
    InputError,
    NotFound,
    RateLimited,
    RetryPolicy,
    ServerError,
    StatusError,
    TimeoutError,
    TransportError,
    Unauthorized,
    WireError,
)
from masksmith_client.transport.calls import status_error
from masksmith_client.transport.retry import Attempts, is_transient
from masksmith_wire.errors import Code

from .conftest import QUICK, FakeService, busy, problem, refused, reset


def slow(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("slow")


@pytest.mark.parametrize("fault", [busy, refused, reset, slow])
def test_what_passes_is_tried_again(service: FakeService, client: Client, fault: Any) -> None:
    service.fail("GET", "/v1/workers", fault, fault)
    assert client.info().trouble == "no worker is alive"
    assert service.count("GET", "/v1/workers") == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_that_pass_are_tried_again(service: FakeService, client: Client, status: int) -> None:
    service.fail("GET", "/v1/workers", lambda _: problem(status, "busy", "later"))
    assert client.info().workers == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (413, BadRequest),
        (422, BadRequest),
    ],
)
def test_statuses_that_stay_are_raised_at_once(
    service: FakeService, client: Client, status: int, kind: type[StatusError]
) -> None:
    service.fail("GET", "/v1/jobs/x", lambda _: problem(status, "some_code", "the reason", {"x-request-id": "r1"}))
    with pytest.raises(kind, match="the reason") as caught:
        client.jobs.get("x")
    assert service.count("GET", "/v1/jobs/x") == 1
    assert (caught.value.code, caught.value.status, caught.value.request_id) == ("some_code", status, "r1")


@pytest.mark.parametrize(("fault", "kind"), [(busy, ServerError), (slow, TimeoutError), (reset, TransportError)])
def test_patience_ends(service: FakeService, client: Client, fault: Any, kind: type[Exception]) -> None:
    service.fail("GET", "/v1/jobs/x", *[fault] * 10)
    with pytest.raises(kind):
        client.jobs.get("x")
    assert service.count("GET", "/v1/jobs/x") == QUICK.retries + 1


def test_nobody_at_the_first_contact_is_said_soon(service: FakeService, client: Client) -> None:
    service.fail("GET", "/v1/jobs/x", *[refused] * 1000)
    with pytest.raises(ConnectError, match=r"http://service .*masksmith up"):
        client.jobs.get("x")
    assert service.count("GET", "/v1/jobs/x") == QUICK.first_contact_retries + 1


def test_a_service_that_answered_before_is_waited_for(service: FakeService, client: Client) -> None:
    client.info()
    service.fail("GET", "/v1/workers", *[refused] * 20, busy, busy)
    assert client.info().workers == []


def test_retry_after_is_obeyed(service: FakeService, client: Client) -> None:
    service.fail("GET", "/v1/workers", lambda _: problem(429, "full", "later", {"retry-after": "1"}))
    began = time.monotonic()
    client.info()
    assert time.monotonic() - began >= 1.0


def test_a_retry_after_of_an_hour_is_an_error_now(service: FakeService, client: Client) -> None:
    service.fail("GET", "/v1/jobs/x", lambda _: problem(429, "full", "later", {"retry-after": "3600"}))
    with pytest.raises(RateLimited) as caught:
        client.jobs.get("x")
    assert caught.value.retry_after_s == 3600


def test_pauses_grow_and_have_jitter() -> None:
    policy = RetryPolicy(retries=9)
    attempts = Attempts(policy, "u")
    pauses = [attempts.record_failure(httpx2.ReadError("x")) for _ in range(9)]
    assert 0.25 <= pauses[0] <= 0.5
    assert all(pause <= policy.longest_s for pause in pauses)
    assert pauses[4] >= 4.0
    assert len({policy.pause_s(3) for _ in range(5)}) > 1


def test_a_long_pause_of_the_policy_itself_is_no_retry_after() -> None:
    attempts = Attempts(RetryPolicy(first_s=100.0, longest_s=100.0, longest_retry_after_s=1.0), "u")
    assert attempts.record_failure(httpx2.ReadError("x")) >= 50.0


def test_a_connection_that_times_out_is_no_connection() -> None:
    attempts = Attempts(RetryPolicy(retries=0), "u", has_answered=True)
    for _ in range(5):
        attempts.record_failure(httpx2.ConnectTimeout("timed out"))
    with pytest.raises(ConnectError, match=r"no masksmith service answers at u \(timed out\)"):
        Attempts(RetryPolicy(retries=0), "u").record_failure(httpx2.ConnectTimeout("timed out"))


def test_an_outage_begins_with_the_first_failed_connection_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("masksmith_client.transport.retry.time", SimpleNamespace(monotonic=lambda: now[0]))
    attempts = Attempts(RetryPolicy(), "u", has_answered=True)

    def fail(time_s: float, error: Exception) -> None:
        now[0] = time_s
        attempts.record_failure(error)

    refused_connection = httpx2.ConnectError("refused")
    fail(600.0, httpx2.WriteError("reset"))  # An upload of ten minutes is cut by a restart.
    fail(601.0, refused_connection)
    fail(720.0, refused_connection)
    fail(799.0, httpx2.ReadError("reset"))
    fail(800.0, refused_connection)
    fail(919.0, refused_connection)
    with pytest.raises(ConnectError):
        fail(920.0, refused_connection)


def test_an_error_page_of_a_proxy_is_still_an_error_of_ours(service: FakeService, client: Client) -> None:
    service.fail("GET", "/v1/jobs/x", lambda _: httpx2.Response(418, text="<html>teapot</html>"))
    with pytest.raises(BadRequest, match=r"418 .*, which is not a response of a masksmith service; check the URL"):
        client.jobs.get("x")


def test_a_redirect_is_an_error_that_names_where_to(service: FakeService, client: Client) -> None:
    response = httpx2.Response(307, headers={"location": "https://b.example/v1/jobs/x"}, text="<html>moved</html>")
    service.fail("GET", "/v1/jobs/x", lambda _: response)
    with pytest.raises(BadRequest, match=r"307 .* to https://b\.example/v1/jobs/x; redirects are not followed: .* URL"):
        client.jobs.get("x")


def test_a_refused_key_is_named_where_the_response_has_no_body(service: FakeService, client: Client) -> None:
    service.fail("HEAD", "/v1/tensors", lambda _: httpx2.Response(401))
    with pytest.raises(Unauthorized, match="401 Unauthorized: the token is missing or not valid") as caught:
        client.jobs.submit({"a": np.ones((4, 4), np.float32)}, "2:4")
    assert caught.value.code == Code.UNAUTHORIZED


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"id": 3}', b""])
def test_another_service_at_the_url_is_noticed(service: FakeService, client: Client, content: bytes) -> None:
    service.fail("GET", "/v1/jobs/x", lambda _: httpx2.Response(200, content=content))
    with pytest.raises(WireError, match="URL"):
        client.jobs.get("x")


def test_another_wire_version_is_said_before_anything_is_sent(
    service: FakeService, client: Client, weights: Any
) -> None:
    service.wire_version = 2
    with pytest.raises(WireError, match="upgrade this client"):
        client.solve(weights, "2:4")
    assert not service.tensors


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_malformed_urls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSMITH_URL", "nonsense")
    with pytest.raises(InputError):
        Client(url)


@pytest.mark.parametrize("url", ["http://exa mple", "http://a<b:80", "http://[bad", "https://a%20b/prefix"])
def test_a_host_without_a_possible_name_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="a host with a character that no host's name has"):
        Client(url)


@pytest.mark.parametrize("url", ["http://host?", "http://host/prefix#", "http://host?a=b"])
def test_a_url_has_no_query_and_no_fragment(url: str) -> None:
    with pytest.raises(InputError, match="has a query or a fragment"):
        Client(url)


def test_url_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, service: FakeService) -> None:
    monkeypatch.setenv("MASKSMITH_URL", "https://masks.example/prefix/")
    monkeypatch.setenv("MASKSMITH_TOKEN", "secret")
    with Client(transport=httpx2.MockTransport(service), retry=QUICK) as client, pytest.raises(NotFound):
        client.jobs.get("x")
    assert str(service.requests[0].url) == "https://masks.example/prefix/v1/jobs/x"
    assert service.requests[0].headers["authorization"] == "Bearer secret"


def test_an_id_typed_by_hand_cannot_reach_another_path(service: FakeService, client: Client) -> None:
    with pytest.raises(NotFound):
        client.jobs.get("../../healthz?x=1")
    assert service.requests[0].url.raw_path == b"/v1/jobs/..%2F..%2Fhealthz%3Fx%3D1"


def test_the_status_of_an_error_is_that_of_the_response() -> None:
    document = {"title": "", "status": 400, "code": "overloaded", "detail": "later"}
    response = httpx2.Response(503, json=document, request=httpx2.Request("GET", "http://service"))
    error = status_error(response)
    assert isinstance(error, ServerError)
    assert error.status == error.problem.status == 503
    assert is_transient(error)
