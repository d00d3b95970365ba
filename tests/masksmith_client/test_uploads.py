import threading
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from masksmith_client import BadRequest, Client, JobFailedError, TransportError
from masksmith_client.submission import uploads as uploads

from .conftest import FakeService, busy, problem, reset


def test_masks_of_all_weights_come_back(client: Client, weights: dict[str, Any]) -> None:
    masks = client.solve(weights, "2:4")
    assert {name: mask.shape for name, mask in masks.items()} == {"a": (8, 8), "b": (4, 12)}
    assert all(mask.dtype == np.bool_ and mask.mean() == 0.5 for mask in masks.values())
    assert masks.job is not None
    assert masks.infos["a"].pattern == "2:4"


def test_torch_weights_get_torch_masks(client: Client) -> None:
    masks = client.solve({"t": torch.ones(4, 8), "n": np.ones((4, 8))}, "2:4")
    assert masks["t"].dtype == torch.bool
    assert isinstance(masks["n"], np.ndarray)


def test_what_the_service_has_does_not_travel_again(service: FakeService, client: Client, weights: Any) -> None:
    client.solve(weights, "2:4")
    client.solve(weights, "1:4")
    assert service.count("PUT", "/v1/tensors") == 2
    assert service.count("HEAD", "/v1/tensors") == 4


def test_tied_weights_travel_once(service: FakeService, client: Client) -> None:
    tensor = torch.randn(8, 8)
    masks = client.solve({"embedding": tensor, "head": tensor}, "2:4")
    assert service.count("PUT", "/v1/tensors") == 1
    assert set(masks) == {"embedding", "head"}


@pytest.mark.parametrize("fault", [reset, busy, lambda _: problem(400, "body_incomplete", "cut off")])
def test_only_the_cut_tensor_travels_again(service: FakeService, client: Client, weights: Any, fault: Any) -> None:
    service.fail("PUT", "/v1/tensors", fault, fault)
    client.solve(weights, "2:4")
    assert service.count("PUT", "/v1/tensors") == 4
    assert len(service.tensors) == 2


def test_uploads_announce_their_size(service: FakeService, client: Client, weights: Any) -> None:
    client.solve(weights, "2:4")
    puts = [request for request in service.requests if request.method == "PUT"]
    assert all(int(request.headers["content-length"]) == len(request.content) for request in puts)
    assert all("transfer-encoding" not in request.headers for request in puts)


def test_a_refused_upload_is_an_error_and_stops_the_others(service: FakeService, client: Client) -> None:
    service.fail("PUT", "/v1/tensors", *[lambda _: problem(413, "body_too_large", "too large")] * 50)
    weights = {f"w{number}": np.full((4, 4), float(number)) for number in range(50)}
    with pytest.raises(BadRequest, match="too large"):
        client.solve(weights, "2:4")
    assert service.count("PUT", "/v1/tensors") < 20
    assert service.count("POST", "/v1/jobs") == 0


def test_stopping_cuts_pauses_short(service: FakeService, weights: Any) -> None:
    from masksmith_client import RetryPolicy

    service.fail("HEAD", "/v1/tensors", lambda _: problem(400, "invalid_digest", "bad"), *[reset] * 50)
    patient = RetryPolicy(retries=50, first_s=3600.0, longest_s=3600.0, longest_retry_after_s=3600.0)
    with Client("http://service", retry=patient, transport=httpx2.MockTransport(service)) as client:
        done = threading.Event()

        def run() -> None:
            with pytest.raises(BadRequest):
                client.solve({f"w{n}": np.full((4, 4), float(n)) for n in range(4)}, "2:4")
            done.set()

        threading.Thread(target=run, daemon=True).start()
        assert done.wait(120.0)


def test_one_key_for_all_attempts_and_another_for_the_next_call(
    service: FakeService, client: Client, weights: Any
) -> None:
    def lost(request: httpx2.Request) -> httpx2.Response:
        service.requests.pop()
        service(request)
        raise httpx2.ReadError("the answer got lost")

    service.fail("POST", "/v1/jobs", lost)
    client.solve(weights, "2:4")
    keys = [request.headers["idempotency-key"] for request in service.requests if request.method == "POST"]
    assert len(set(keys)) == 1
    assert len(service.jobs) == 1
    client.solve(weights, "2:4")
    assert len(service.jobs) == 2


def test_uploads_that_were_cleaned_up_meanwhile_are_sent_again(
    service: FakeService, client: Client, weights: Any
) -> None:
    def cleaned_up(request: httpx2.Request) -> httpx2.Response:
        service.tensors.clear()
        return problem(422, "upload_not_found", "gone")

    service.fail("POST", "/v1/jobs", cleaned_up)
    assert len(client.solve(weights, "2:4")) == 2
    assert service.count("PUT", "/v1/tensors") == 4


def test_the_bar_goes_back_when_an_upload_is_cut(
    service: FakeService, client: Client, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[int] = []
    monkeypatch.setattr(uploads.Bar, "advance", lambda self, count: moves.append(count))

    def half(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.WriteError("broken pipe")

    service.fail("PUT", "/v1/tensors", half)
    job = client.jobs.submit(weights, "2:4")
    assert job.id
    assert sum(moves) == sum(len(content) for content in service.tensors.values())


def test_the_good_masks_of_a_failed_job_are_there(service: FakeService, client: Client, weights: Any) -> None:
    service.bad_tensors.add("a")
    with pytest.raises(JobFailedError, match=r"1 of 2 .*NaN at \[0, 1\]") as caught:
        client.solve(weights, "2:4")
    job = caught.value.job
    assert job.report["a"].error is not None
    assert set(job.masks()) == {"b"}  # type: ignore[attr-defined]


def test_a_cut_download_starts_again(service: FakeService, client: Client, weights: Any) -> None:
    job = client.jobs.submit(weights, "2:4").wait()
    whole = service.masks_file(job.id)
    service.fail("GET", f"/v1/jobs/{job.id}/masks", lambda _: httpx2.Response(200, content=whole[:-5]))
    assert set(job.masks()) == {"a", "b"}


def test_a_download_that_is_always_cut_is_an_error(service: FakeService, client: Client, weights: Any) -> None:
    job = client.jobs.submit(weights, "2:4").wait()
    whole = service.masks_file(job.id)
    service.fail("GET", f"/v1/jobs/{job.id}/masks", *[lambda _: httpx2.Response(200, content=whole[:-5])] * 9)
    with pytest.raises(TransportError, match="incomplete"):
        job.masks()
